"""Holds an index against the contract itself, cell by cell, at one block.

Holdings that the index has not heard of would be asked for by nobody; so what it has of a class is added up and
compared with what the contract says there is.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from eth_hash.auto import keccak

from p2pos.errors import ChainError, UserError
from p2pos.ledger import index_decode as d
from p2pos.ledger.abi import checksummed
from p2pos.ledger.index import BlockRow, Index
from p2pos.ledger.index_state import TABLES, Key, Value
from p2pos.ledger.records import Header

CALLS = 400
"""Asked in one go; the chain sends them in arrays of 100."""
PAGE = 1000
"""Names whose cells are read at once: a name of average busyness has ten."""
MOST_SHOWN = 1000
"""Differences kept; an index that is off everywhere is made again, not read."""


class Views(Protocol):
    """What is asked of a `Chain`."""

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """The blocks with these numbers."""
        ...

    def views(self, calls: Sequence[bytes], block: int) -> list[bytes]:
        """What the contract answers to calls, after a block."""
        ...


class Difference(NamedTuple):
    """Something that index and contract say differently."""

    what: str
    """For people, with addresses and ids in full."""
    by_index: str
    by_chain: str


@dataclass
class Report:
    """What a verification found."""

    block: BlockRow
    checked: Counter[str] = field(default_factory=Counter)
    """How many of each kind were compared."""
    differences: list[Difference] = field(default_factory=list)
    """The first `MOST_SHOWN` of them."""
    wrong: int = 0
    """How many there are."""


class _Question(NamedTuple):
    kind: str
    what: str
    call: bytes
    wanted: tuple[int | bytes, ...]


def verify(index: Index, chain: Views, *, block: int | None = None, nonces: bool = False) -> Report:
    """Compare all that the index has with what the contract says after the same block.

    Args:
        index: at least as far as that block.
        chain: where the contract is.
        block: by default the newest that the index has read.
        nonces: each used nonce as well; there is one for every intent that ever took effect.

    Raises:
        UserError: the index has not read that block, or can't go back to it.
        ChainError: the chain has another block there, or no longer its state.
        UnavailableError: it does not answer.

    """
    with index.snapshot():
        at = _block(index, block)
        _require_same(chain, at)
        report = Report(at)
        questions = _Questions(index, at).all(nonces=nonces)
        while batch := list(itertools.islice(questions, CALLS)):
            for question, answer in zip(batch, chain.views([one.call for one in batch], at.number), strict=True):
                _compare(report, question, answer)
        _require_same(chain, at)
        return report


def _block(index: Index, number: int | None) -> BlockRow:
    newest = index.newest()
    if newest is None:
        raise UserError("the index has read nothing yet", hint="p2pos index sync")
    if number is None or number == newest.number:
        return newest
    lowest = index.lowest_undo()
    reach = newest.number if lowest is None else lowest
    if not reach <= number <= newest.number:
        raise UserError(
            f"the index can be verified at blocks {reach} to {newest.number}, not at {number}",
            hint="leave out --block for the newest",
        )
    return index.blocks(below=number, most=1)[0]


def _require_same(chain: Views, block: BlockRow) -> None:
    found = chain.headers([block.number])[0]
    if found is None or found.hash != block.hash:
        raise ChainError(f"the chain has another block {block.number} than the index", hint="p2pos index sync")


def _compare(report: Report, question: _Question, answer: bytes) -> None:
    report.checked[question.kind] += 1
    found = [answer[at : at + 32] for at in range(0, len(answer), 32)]
    wanted = [one if isinstance(one, bytes) else one.to_bytes(32, "big") for one in question.wanted]
    if found != wanted:
        report.wrong += 1
        if len(report.differences) < MOST_SHOWN:
            report.differences.append(Difference(question.what, _text(wanted), _text(found)))


def _text(words: Sequence[bytes]) -> str:
    """A number, or several: decimal where they fit into 128 bits, else hex."""
    return (
        ", ".join(
            str(number) if (number := int.from_bytes(one, "big")) < 1 << 128 else f"0x{one.hex()}" for one in words
        )
        or "nothing"
    )


class _Questions:
    """What to ask, and what the index would have for an answer."""

    def __init__(self, index: Index, block: BlockRow) -> None:
        self._index = index
        self._undone = index.undone(block.number)
        self._names: dict[int, bytes] = {}

    def all(self, *, nonces: bool) -> Iterator[_Question]:
        """Everything, small tables first."""
        supplies = {key[0]: value for key, value in self._cells(d.SUPPLIES)}
        terms = {key[0]: value for key, value in self._cells(d.CLASSES)}
        sums: Counter[int] = Counter()
        yield from self._classes(supplies, terms)
        for (item, minter), (allowance,) in self._cells(d.MINTERS):
            yield self._ask("minters", "mintAllowance(uint256,address)", (item, minter), (allowance,))
        locked: Counter[Key] = Counter()
        for (owner, item, world), (amount, until) in self._cells(d.LOCKS):
            locked[owner, item] += amount
            yield self._ask("locks", "lockOf(address,uint256,address)", (owner, item, world), (amount, until))
        for (owner, item, world), (left, until) in self._cells(d.ALLOWANCES):
            yield self._ask(
                "allowances", "spendAllowance(address,uint256,address)", (owner, item, world), (left, until)
            )
        for (owner, operator), _ in self._cells(d.APPROVALS):
            yield self._ask("approvals", "isApprovedForAll(address,address)", (owner, operator), (1,))
        for (owner, item), (amount,) in self._cells(d.BALANCES):
            sums[item] += amount
            yield self._ask("balances", "balanceOf(address,uint256)", (owner, item), (amount,))
            held = amount if item in terms and terms[item][2] else locked[owner, item]
            yield self._ask("locked", "lockedOf(address,uint256)", (owner, item), (held,))
        for item in supplies:
            yield self._ask("supplies", "totalSupply(uint256)", (item,), (sums[item],))
        if nonces:
            for (owner, part), (bits,) in self._cells(d.NONCES):
                yield from self._nonces(owner, part, int.from_bytes(bits, "big"))

    def _classes(self, supplies: dict[int, Value], terms: dict[int, Value]) -> Iterator[_Question]:
        for (item,), (version, digest, pending, start) in self._cells(d.DESCRIPTORS):
            issuer, cap, soulbound, policy, delay, receiver, bps, _ = terms[item]
            minted, burned = supplies[item]
            people = [self._word(one) for one in (issuer, receiver)]
            wanted = (people[0], cap, minted, burned, digest, version, soulbound, policy, delay, people[1], bps)
            yield self._ask("classes", "classOf(uint256)", (item,), wanted)
            yield self._ask("updates", "pendingUpdateOf(uint256)", (item,), (pending or 0, start or 0))

    def _nonces(self, owner: int, part: bytes, bits: int) -> Iterator[_Question]:
        for bit in range(256):
            nonce = part + bytes([bit])
            if bits >> bit & 1:
                what = f"isNonceUsed({self._shown(owner)}, {int.from_bytes(nonce, 'big')})"
                yield _Question(
                    "nonces", what, _selector("isNonceUsed(address,uint256)") + self._word(owner) + nonce, (1,)
                )

    def _ask(self, kind: str, signature: str, names: Sequence[int], wanted: tuple[int | bytes, ...]) -> _Question:
        what = f"{signature.partition('(')[0]}({', '.join(map(self._shown, names))})"
        return _Question(kind, what, _selector(signature) + b"".join(map(self._word, names)), wanted)

    def _cells(self, table: int) -> Iterator[tuple[Key, Value]]:
        """A table's cells as they were after the block, in pages of its first column."""
        store, spec, undone = self._index.store, TABLES[table], self._undone[table]
        column = spec.keys[0][0]
        top = store.one(f"SELECT max({column}) FROM {spec.name}")  # noqa: S608 - constants
        for low in range(0, (top[0] if top and top[0] is not None else -1) + 1, PAGE):
            page = store.cells(spec, f"WHERE {column} >= ? AND {column} < ?", (low, low + PAGE))
            yield from ((key, value) for key, value in page.items() if value is not None and key not in undone)
        yield from ((key, value) for key, value in undone.items() if value is not None)

    def _name(self, number: int) -> bytes:
        if number not in self._names:
            low = number - number % PAGE
            if len(self._names) > 100 * PAGE:  # 20 MB
                self._names.clear()
            rows = self._index.store.rows("SELECT id, value FROM names WHERE id >= ? AND id < ?", (low, low + PAGE))
            self._names |= {id_: bytes(value) for id_, value in rows}
        return self._names[number]

    def _word(self, number: int) -> bytes:
        return self._name(number).rjust(32, b"\0")

    def _shown(self, number: int) -> str:
        name = self._name(number)
        return checksummed(name.hex()) if len(name) == 20 else f"0x{name.hex()}"


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]
