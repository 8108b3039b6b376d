"""What the contract's events add up to: a fold over a `Batch`, with what each block changed, to undo it. Pure.

Undo is by pre-images: for every block within reach of a reorganisation, the cells it changed and what stood in them
before. The other way, to work an undone cell out from the happenings that are stored, costs as much as an account has
history (an exchange's, all of it), needs a rule of its own for every table (what allowance did this one replace?), and
would have to store each used nonce as a happening; putting back what was there is the same three lines for everything
and exact by construction. Blocks too deep to be undone record nothing, so a cold sync pays for the last ones alone.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from p2pos.errors import ChainError
from p2pos.ledger import index_decode as d
from p2pos.ledger.index_decode import Batch

SEGMENT_BITS = 14
"""A segment of the happenings' index is 16,384 happenings; see `index_schema`."""


class Table(NamedTuple):
    """A table of state: its name, and its columns with their kinds.

    Kinds: `n` a number as decimal text, for it may have 256 bits; `i` an integer; `b` bytes; `r` a name's row number.
    """

    name: str
    keys: tuple[tuple[str, str], ...]
    values: tuple[tuple[str, str], ...]


def _columns(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for name, kind in (part.split(":") for part in text.split()))


TABLES = (
    Table("balances", _columns("account:r item:r"), _columns("amount:n")),
    Table("supplies", _columns("item:r"), _columns("minted:n burned:n")),
    Table(
        "classes",
        _columns("item:r"),
        _columns("issuer:r cap:n soulbound:i policy:i delay:i royalty_receiver:r royalty_bps:i block:i"),
    ),
    Table("descriptors", _columns("item:r"), _columns("version:i digest:b pending:b pending_from:n")),
    Table("minters", _columns("item:r minter:r"), _columns("allowance:n")),
    Table("locks", _columns("owner:r item:r world:r"), _columns("amount:n until:n")),
    Table("allowances", _columns("owner:r item:r world:r"), _columns("remaining:n until:n")),
    Table("nonces", _columns("owner:r word:b"), _columns("bits:b")),
    Table("approvals", _columns("owner:r operator:r"), _columns("approved:i")),
)
"""In the order of `index_decode`'s numbers. A cell that holds nothing (no balance, no lock) has no row."""

Key = tuple[Any, ...]
Value = tuple[Any, ...]
Cells = dict[Key, Value | None]
Undo = list[tuple[int, Key, Value | None]]
"""(table, key, what stood there; None where nothing did)."""

_DONE_BY_OPERATOR = frozenset({"made", "spent"})
"""Moves that belong to the story of whoever called the contract as well: a minter's and a world's. Who calls it for the
others is a relayer, or a party."""
HAPPENING_COLUMNS = "seq tx log position kind one other operator item amount extra".split()  # noqa: SIM905 - shorter


class Folded(NamedTuple):
    """What a batch comes to, in the index's own numbers."""

    changed: list[tuple[int, Key, Value | None]]
    """Cells that hold something else than before."""
    happenings: list[tuple[Any, ...]]
    """Rows, with HAPPENING_COLUMNS."""
    mentions: list[tuple[int, int, int]]
    """(segment, name, seq), sorted: which happenings a name is in."""
    undo: dict[int, Undo]
    """By block number, of those that were asked for."""
    seqs: dict[int, int]
    """By block number, the first happening's `seq` at or after it."""


def fold(batch: Batch, names: Sequence[int], state: list[Cells], *, seq: int, tx: int, undo_from: int) -> Folded:
    """Fold a batch's events into what was there.

    Args:
        batch: the events.
        names: the index's number for each of the batch's.
        state: by table, all cells that the batch touches, as they are before it, keyed by the index's numbers. Changed.
        seq: of the first happening.
        tx: the row number of the batch's first transaction.
        undo_from: blocks from this one on record what they change.

    Raises ChainError where the events can't be the contract's: more goes than there is.

    """
    work = _Fold(batch, names, state, seq, tx, undo_from)
    asked = {table: dict(state[table]) for table in range(len(TABLES)) if table not in _ALWAYS_CHANGED}
    try:
        work.run()
    except KeyError as exc:
        raise ChainError("the chain's logs speak of a class that was never made", hint="use another end point") from exc
    changed = [
        (table, key, value)
        for table, cells in enumerate(state)
        for key, value in cells.items()
        if table in _ALWAYS_CHANGED or value != asked[table].get(key)
    ]
    work.mentions.sort()
    return Folded(changed, work.happenings, work.mentions, work.undo, work.seqs)


