"""The contract's events as logs. Pure."""

from collections.abc import Sequence

from tests.contract_model.abi import Part, encode, text, topic, word, words
from tests.contract_model.calls import Terms
from tests.contract_model.intents import Item
from tests.contract_model.ledger import Event


def class_created(id_: int, issuer: int, terms: Terms, digest: int) -> Event:
    kind = topic("ClassCreated(uint256,address,uint128,bytes32,bool,uint8,uint32,address,uint16)")
    cap, *rest = terms
    return Event([kind, word(id_), word(issuer)], encode((cap, digest, *map(int, rest))))


def minter_set(id_: int, minter: int, allowance: int) -> Event:
    return Event([topic("MinterSet(uint256,address,uint128)"), word(id_), word(minter)], word(allowance))


def update_proposed(id_: int, version: int, digest: int, due: int) -> Event:
    kind = topic("UpdateProposed(uint256,uint32,bytes32,uint64)")
    return Event([kind, word(id_), word(version)], word(digest) + word(due))


def update_withdrawn(id_: int, version: int) -> Event:
    return Event([topic("UpdateWithdrawn(uint256,uint32)"), word(id_), word(version)], b"")


def class_updated(id_: int, version: int, digest: int, previous: int) -> Event:
    kind = topic("ClassUpdated(uint256,uint32,bytes32,bytes32)")
    return Event([kind, word(id_), word(version)], word(digest) + word(previous))


def uri(id_: int, digest: int) -> Event:
    return Event([topic("URI(string,uint256)"), word(id_)], encode((text(uri_of(digest)),)))


def uri_of(digest: int) -> bytes:
    """Where a descriptor lies: its digest as a CIDv1 in base 16."""
    return f"ipfs://f01551220{digest:064x}".encode()


def nonce_used(owner: int, nonce: int) -> Event:
    return Event([topic("NonceUsed(address,uint256)"), word(owner), word(nonce)], b"")


def nonce_cancelled(owner: int, nonce: int) -> Event:
    return Event([topic("NonceCancelled(address,uint256)"), word(owner), word(nonce)], b"")


def intent_failed(owner: int, nonce: int, reasons: list[bytes]) -> Event:
    return Event([topic("IntentFailed(address,uint256,bytes)"), word(owner), word(nonce)], _one_of(reasons))


def call_failed(index: int, reasons: list[bytes]) -> Event:
    return Event([topic("CallFailed(uint256,bytes)"), word(index)], _one_of(reasons))


def _one_of(reasons: list[bytes]) -> tuple[bytes, ...]:
    return tuple(encode((text(reason),)) for reason in reasons)


def locked(owner: int, world: int, id_: int, amount: int, until: int) -> Event:
    return Event(_visit("Locked(address,address,uint256,uint256,uint64)", owner, world, id_), _pair(amount, until))


def unlocked(owner: int, world: int, id_: int, amount: int) -> Event:
    return Event(_visit("Unlocked(address,address,uint256,uint256)", owner, world, id_), word(amount))


def spend_allowed(owner: int, world: int, id_: int, most: int, until: int) -> Event:
    return Event(_visit("SpendAllowed(address,address,uint256,uint256,uint64)", owner, world, id_), _pair(most, until))


def spent(owner: int, world: int, id_: int, amount: int, to: int) -> Event:
    return Event(_visit("Spent(address,address,uint256,uint256,address)", owner, world, id_), _pair(amount, to))


def _visit(signature: str, owner: int, world: int, id_: int) -> list[bytes]:
    return [topic(signature), word(owner), word(world), word(id_)]


def _pair(first: Part, second: Part) -> bytes:
    return encode((first, second))


def swapped(first: int, second: int, first_nonce: int, second_nonce: int) -> Event:
    kind = topic("Swapped(address,address,uint256,uint256)")
    return Event([kind, word(first), word(second)], word(first_nonce) + word(second_nonce))


def transfer_single(operator: int, sender: int, to: int, id_: int, amount: int) -> Event:
    kind = topic("TransferSingle(address,address,address,uint256,uint256)")
    return Event([kind, word(operator), word(sender), word(to)], word(id_) + word(amount))


def transfer_batch(operator: int, sender: int, to: int, items: Sequence[Item]) -> Event:
    kind = topic("TransferBatch(address,address,address,uint256[],uint256[])")
    ids, amounts = ([item[part] for item in items] for part in (0, 1))
    return Event([kind, word(operator), word(sender), word(to)], encode((words(ids), words(amounts))))


def approval_for_all(owner: int, operator: int, approved: bool) -> Event:
    return Event([topic("ApprovalForAll(address,address,bool)"), word(owner), word(operator)], word(approved))
