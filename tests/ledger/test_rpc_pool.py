import threading
import time
from collections.abc import Iterator

import pytest

from p2pos.errors import UnavailableError, UserError
from p2pos.ledger.chain import Chain
from p2pos.ledger.rpc import RpcError
from p2pos.ledger.rpc_http import Bounds
from p2pos.ledger.rpc_pool import MAX_END_POINTS, RpcPool
from tests.ledger.chains import ALICE, BOB, OPERATOR, running_anvil
from tests.ledger.faulty import Faulty, faulty

SHORT = Bounds(connect_s=1.0, silence_s=1.0, total_s=1.5)
HEAD = ("eth_getBlockByNumber", "latest", False)


@pytest.fixture
def three(ground) -> Iterator[list[Faulty]]:
    """Three end points of one chain."""
    with faulty(ground.anvil.url) as one, faulty(ground.anvil.url) as two, faulty(ground.anvil.url) as last:
        yield [one, two, last]


@pytest.fixture
def pool(three) -> Iterator[RpcPool]:
    made = RpcPool([each.url for each in three], bounds=SHORT)
    assert made.call("eth_chainId") == "0x7a69"
    yield made
    made.close()


def lie(proxy: Faulty, **fields: str) -> None:
    """Have it name another head."""

    def edit(method, params, result):
        return {**result, **fields} if method == "eth_getBlockByNumber" and params[0] == "latest" else result

    proxy.edit = edit


def states(pool: RpcPool) -> list[str]:
    return [each["state"] for each in pool.health()]


def in_use(pool: RpcPool) -> int:
    return [each["in_use"] for each in pool.health()].index(True)


@pytest.mark.parametrize("fault", ["error", "500", "nonsense", "cut", "lose", "half", "hang", "drip"])
def test_a_read_fails_over(ground, three, pool, fault):
    """Whatever goes wrong at the end point in use, another answers, and goes on to."""
    three[0].let(fault)
    code = pool.call("eth_getCode", ground.chain.contract, "latest")
    assert len(code) > 1000
    assert in_use(pool) == (0 if fault == "error" else 1)
    if fault != "error":
        before = three[0].count
        pool.call("eth_getCode", ground.chain.contract, "latest")
        assert three[0].count == before


def test_reads_stay_with_one(ground, three, pool):
    """While it is good, one end point serves all reads."""
    counts = [each.count for each in three]
    for _ in range(5):
        pool.batch([("eth_getBalance", (ALICE.address, "latest"))])
    assert [each.count - before for each, before in zip(three, counts, strict=True)] == [5, 0, 0]


@pytest.mark.parametrize(
    "lies",
    [
        {"number": "0xfffffff"},
        {"hash": "0x" + "66" * 32},
        {"timestamp": "0xffffffff"},
        {"baseFeePerGas": "0xfffffffff"},
    ],
)
def test_a_liar_is_outvoted(ground, three, pool, lies):
    """One end point that makes up a head, its hash or a field of it, is not believed, and is put aside."""
    lie(three[0], **lies)
    ground.anvil.mine()
    assert pool.call(*HEAD) == ground.anvil.rpc.call(*HEAD)
    assert states(pool) == ["aside", "good", "good"]
    assert in_use(pool) == 1


def test_one_that_goes_back(ground, three, pool):
    """One that names an older block as its head is passed over until it has caught up."""
    old = ground.anvil.rpc.call(*HEAD)
    ground.anvil.mine(20)
    lie(three[0], **old)
    assert pool.call("eth_blockNumber") == ground.anvil.rpc.call("eth_blockNumber")
    assert states(pool) == ["behind", "good", "good"]
    assert pool.health()[0]["because"] == "it is 20 blocks behind"
    three[0].edit = lambda _method, _params, result: result
    pool.call("eth_blockNumber")
    assert states(pool) == ["good"] * 3


def test_another_chain_with_the_same_number(ground, three):
    """One that is on a chain of its own is outvoted, though its chain's id is the same."""
    with running_anvil() as other:
        other.mine(ground.chain.block_number())
        pool = RpcPool([other.url, three[1].url, three[2].url])
        assert pool.call(*HEAD) == ground.anvil.rpc.call(*HEAD)
        assert states(pool) == ["aside", "good", "good"]
        pool.close()


def test_another_chain(ground, three):
    """One that is on another chain is put aside and says so; where the majority is, the setting is what is wrong."""
    with running_anvil(chain_id=5) as other:
        pool = RpcPool([three[0].url, other.url], chain_id=31337)
        assert pool.call(*HEAD) == ground.anvil.rpc.call(*HEAD)
        assert pool.health()[1]["because"] == "it is on chain 5, not 31337"
        pool.close()
        with pytest.raises(UserError, match="has id 31337, not 5"):
            Chain.connect([three[0].url, other.url, three[1].url], chain_id=5)


