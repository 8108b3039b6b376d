"""The contract's events folded into a database: who holds what, and how it came to be. Needs no chain to be read.

Blocks are taken in with the hash of the last in one transaction, so that a kill at any moment loses nothing; what the
newest blocks changed is kept beside them, so that a reorganisation is undone block by block (`index_state` says how,
and why so). `indexer` feeds it, `index_verify` holds it against the contract.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from p2pos.errors import InternalError
from p2pos.ledger import index_decode as d
from p2pos.ledger.abi import checksummed
from p2pos.ledger.index_decode import Batch
from p2pos.ledger.index_history import Happening, read_history
from p2pos.ledger.index_schema import ALL_TABLES
from p2pos.ledger.index_state import (
    HAPPENING_COLUMNS,
    SEGMENT_BITS,
    TABLES,
    Cells,
    Key,
    Table,
    Value,
    fold,
    pack_undo,
    unpack_undo,
)
from p2pos.ledger.index_store import SqliteStore, Store
from p2pos.types import Address

UNDO_BLOCKS = 1024
"""The newest blocks that can be undone. Ethereum finalises after 64, and the deepest reorganisation seen on a public
chain of this kind was 157 (Polygon, 2023); where one is deeper still, all is read again."""
KNOWN_NAMES = 50_000
"""Names whose row numbers are kept in memory between two batches."""

_NO_UNDO = b"[]"


class BlockRow(NamedTuple):
    """A block that the index has read."""

    number: int
    hash: bytes
    timestamp: int
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Blocks `first … last` in full, ready to be taken in."""

    batch: Batch
    first: int
    parent: bytes | None
    """Hash of the block before the first; None where the index is empty."""
    blocks: Sequence[BlockRow]
    """In order: all with events, all from `undo_from` on, and the last one."""
    undo_from: int
    """Blocks from this one on can be undone."""


@dataclass(frozen=True, slots=True)
class KnownClass:
    """A class of items that the index has seen made."""

    id: int
    issuer: Address
    cap: int
    """0: none."""
    digest: bytes
    """Of its descriptor now, sha2-256."""
    block: int
    """In which it was made."""
    version: int
    pending: bytes | None
    """The digest that was proposed and not yet applied."""
    pending_from: int | None
    """When it may be, in seconds since the epoch."""
    soulbound: bool
    policy: int
    """As the contract's enum: 0 frozen, 1 issuer, 2 delayed."""
    delay: int
    """Seconds from proposal to effect."""
    royalty_receiver: Address
    royalty_bps: int
    """1/10000 of the price."""
    minted: int
    """Ever, burned ones included."""
    burned: int

    @property
    def supply(self) -> int:
        """How many there are."""
        return self.minted - self.burned


