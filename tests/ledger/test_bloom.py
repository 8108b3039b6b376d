from p2pos.ledger.bloom import mark, may_hold
from tests.ledger.chains import BOB


def test_a_real_chains_filters(ground):
    """Each block of a real chain that has logs of the contract shows it in its filter; most others don't."""
    head = ground.chain.block_number()
    headers = ground.chain.headers(range(head + 1))
    told = {int(log["blockNumber"], 16) for log in ground.chain.raw_logs(0, head)}
    marked = mark(ground.chain.contract)
    assert told
    assert {one.number for one in headers if may_hold(one.bloom, marked)} == told
    assert not any(may_hold(one.bloom, mark(BOB.address)) for one in headers)


def test_logs_by_block(ground):
    """A block is asked for its logs by hash; one that the node does not have is told apart from one without logs."""
    headers = ground.chain.headers(range(ground.chain.block_number() + 1))
    found = ground.chain.logs_of_blocks([one.hash for one in headers] + [bytes(32)])
    every = [log for logs in found[:-1] for log in logs]
    assert every == ground.chain.raw_logs(0, headers[-1].number)
    assert not found[-1]