def test_two_of_three_away(three, pool):
    """One of three alone is not believed about the head, and the error says what is wrong with the others."""
    three[0].let("cut")
    three[2].let("500")
    with pytest.raises(UnavailableError, match="too few of the chain's 3 end points") as caught:
        pool.call(*HEAD)
    assert str(caught.value).count("127.0.0.1") >= 2
    assert "\n" not in str(caught.value)


def test_two_that_disagree(ground, three):
    """Two end points without a common block are not believed."""
    with running_anvil(chain_id=31337) as other:
        pool = RpcPool([three[0].url, other.url])
        with pytest.raises(UnavailableError, match="disagree about block"):
            pool.call(*HEAD)
        pool.close()


def test_a_hung_one_costs_little(ground, three, pool):
    """An end point that hangs holds up the first look at the head after it, and no other."""
    three[1].let("hang")
    pool.call(*HEAD)
    began_s = time.process_time(), three[1].count
    for _ in range(3):
        pool.call(*HEAD)
    assert three[1].count == began_s[1]
    assert states(pool)[1] == "aside"


def test_transactions_go_to_all(ground, three, pool):
    """A transaction is handed to every end point, and is taken where any of them takes it."""
    three[0].let("cut")
    three[1].let("error")
    fields = ground.chain.transaction_fields(
        b"", to=BOB.address, nonce=ground.chain.nonce(OPERATOR.address), gas=21_000, fees=ground.chain.fees()
    )
    signed = OPERATOR.sign_transaction(fields)
    assert pool.batch([("eth_sendRawTransaction", ("0x" + signed.raw.hex(),))]) == [signed.hash]
    ground.anvil.mine()
    assert ground.chain.receipts([signed.hash])[0].succeeded


def test_a_limit_of_one_is_not_the_others(three, pool):
    """A refusal of the end point's own is asked of the next; what all of them refuse is the answer."""
    three[0].let("error")
    assert pool.call("eth_getBalance", ALICE.address, "latest") != "0x0"
    with pytest.raises(RpcError) as caught:
        pool.call("no_such_method")
    assert caught.value.text == "the end point is out of order"
    three[0].let("pass")
    with pytest.raises(RpcError) as caught:
        pool.call("no_such_method")
    assert caught.value.code == -32601


def test_a_revert_is_an_answer(ground, three, pool):
    """What the contract refuses is not asked of the next end point."""
    counts = [each.count for each in three]
    with pytest.raises(RpcError) as caught:
        pool.call("eth_call", {"to": ground.chain.contract, "data": "0x" + "00" * 4}, "latest")
    assert caught.value.is_revert
    assert [each.count - before for each, before in zip(three, counts, strict=True)] == [1, 0, 0]


def test_consistent_reads(three, pool):
    """Within `consistent`, a read that fails is not answered by another end point, whose state may differ."""
    with pool.consistent():
        pool.call("eth_getBalance", ALICE.address, "latest")
        three[0].let("cut")
        with pytest.raises(UnavailableError):
            pool.call("eth_getBalance", ALICE.address, "latest")
    assert pool.call("eth_getBalance", ALICE.address, "latest") != "0x0"
    assert in_use(pool) == 1


def test_one_comes_back(three, pool):
    """An end point that was put aside is used again when its time is over and it answers."""
    three[0].let("cut")
    pool.call("eth_getBalance", ALICE.address, "latest")
    assert states(pool)[0] == "aside"
    three[0].let("pass")
    pause, ends_s = threading.Event(), time.monotonic() + 30
    while states(pool) != ["good"] * 3:
        assert time.monotonic() < ends_s
        pool.call(*HEAD)
        pause.wait(0.05)


def test_all_of_the_chain_by_a_pool(ground, three):
    """Everything that is asked of one end point can be asked of several, web3's own questions included."""
    chain = Chain.connect([each.url for each in three], chain_id=31337, contract=ground.chain.contract, bounds=SHORT)
    assert chain.head() == ground.chain.head()
    assert chain.native_balance(OPERATOR.address) == ground.chain.native_balance(OPERATOR.address)
    three[0].let("hang")
    with ground.anvil.mining():
        chain.mint(OPERATOR, ALICE.address, ground.lantern, 2)
    assert chain.balance(ALICE.address, ground.lantern) == ground.balance(ALICE)


def test_end_points_are_different():
    """The same one twice would be a majority of itself; too many are refused too."""
    with pytest.raises(UserError, match="given twice"):
        RpcPool(["http://x", "http://x"])
    with pytest.raises(UserError, match="17 end points are more than 16"):
        RpcPool([f"http://x:{port}" for port in range(1, MAX_END_POINTS + 2)])