class Index:
    """One contract's index."""

    def __init__(self, where: Path | Store) -> None:
        self.store = SqliteStore(where) if isinstance(where, Path) else where
        self._known: dict[bytes, int] = {}

    @property
    def where(self) -> str:
        """The file, or the database without its password."""
        return self.store.where

    def close(self) -> None:
        """Close the file or connection."""
        self.store.close()

    def snapshot(self) -> AbstractContextManager[None]:
        """Within this all reads see the same moment, whatever another process does."""
        return self.store.read()

    # ---- reading

    def newest(self) -> BlockRow | None:
        """The last block that was read; None where none was."""
        found = self.blocks(most=1)
        return found[0] if found else None

    def blocks(self, *, below: int = d.MAX_INT, most: int = UNDO_BLOCKS) -> list[BlockRow]:
        """Blocks that the index knows by hash, newest first: all that can be undone, and of older ones some."""
        rows = self.store.rows(
            "SELECT number, hash, timestamp FROM blocks WHERE number <= ? ORDER BY number DESC LIMIT ?", (below, most)
        )
        return [BlockRow(number, bytes(hash_), timestamp) for number, hash_, timestamp in rows]

    def lowest_undo(self) -> int | None:
        """The first of the blocks that can be undone."""
        found = self.store.one("SELECT min(number) FROM blocks WHERE undo IS NOT NULL")
        return found[0] if found else None

    def classes(self) -> list[KnownClass]:
        """Every class, oldest first."""
        return self._classes()

    def class_of(self, id_: int) -> KnownClass | None:
        """One class; None where the index has not seen it made."""
        found = self._classes("WHERE n.value = ?", (id_.to_bytes(32, "big"),))
        return found[0] if found else None

    def holdings(self, account: str) -> dict[int, int]:
        """What an account holds, by class."""
        rows = self.store.rows(
            "SELECT i.value, b.amount FROM balances b JOIN names i ON i.id = b.item"
            " WHERE b.account = (SELECT id FROM names WHERE value = ?) ORDER BY i.value",
            (_raw(account),),
        )
        return {_id(item): int(amount) for item, amount in rows}

    def holders(self, id_: int) -> dict[Address, int]:
        """Who holds how much of a class."""
        rows = self.store.rows(
            "SELECT a.value, b.amount FROM balances b JOIN names a ON a.id = b.account"
            " WHERE b.item = (SELECT id FROM names WHERE value = ?) ORDER BY a.value",
            (id_.to_bytes(32, "big"),),
        )
        return {_address(account): int(amount) for account, amount in rows}

    def locks(self, owner: str) -> list[tuple[int, Address, int, int]]:
        """(class, world, amount, until) of what worlds hold of an account's items."""
        return self._with_worlds("locks", "amount", owner)

    def allowances(self, owner: str) -> list[tuple[int, Address, int, int]]:
        """(class, world, left, until) of what worlds may spend of an account's items."""
        return self._with_worlds("allowances", "remaining", owner)

    def minters(self, id_: int) -> dict[Address, int]:
        """Who but the issuer may make items of a class, and how many more."""
        rows = self.store.rows(
            "SELECT n.value, m.allowance FROM minters m JOIN names n ON n.id = m.minter"
            " WHERE m.item = (SELECT id FROM names WHERE value = ?) ORDER BY n.value",
            (id_.to_bytes(32, "big"),),
        )
        return {_address(minter): int(allowance) for minter, allowance in rows}

    def is_nonce_used(self, owner: str, nonce: int) -> bool:
        """Whether an intent with this nonce took effect or was cancelled."""
        raw = nonce.to_bytes(32, "big")
        found = self.store.one(
            "SELECT bits FROM nonces WHERE owner = (SELECT id FROM names WHERE value = ?) AND word = ?",
            (_raw(owner), raw[:31]),
        )
        return found is not None and bool(int.from_bytes(found[0], "big") >> raw[31] & 1)

    def history(
        self, *, account: str = "", id_: int | None = None, most: int = 100, oldest: bool = False
    ) -> list[Happening]:
        """What happened to an account, a class, or both together; the newest first, or the oldest."""
        return read_history(self.store, account=account, id_=id_, most=most, oldest=oldest)

    def state(self) -> list[Cells]:
        """All cells of all tables, in row numbers."""
        return [self.store.cells(table) for table in TABLES]

    def undone(self, block: int) -> list[Cells]:
        """By table, the cells that blocks after this one changed, as they were after it.

        Raises InternalError where it is older than what can be undone.
        """
        numbers = self.store.rows("SELECT number FROM blocks WHERE number > ? ORDER BY number DESC", (block,))
        cells: list[Cells] = [{} for _ in TABLES]
        for (number,) in numbers:
            found = self.store.one("SELECT undo FROM blocks WHERE number = ?", (number,))
            if found is None or found[0] is None:
                raise InternalError(f"block {number} can't be undone", block=number)
            for table, key, value in unpack_undo(bytes(found[0])):
                cells[table][key] = value  # an older block's word is the last
        return cells

    def counts(self, tables: Sequence[str]) -> dict[str, int]:
        """Rows of tables, by their names in `index_schema`."""
        found = {table: self.store.one(f"SELECT count(*) FROM {table}") for table in tables}  # noqa: S608 - constants
        return {table: row[0] if row else 0 for table, row in found.items()}

    def names(self) -> dict[int, bytes]:
        """Addresses (20 bytes) and class ids (32) by row number."""
        return {number: bytes(value) for number, value in self.store.rows("SELECT id, value FROM names")}

    # ---- writing

    def take(self, chunk: Chunk) -> bool:
        """Fold blocks in, all of them or, where anything fails, none.

        Returns False, and does nothing, where they don't follow on what the index has: another process was here.
        Raises ChainError where the events can't be true.
        """
        try:
            with self.store.write():
                newest = self.newest()
                if (newest and newest.hash) != chunk.parent or (newest and newest.number != chunk.first - 1):
                    return False
                self._write(chunk)
        except BaseException:
            self._known.clear()  # some of these numbers were never written
            raise
        return True

    def roll_back(self, to: BlockRow) -> bool:
        """Undo all that happened after this block. False, and nothing done, where the index does not have it.

        Raises InternalError where it is older than what can be undone.
        """
        with self.store.write():
            found = self.blocks(below=to.number, most=1)
            if not found or found[0].hash != to.hash:
                return False
            bounds = self.store.one("SELECT min(first_seq), min(first_tx) FROM blocks WHERE number > ?", (to.number,))
            undone = self.undone(to.number)
            self.store.save((table, key, value) for table in range(len(TABLES)) for key, value in undone[table].items())
            if bounds is not None and bounds[0] is not None:
                self._forget_happenings(*bounds)
            self.store.run("DELETE FROM blocks WHERE number > ?", (to.number,))
        return True

    def clear(self) -> None:
        """Forget everything that was read."""
        with self.store.write():
            for table in ALL_TABLES:
                self.store.run(f"DELETE FROM {table}")  # noqa: S608 - constants

    # ----

    def _write(self, chunk: Chunk) -> None:
        store, batch = self.store, chunk.batch
        numbers = self._numbers(batch.names)
        state = [
            store.load(table, _mapped(table, keys, numbers)) for table, keys in zip(TABLES, batch.touched, strict=True)
        ]
        seq, tx = self._next("happenings", "seq"), self._next("transactions", "id")
        done = fold(batch, numbers, state, seq=seq, tx=tx, undo_from=chunk.undo_from)
        store.save(done.changed)
        store.append("happenings", HAPPENING_COLUMNS, done.happenings)
        store.append("mentions", ("segment", "name", "seq"), done.mentions)
        numbered = [
            (tx + at, batch.blocks[block].number, hash_) for at, (block, hash_) in enumerate(batch.transactions)
        ]
        store.append("transactions", ("id", "block", "hash"), numbered)
        rows = _block_rows(chunk, done.seqs, done.undo, seq + len(done.happenings), tx)
        store.append("blocks", ("number", "hash", "timestamp", "first_seq", "first_tx", "undo"), rows)
        # beneath a block that can't be undone none can
        self._prune(chunk.undo_from - 1 if chunk.first < chunk.undo_from else chunk.blocks[-1].number - UNDO_BLOCKS)

    def _prune(self, newest: int) -> None:
        """Let go of what undoes blocks up to this one; of those in which nothing happened, of the block as well."""
        self.store.run(
            "DELETE FROM blocks WHERE undo IS NOT NULL AND number <= ? AND undo = ? AND NOT EXISTS"
            " (SELECT 1 FROM transactions t WHERE t.id = blocks.first_tx AND t.block = blocks.number)",
            (newest, _NO_UNDO),
        )
        self.store.run("UPDATE blocks SET undo = NULL WHERE undo IS NOT NULL AND number <= ?", (newest,))

    def _forget_happenings(self, seq: int, tx: int) -> None:
        self.store.run("DELETE FROM mentions WHERE segment > ?", (seq >> SEGMENT_BITS,))
        self.store.run("DELETE FROM mentions WHERE segment = ? AND seq >= ?", (seq >> SEGMENT_BITS, seq))
        self.store.run("DELETE FROM happenings WHERE seq >= ?", (seq,))
        self.store.run("DELETE FROM transactions WHERE id >= ?", (tx,))

    def _next(self, table: str, column: str) -> int:
        found = self.store.one(f"SELECT max({column}) FROM {table}")  # noqa: S608 - constants
        return 0 if found is None or found[0] is None else found[0] + 1

    def _numbers(self, names: Sequence[bytes]) -> list[int]:
        """Row numbers of names, new ones where there are none."""
        if len(self._known) > KNOWN_NAMES:
            self._known.clear()
        known = self._known
        missing = [name for name in names if name not in known]
        if missing:
            known |= self.store.numbers(missing)
            new = [name for name in dict.fromkeys(missing) if name not in known]  # hex may be in either case
            first = self._next("names", "id")
            rows = [(first + at, name) for at, name in enumerate(new)]
            self.store.append("names", ("id", "value"), rows)
            known |= {name: number for number, name in rows}
        return [known[name] for name in names]

    def _classes(self, condition: str = "", parameters: Sequence[bytes] = ()) -> list[KnownClass]:
        rows = self.store.rows(
            "SELECT n.value, i.value, c.cap, v.digest, c.block, v.version, v.pending, v.pending_from, c.soulbound,"  # noqa: S608 - constants
            " c.policy, c.delay, r.value, c.royalty_bps, s.minted, s.burned FROM classes c"
            " JOIN names n ON n.id = c.item JOIN names i ON i.id = c.issuer JOIN names r ON r.id = c.royalty_receiver"
            f" JOIN descriptors v ON v.item = c.item JOIN supplies s ON s.item = c.item {condition}"
            " ORDER BY c.block, n.value",
            parameters,
        )
        return [
            KnownClass(
                _id(item),
                _address(issuer),
                int(cap),
                bytes(digest),
                block,
                version,
                None if pending is None else bytes(pending),
                None if start is None else int(start),
                bool(soulbound),
                policy,
                delay,
                _address(receiver),
                bps,
                int(minted),
                int(burned),
            )
            for (
                item,
                issuer,
                cap,
                digest,
                block,
                version,
                pending,
                start,
                soulbound,
                policy,
                delay,
                receiver,
                bps,
                minted,
                burned,
            ) in rows
        ]

    def _with_worlds(self, table: str, column: str, owner: str) -> list[tuple[int, Address, int, int]]:
        rows = self.store.rows(
            f"SELECT i.value, w.value, t.{column}, t.until FROM {table} t JOIN names i ON i.id = t.item"  # noqa: S608 - constants
            " JOIN names w ON w.id = t.world WHERE t.owner = (SELECT id FROM names WHERE value = ?)"
            " ORDER BY i.value, w.value",
            (_raw(owner),),
        )
        return [(_id(item), _address(world), int(amount), int(until)) for item, world, amount, until in rows]