_ALWAYS_CHANGED = (d.BALANCES, d.NONCES)
"""Who touches these changes them, so it is not looked whether they differ; the others may only have been asked for."""


class _Fold:
    def __init__(
        self, batch: Batch, names: Sequence[int], state: list[Cells], seq: int, tx: int, undo_from: int
    ) -> None:
        self.batch, self.names, self.state = batch, names, state
        self.seq, self.tx, self.undo_from = seq, tx, undo_from
        self.zero = names[d.ZERO]
        self.happenings: list[tuple[Any, ...]] = []
        self.mentions: list[tuple[int, int, int]] = []
        self.undo: dict[int, Undo] = {}
        self.seqs: dict[int, int] = {}
        self.number = -1
        """Of the block being folded."""
        self.before: list[Cells] | None = None
        """By table, what this block changed and how it was; None where it is not recorded."""

    def run(self) -> None:
        names, balances, nonces = self.names, self.state[d.BALANCES], self.state[d.NONCES]
        others = _FOLDS
        block = -1
        before: list[Cells] | None = None
        for event in self.batch.events:
            kind = event[0]
            if event[1] != block:
                block = event[1]
                before = self._begin_block(block)
            if kind == d.MOVE:
                self._move(event, names, balances, before)
            elif kind == d.NONCE:
                nonce = event[5]
                key = (names[event[4]], nonce[:31])
                found = nonces.get(key)
                if before is not None:
                    before[d.NONCES].setdefault(key, found)
                nonces[key] = (_with_bit(found[0] if found else b"", nonce[31]),)
            else:
                others[kind](self, event)
        self._end_block()

    def _begin_block(self, block: int) -> list[Cells] | None:
        self._end_block()
        self.number = self.batch.blocks[block].number
        self.seqs[self.number] = self.seq
        self.before = [{} for _ in TABLES] if self.number >= self.undo_from else None
        return self.before

    def _end_block(self) -> None:
        if self.before is not None:
            self.undo[self.number] = [
                (table, key, value) for table, cells in enumerate(self.before) for key, value in cells.items()
            ]

    def _move(self, event: tuple[Any, ...], names: Sequence[int], balances: Cells, before: list[Cells] | None) -> None:
        _, _, tx, log, position, kind, operator, source, target, item, amount = event
        held = names[item]
        giver, taker = names[source], names[target]
        if source:
            key = (giver, held)
            found = balances.get(key)
            left = (found[0] if found else 0) - amount
            if left < 0:
                raise ChainError(
                    f"the chain's logs move more items than there are (block {self.number})",
                    hint="use another end point",
                )
            if before is not None:
                before[d.BALANCES].setdefault(key, found)
            balances[key] = (left,) if left else None
        if target:
            key = (taker, held)
            found = balances.get(key)
            if before is not None:
                before[d.BALANCES].setdefault(key, found)
            total = (found[0] if found else 0) + amount
            if total >> 256:
                raise _too_many(self.number)
            balances[key] = (total,) if total else None
        if not (source and target):
            self._supply(held, names[operator], amount, made=source == d.ZERO, burned=target == d.ZERO)
        if kind is not None:
            seq = self.seq
            self.happenings.append(
                (seq, self.tx + tx, log, position, kind, giver, taker, names[operator], held, str(amount), None)
            )
            segment = seq >> SEGMENT_BITS
            mentions = self.mentions
            mentions.append((segment, held, seq))
            if source:
                mentions.append((segment, giver, seq))
            if target and taker != giver:
                mentions.append((segment, taker, seq))
            if kind in _DONE_BY_OPERATOR and names[operator] not in {giver, taker}:
                mentions.append((segment, names[operator], seq))
            self.seq = seq + 1

    # ---- cells

    def _get(self, table: int, *key: Any) -> Value | None:
        return self.state[table].get(key)

    def _set(self, table: int, key: Key, value: Value | None) -> None:
        cells = self.state[table]
        if self.before is not None:
            self.before[table].setdefault(key, cells.get(key))
        cells[key] = value

    def _happen(
        self,
        event: tuple[Any, ...],
        kind: str,
        one: int | None,
        other: int | None = None,
        *,
        item: int | None = None,
        amount: int | None = None,
        also: Sequence[int] = (),
        extra: dict[str, Any] | None = None,
    ) -> None:
        text = json.dumps(extra, separators=(",", ":")) if extra else None
        row = (self.seq, self.tx + event[2], event[3], 0, kind, one, other, None, item, _text(amount), text)
        self.happenings.append(row)
        segment = self.seq >> SEGMENT_BITS
        names = {name for name in (one, other, item, *also) if name is not None and name != self.zero}
        self.mentions.extend((segment, name, self.seq) for name in names)
        self.seq += 1

    def _supply(self, item: int, operator: int, amount: int, *, made: bool, burned: bool) -> None:
        minted, gone = self._get(d.SUPPLIES, item) or (0, 0)
        if (minted + amount * made) >> 256:
            raise _too_many(self.number)
        self._set(d.SUPPLIES, (item,), (minted + amount * made, gone + amount * burned))
        if not made:
            return
        terms = self._get(d.CLASSES, item)
        allowance = self._get(d.MINTERS, item, operator)
        if allowance and terms and terms[0] != operator:
            left = allowance[0] - amount
            if left < 0:
                raise ChainError(
                    f"the chain's logs mint more than was allowed (block {self.number})", hint="use another end point"
                )
            self._set(d.MINTERS, (item, operator), (left,) if left else None)

    # ---- the rarer events

    def _class(self, event: tuple[Any, ...]) -> None:
        local, issuer, cap, digest, soulbound, policy, delay, receiver, bps = event[4:]
        item, who, royalty = self.names[local], self.names[issuer], self.names[receiver]
        self._set(d.CLASSES, (item,), (who, cap, soulbound, policy, delay, royalty, bps, self.number))
        self._set(d.DESCRIPTORS, (item,), (1, digest, None, None))
        self._set(d.SUPPLIES, (item,), (0, 0))
        extra = {"version": 1, "digest": digest.hex(), "cap": str(cap), "soulbound": bool(soulbound)}
        extra |= {"policy": policy, "delay": delay, "royalty_bps": bps}
        self._happen(event, "class", who, item=item, extra=extra)

    def _minter(self, event: tuple[Any, ...]) -> None:
        item, minter, allowance = self.names[event[4]], self.names[event[5]], event[6]
        self._set(d.MINTERS, (item, minter), (allowance,) if allowance else None)
        self._happen(event, "minter", self._issuer(item), minter, item=item, amount=allowance)

    def _proposed(self, event: tuple[Any, ...]) -> None:
        item, version, digest, start = self.names[event[4]], *event[5:]
        now, old, _, _ = self.state[d.DESCRIPTORS][item,] or _none()
        self._set(d.DESCRIPTORS, (item,), (now, old, digest, start))
        extra = {"version": version, "digest": digest.hex(), "from": str(start)}
        self._happen(event, "proposed", self._issuer(item), item=item, extra=extra)

    def _withdrawn(self, event: tuple[Any, ...]) -> None:
        item = self.names[event[4]]
        now, digest, _, _ = self.state[d.DESCRIPTORS][item,] or _none()
        self._set(d.DESCRIPTORS, (item,), (now, digest, None, None))
        self._happen(event, "withdrawn", self._issuer(item), item=item, extra={"version": event[5]})

    def _updated(self, event: tuple[Any, ...]) -> None:
        item, version, digest, previous = self.names[event[4]], *event[5:]
        self._set(d.DESCRIPTORS, (item,), (version, digest, None, None))
        extra = {"version": version, "digest": digest.hex(), "previous": previous.hex()}
        self._happen(event, "updated", self._issuer(item), item=item, extra=extra)

    def _issuer(self, item: int) -> int:
        return int((self.state[d.CLASSES][item,] or _none())[0])

    def _cancelled(self, event: tuple[Any, ...]) -> None:
        owner, nonce = self.names[event[4]], event[5]
        found = self._get(d.NONCES, owner, nonce[:31])
        self._set(d.NONCES, (owner, nonce[:31]), (_with_bit(found[0] if found else b"", nonce[31]),))
        self._happen(event, "cancelled", owner, extra={"nonce": str(int.from_bytes(nonce, "big"))})

    def _failed(self, event: tuple[Any, ...]) -> None:
        owner, nonce, reason = self.names[event[4]], *event[5:]
        extra = {"nonce": str(int.from_bytes(nonce, "big")), "reason": reason.hex()}
        self._happen(event, "failed", owner, extra=extra)

    def _call_failed(self, event: tuple[Any, ...]) -> None:
        self._happen(event, "call failed", None, extra={"index": event[4], "reason": event[5].hex()})

    def _locked(self, event: tuple[Any, ...]) -> None:
        owner, item, world = (self.names[local] for local in event[4:7])
        amount, until = event[7:]
        self._set(d.LOCKS, (owner, item, world), (amount, until))
        self._happen(event, "locked", owner, world, item=item, amount=amount, extra={"until": str(until)})

    def _unlocked(self, event: tuple[Any, ...]) -> None:
        owner, item, world = (self.names[local] for local in event[4:7])
        self._set(d.LOCKS, (owner, item, world), None)
        self._happen(event, "released", owner, world, item=item, amount=event[7])

    def _allowed(self, event: tuple[Any, ...]) -> None:
        owner, item, world = (self.names[local] for local in event[4:7])
        most, until = event[7:]
        self._set(d.ALLOWANCES, (owner, item, world), (most, until) if most else None)
        kind = "allowed" if most else "revoked"
        self._happen(event, kind, owner, world, item=item, amount=most, extra={"until": str(until)})

    def _spent(self, event: tuple[Any, ...]) -> None:
        """Takes from the allowance; the move that follows tells it."""
        key = tuple(self.names[local] for local in event[4:7])
        remaining, until = self._get(d.ALLOWANCES, *key) or (0, 0)
        if remaining < event[7]:
            raise ChainError(
                f"the chain's logs spend more than was allowed (block {self.number})", hint="use another end point"
            )
        left = remaining - event[7]
        self._set(d.ALLOWANCES, key, (left, until) if left else None)

    def _swapped(self, event: tuple[Any, ...]) -> None:
        """One line for both sides; the moves that follow it have none."""
        first, second, first_nonce, second_nonce, gives, gets = event[4:]
        sides = [[[self.batch.names[item].hex(), str(amount)] for item, amount in side] for side in (gives, gets)]
        extra: dict[str, Any] = {"first_gives": sides[0], "second_gives": sides[1]}
        extra |= {"first_nonce": str(first_nonce), "second_nonce": str(second_nonce)}
        also = [self.names[item] for item, _ in (*gives, *gets)]
        self._happen(event, "swapped", self.names[first], self.names[second], also=also, extra=extra)

    def _approved(self, event: tuple[Any, ...]) -> None:
        owner, operator, yes = self.names[event[4]], self.names[event[5]], event[6]
        self._set(d.APPROVALS, (owner, operator), (1,) if yes else None)
        self._happen(event, "approved" if yes else "disapproved", owner, operator)


