import pytest

from p2pos.errors import UnavailableError, UserError
from p2pos.ledger import calldata
from p2pos.ledger.chain import Chain
from p2pos.ledger.events import ZERO, IntentFailed, Moved
from p2pos.ledger.intents import Refusal
from p2pos.ledger.records import RevertError
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import Transfer
from tests.ledger.chains import ALICE, BOB, CAROL, COIN, OPERATOR, person, running_ground


@pytest.fixture(scope="module", autouse=True)
def _mining(ground):
    with ground.anvil.mining():
        yield


def test_the_wrong_chain_is_refused(ground):
    """A chain id other than the one that is meant is said with both."""
    with pytest.raises(UserError, match="has id 31337, not 5"):
        Chain.connect(ground.anvil.url, chain_id=5)


def test_no_contract_or_another_is_refused(ground):
    """An address without code, and one with other code, are told apart."""
    with pytest.raises(UserError, match="there is no contract at"):
        Chain.connect(ground.anvil.url, contract=BOB.address)
    ground.anvil.rpc.call("anvil_setCode", CAROL.address, "0x60006000f3")
    with pytest.raises(UserError, match="is not this version's asset contract"):
        Chain.connect(ground.anvil.url, contract=CAROL.address)
    ground.anvil.rpc.call("anvil_setCode", CAROL.address, "0x")


def test_our_code_with_another_domain_is_refused(ground):
    """Our code copied to another address would check signatures for the old one, so it is refused."""
    code = ground.anvil.rpc.call("eth_getCode", ground.chain.contract, "latest")
    where = person("impostor").address
    immutable = ground.chain.contract[2:].lower()
    assert immutable in code
    ground.anvil.rpc.call("anvil_setCode", where, code.replace(immutable, where[2:].lower()))
    with pytest.raises(UserError, match="is not this version's asset contract"):
        Chain.connect(ground.anvil.url, contract=where)


@pytest.mark.parametrize(
    ("url", "error", "fault"),
    [
        ("", UserError, "no chain is set"),
        ("ftp://x", UserError, "not an http or https URL"),
        ("http://127.0.0.1:1", UnavailableError, "can't be reached"),
    ],
)
def test_no_chain_at_all(url, error, fault):
    """No URL, an odd one, and one where nobody answers each have their line."""
    with pytest.raises(error, match=fault):
        Chain.connect(url)


def test_a_class_and_its_items(ground):
    """A class has the id that its issuer and salt foretell; its cap holds, and only the issuer mints."""
    chain, salt = ground.chain, b"\x07" * 32
    id_ = chain.create_class(OPERATOR, salt, Terms(5), b"\x01" * 32)
    assert id_ == calldata.class_id(OPERATOR.address, salt)
    receipt = chain.mint(OPERATOR, ALICE.address, id_, 5)
    assert [(one.source, one.target, one.amount) for one in receipt.events if isinstance(one, Moved)] == [
        (ZERO, ALICE.address, 5)
    ]
    found = chain.item_class(id_)
    assert (found.issuer, found.cap, found.supply, found.digest) == (OPERATOR.address, 5, 5, b"\x01" * 32)
    assert chain.item_class(id_ + 1) is None
    for signer, why in ((OPERATOR, "is capped at 5; this would make 6"), (ALICE, "is not the issuer of class")):
        with pytest.raises(RevertError, match=why):
            chain.mint(signer, ALICE.address, id_, 1)
    with pytest.raises(RevertError, match="exists already"):
        chain.create_class(OPERATOR, salt, Terms(5), b"\x01" * 32)


def test_a_transfer_by_its_own_transaction(ground):
    """An owner with coin can do without intents."""
    ground.chain.mint(OPERATOR, ALICE.address, ground.lantern, 3)
    before = ground.balance(CAROL)
    ground.chain.transfer(ALICE, CAROL.address, ground.lantern, 3)
    assert ground.balance(CAROL) - before == 3
    with pytest.raises(RevertError, match="has 0 of class"):
        ground.chain.transfer(ALICE, CAROL.address, ground.lantern, 1)


def test_an_account_without_coin(ground):
    """Who can't pay for gas is told so, and nothing is sent."""
    with pytest.raises(UserError, match="has 0 wei"):
        ground.chain.cancel(person("poor"), 1)


def test_a_cancelled_nonce(ground):
    """What was signed with a cancelled nonce is refused as used."""
    ground.chain.mint(OPERATOR, ALICE.address, ground.lantern, 1)
    intent = ground.transfer(BOB.address)
    assert ground.chain.preflight([intent], OPERATOR.address) == [(frozenset(), None)]
    ground.chain.cancel(ALICE, intent.struct.nonce)
    assert ground.chain.is_nonce_used(ALICE.address, intent.struct.nonce)
    (found,) = ground.chain.preflight([intent], OPERATOR.address)
    assert found.revert.refusal is Refusal.REPLAYED