def _block_rows(
    chunk: Chunk, seqs: dict[int, int], undo: dict[int, list[tuple[int, Key, Value | None]]], end_seq: int, tx: int
) -> list[tuple[int, bytes, int, int, int, bytes | None]]:
    """Rows of `blocks`. A block without events begins with the happening that the next one with some begins with."""
    seen = {block.number: block.hash for block in chunk.batch.blocks}
    txs: dict[int, int] = {}
    for at, (block, _) in enumerate(chunk.batch.transactions):
        txs.setdefault(chunk.batch.blocks[block].number, tx + at)
    rows = []
    seq, first_tx = end_seq, tx + len(chunk.batch.transactions)
    for number, hash_, timestamp in reversed(chunk.blocks):
        if seen.pop(number, hash_) != hash_:
            raise InternalError("a chunk's block has two hashes", block=number)
        seq, first_tx = seqs.get(number, seq), txs.get(number, first_tx)
        kept = pack_undo(undo.get(number, [])) if number >= chunk.undo_from else None
        rows.append((number, hash_, timestamp, seq, first_tx, kept))
    if seen:
        raise InternalError("a chunk lacks a block in which something happened", blocks=sorted(seen)[:10])
    return rows[::-1]


def _mapped(table: Table, keys: Iterable[Key], numbers: Sequence[int]) -> set[Key]:
    """Keys of the batch's in the index's numbers; a nonce's word stays what it is."""
    kinds = [kind for _, kind in table.keys]
    if kinds == ["r", "r"]:
        return {(numbers[one], numbers[other]) for one, other in keys}
    if kinds == ["r", "b"]:
        return {(numbers[owner], word) for owner, word in keys}
    return {tuple([numbers[part] for part in key]) for key in keys}


def _raw(account: str) -> bytes:
    return bytes.fromhex(account[2:])


def _address(value: bytes) -> Address:
    return checksummed(bytes(value).hex())


def _id(value: bytes) -> int:
    return int.from_bytes(value, "big")