_FOLDS = {
    d.CLASS: _Fold._class,
    d.MINTER: _Fold._minter,
    d.PROPOSED: _Fold._proposed,
    d.WITHDRAWN: _Fold._withdrawn,
    d.UPDATED: _Fold._updated,
    d.CANCELLED: _Fold._cancelled,
    d.FAILED: _Fold._failed,
    d.CALL_FAILED: _Fold._call_failed,
    d.LOCKED: _Fold._locked,
    d.UNLOCKED: _Fold._unlocked,
    d.ALLOWED: _Fold._allowed,
    d.SPENT: _Fold._spent,
    d.SWAPPED: _Fold._swapped,
    d.APPROVED: _Fold._approved,
}


def _none() -> Value:
    raise KeyError


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)


def _with_bit(bits: bytes, bit: int) -> bytes:
    """Bits of a nonce's word, most significant first, with one more of them set."""
    return (int.from_bytes(bits, "big") | 1 << bit).to_bytes(32, "big")


# ---- a block's undo, as it is stored


def pack_undo(undo: Undo) -> bytes:
    """As JSON, bytes in hex."""
    return to_json(undo, bytes_mode="hex")


def unpack_undo(data: bytes) -> Undo:
    """What `pack_undo` made. Only ever of our own making."""
    return [
        (table, _typed(key, TABLES[table].keys), value and _typed(value, TABLES[table].values))
        for table, key, value in json.loads(data)
    ]


def _typed(values: Sequence[Any], columns: Sequence[tuple[str, str]]) -> tuple[Any, ...]:
    return tuple(
        bytes.fromhex(value) if kind == "b" and value is not None else value
        for value, (_, kind) in zip(values, columns, strict=True)
    )


def _too_many(block: int) -> ChainError:
    return ChainError(
        f"the chain's logs make more items than there can be (block {block})", hint="use another end point"
    )
