"""What happened, as the index tells it: one line per deed, with both parties, block, time and transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from p2pos.ledger.abi import ZERO, checksummed
from p2pos.ledger.index_state import SEGMENT_BITS
from p2pos.ledger.index_store import Store
from p2pos.types import Address

KINDS = (
    "class",
    "minter",
    "made",
    "moved",
    "burned",
    "spent",
    "swapped",
    "locked",
    "released",
    "allowed",
    "revoked",
    "proposed",
    "withdrawn",
    "updated",
    "cancelled",
    "failed",
    "call failed",
    "approved",
    "disapproved",
)
GROUP = 256
"""Segments of `mentions` looked into by one query."""
ROWS = 500
"""Happenings fetched by one query."""

_SELECT = """
SELECT h.seq, h.log, h.position, h.kind, one.value, other.value, op.value, item.value, h.amount, h.extra,
       t.hash, b.number, b.timestamp
FROM happenings h JOIN transactions t ON t.id = h.tx JOIN blocks b ON b.number = t.block
LEFT JOIN names one ON one.id = h.one LEFT JOIN names other ON other.id = h.other
LEFT JOIN names op ON op.id = h.operator LEFT JOIN names item ON item.id = h.item
"""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of history."""

    block: int
    timestamp: int
    """Of the block, in seconds since the epoch."""
    transaction: str
    log: int
    """The event's index in its block."""
    position: int
    """Within a TransferBatch; else 0."""
    kind: str
    """One of KINDS. `spent` is a move by a world within its allowance; `swapped` is both sides of a swap in one."""
    one: str
    """Who gave, issued, locked, allowed, cancelled, or signed first; for `made` the zero address, "" for nobody."""
    other: str
    """Who got it (`burned`: the zero address), the world, the minter, who signed second; "" where there is none."""
    operator: str
    """Who called the contract for a move (a relayer, the issuer, a minter, the world); "" for the other kinds."""
    id: int | None
    amount: int | None
    nonce: int | None = None
    """Of `cancelled` and `failed`."""
    until: int | None = None
    """Of `locked` and `allowed`, in seconds since the epoch."""
    version: int | None = None
    """Of `class`, `proposed`, `withdrawn` and `updated`."""
    digest: bytes | None = None
    previous: bytes | None = None
    starts: int | None = None
    """Of `proposed`: when it may take effect, in seconds since the epoch."""
    reason: bytes | None = None
    """Of `failed` and `call failed`: revert data."""
    first_gives: tuple[tuple[int, int], ...] = ()
    """Of `swapped`: (class, amount) that `one` gave to `other`."""
    second_gives: tuple[tuple[int, int], ...] = ()
    """Of `swapped`: what `other` gave to `one`."""
    terms: dict[str, Any] = field(default_factory=dict)
    """Of `class`: cap, soulbound, policy, delay, royalty_bps."""

    @property
    def sides(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """Of `swapped`: what each gave, `one` first."""
        return self.first_gives, self.second_gives

    def as_json(self) -> dict[str, Any]:
        """For `--json`: what does not apply is left out, but for the members that every line has."""
        fixed = {
            "block": self.block,
            "timestamp": self.timestamp,
            "transaction": self.transaction,
            "log": self.log,
            "kind": self.kind,
            "from": self.one or None,
            "to": self.other or None,
            "id": None if self.id is None else f"0x{self.id:064x}",
            "amount": self.amount,
        }
        more: dict[str, Any] = {"operator": self.operator, "nonce": self.nonce, "until": self.until}
        more |= {"version": self.version, "from_time": self.starts, "terms": self.terms}
        more |= {name: one.hex() for name in ("digest", "previous", "reason") if (one := getattr(self, name))}
        for name in ("first_gives", "second_gives"):
            more[name] = [{"id": f"0x{id_:064x}", "amount": amount} for id_, amount in getattr(self, name)]
        return fixed | {name: value for name, value in more.items() if value not in (None, "", [], {})}


def read_history(
    store: Store, *, account: str = "", id_: int | None = None, most: int = 100, oldest: bool = False
) -> list[Happening]:
    """What happened to an account, a class, or both together; the newest first, or the oldest."""
    names = ([bytes.fromhex(account[2:])] if account else []) + ([] if id_ is None else [id_.to_bytes(32, "big")])
    numbers = store.numbers(names)
    if len(numbers) < len(names):
        return []
    order = "ASC" if oldest else "DESC"
    if not names:
        return _lines(store.rows(f"{_SELECT} ORDER BY h.seq {order} LIMIT ?", (most,)))
    seqs = _seqs(store, [numbers[name] for name in names], most, oldest=oldest)
    rows = []
    for start in range(0, len(seqs), ROWS):
        chunk = seqs[start : start + ROWS]
        rows += store.rows(f"{_SELECT} WHERE h.seq IN ({', '.join('?' * len(chunk))}) ORDER BY h.seq {order}", chunk)
    return _lines(rows)


def _seqs(store: Store, names: Sequence[int], most: int, *, oldest: bool) -> list[int]:
    """The happenings that have all of these one or two names, the newest first, or the oldest."""
    newest = store.one("SELECT max(seq) FROM happenings")
    if newest is None or newest[0] is None:
        return []
    both = "AND EXISTS (SELECT 1 FROM mentions o WHERE o.segment = m.segment AND o.name = ? AND o.seq = m.seq)"
    order = "ASC" if oldest else "DESC"
    found: list[int] = []
    segments = range((newest[0] >> SEGMENT_BITS) + 1)
    if not oldest:
        segments = segments[::-1]
    for start in range(0, len(segments), GROUP):
        group = segments[start : start + GROUP]
        rows = store.rows(
            f"SELECT m.seq FROM mentions m WHERE m.segment IN ({', '.join('?' * len(group))}) AND m.name = ?"  # noqa: S608 - question marks
            f" {both if len(names) > 1 else ''} ORDER BY m.seq {order} LIMIT ?",
            (*group, *names, most - len(found)),
        )
        found += [seq for (seq,) in rows]
        if len(found) >= most:
            break
    return found


def _lines(rows: Sequence[tuple[Any, ...]]) -> list[Happening]:
    known: dict[bytes, Address] = {bytes(20): ZERO}
    lines = []
    for _, log, position, kind, one, other, operator, item, amount, extra, transaction, block, timestamp in rows:
        lines.append(
            Happening(
                block,
                timestamp,
                "0x" + bytes(transaction).hex(),
                log,
                position,
                kind,
                _address(one, known),
                _address(other, known),
                _address(operator, known),
                None if item is None else int.from_bytes(item, "big"),
                None if amount is None else int(amount),
                **(_more(json.loads(extra)) if extra else {}),
            )
        )
    return lines


def _address(value: bytes | None, known: dict[bytes, Address]) -> str:
    if value is None:
        return ""
    value = bytes(value)
    if value not in known:
        known[value] = checksummed(value.hex())
    return known[value]


def _more(extra: dict[str, Any]) -> dict[str, Any]:
    """The members of a Happening that only its kind has, from their stored form."""
    found: dict[str, Any] = {name: int(extra[name]) for name in ("nonce", "until", "version") if name in extra}
    if "from" in extra:
        found["starts"] = int(extra["from"])
    found |= {name: bytes.fromhex(extra[name]) for name in ("digest", "previous", "reason") if name in extra}
    for name in ("first_gives", "second_gives"):
        if name in extra:
            found[name] = tuple((int(id_, 16), int(amount)) for id_, amount in extra[name])
    if "cap" in extra:
        found["terms"] = {"cap": int(extra["cap"])} | {
            name: extra[name] for name in ("soulbound", "policy", "delay", "royalty_bps")
        }
    return found