def test_a_batch_skips_what_fails(ground):
    """In a batch the sound ones take effect and the others are reported with their reason."""
    ground.chain.mint(OPERATOR, ALICE.address, ground.lantern, 1)
    before = ground.balance(BOB)
    good, bad = ground.transfer(BOB.address), ground.transfer(BOB.address, 10**9)
    receipt = ground.chain.relay(OPERATOR, [bad, good])
    (failed,) = [one for one in receipt.events if isinstance(one, IntentFailed)]
    assert ground.chain.reverts.read(failed.reason).name == "ERC1155InsufficientBalance"
    assert ground.balance(BOB) - before == 1


def test_a_lock_holds_in_place(ground):
    """What is locked for a world can't move until the world lets go."""
    chain = ground.chain
    ground.anvil.rpc.call("anvil_setBalance", CAROL.address, hex(COIN))
    id_ = chain.create_class(OPERATOR, b"\x08" * 32, Terms(1), bytes(32))
    chain.mint(OPERATOR, ALICE.address, id_, 1)
    until = chain.head().timestamp + 1000
    lock = ground.lock(CAROL.address, until, id_=id_)
    chain.lock(OPERATOR, lock.struct, lock.signatures[0])
    assert chain.locked(ALICE.address, id_) == 1
    with pytest.raises(RevertError, match="has only 0 of class"):
        chain.transfer(ALICE, BOB.address, id_, 1)
    with pytest.raises(RevertError, match="only world"):
        chain.unlock(ALICE, ALICE.address, CAROL.address, id_)
    chain.unlock(CAROL, ALICE.address, CAROL.address, id_)
    assert chain.locked(ALICE.address, id_) == 0


def test_balances_of_many(ground):
    """Many balances come in one request, and at an older block where asked."""
    block = ground.chain.block_number()
    held = ground.balance(CAROL)
    ground.chain.mint(OPERATOR, CAROL.address, ground.lantern, 2)
    pairs = [(CAROL.address, ground.lantern), (CAROL.address, 1)]
    assert ground.chain.balances(pairs) == [held + 2, 0]
    assert ground.chain.balances(pairs, block=block) == [held, 0]


def test_where_the_contract_began(ground):
    """The block of the contract's deployment is found by halving."""
    first = ground.chain.first_block()
    code = [ground.anvil.rpc.call("eth_getCode", ground.chain.contract, hex(block)) for block in (first - 1, first)]
    assert code[0] == "0x" != code[1]


def test_a_second_chain_with_another_id(ground):
    """On a chain of another id all works alike, and what was signed for the first is refused there."""
    with running_ground(chain_id=84532) as other, other.anvil.mining():
        assert other.chain.chain_id == 84532
        other.chain.mint(OPERATOR, ALICE.address, other.lantern, 1)
        other.chain.submit(OPERATOR, other.transfer(BOB.address))
        assert other.balance(BOB) == 1
        foreign = ground.sign(Transfer(ALICE.address, BOB.address, other.lantern, 0, 5, 1 << 40), ALICE)
        with pytest.raises(RevertError, match="the signature is not by"):
            other.chain.submit(OPERATOR, foreign)


def test_two_processes_with_one_account(ground, monkeypatch):
    """Where another process took the nonce between looking and sending, the transaction goes with the next."""
    real, stolen = Chain.send_raw, []

    def rob(self, transactions):
        if not stolen:
            stolen.append(True)
            ground.chain.cancel(OPERATOR, 4711)
        return real(self, transactions)

    monkeypatch.setattr(Chain, "send_raw", rob)
    before = ground.balance(CAROL)
    ground.chain.mint(OPERATOR, CAROL.address, ground.lantern, 1)
    assert ground.balance(CAROL) == before + 1
    assert ground.chain.is_nonce_used(OPERATOR.address, 4711)


def test_a_transaction_whose_answer_was_lost_is_not_sent_twice(ground, monkeypatch):
    """Where the chain took it but complains, as of one that it knows, nothing is signed again."""
    real = Chain.send_raw
    monkeypatch.setattr(Chain, "send_raw", lambda self, raw: [real(self, raw) and "already known"])
    before = ground.balance(CAROL)
    ground.chain.mint(OPERATOR, CAROL.address, ground.lantern, 1)
    assert ground.balance(CAROL) == before + 1
