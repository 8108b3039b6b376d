"""What became of an intent, read from the events of the transaction that carried it. Pure.

A receiver's hook runs inside the transaction and may call the contract itself, so a lone `IntentFailed` or
`NonceUsed` could be its doing. What can't be forged is `NonceUsed` followed at once by exactly what was signed: the
contract emits both in one breath, and only for the signers' signatures.
"""

from collections.abc import Sequence

from p2pos.ledger.events import CallFailed, Event, IntentFailed, LockChanged, Moved, NonceSpent, SpendAllowed, Swapped
from p2pos.ledger.typed_data import BatchTransfer, Lock, Signable, Spend, Swap, Transfer, Unlock
from p2pos.types import Address


class Outcome:
    """One transaction's events, read once and asked about each of its intents."""

    def __init__(self, events: Sequence[Event]) -> None:
        """`events` are the asset contract's, in their order."""
        self._events = events
        self._spent: dict[tuple[Address, int], int] = {}
        self._failed: dict[tuple[Address, int], bytes] = {}
        self._failed_calls: dict[int, bytes] = {}
        for at, event in enumerate(events):
            if isinstance(event, NonceSpent) and not event.cancelled:
                self._spent[event.owner, event.nonce] = at  # the contract uses a nonce once
            elif isinstance(event, IntentFailed):
                self._failed.setdefault((event.owner, event.nonce), event.reason)
            elif isinstance(event, CallFailed):
                self._failed_calls.setdefault(event.position, event.reason)

    def took_effect(self, struct: Signable) -> bool:
        """Whether the events show this very intent carried out."""
        at = self._spent.get(struct.signers[0])
        if at is None:
            return False
        most = 3 if isinstance(struct, Transfer) else len(self._events)
        return _is_deed(struct, self._events[at].place.log, self._events[at + 1 : at + most])

    def failure(self, struct: Signable, position: int) -> bytes | None:
        """The revert data with which a batch skipped the intent at this position, or None where no event says so."""
        found = self._failed.get(struct.signers[0])
        return self._failed_calls.get(position) if found is None else found


def _is_deed(struct: Signable, log: int, after: Sequence[Event]) -> bool:
    """Whether the events after the nonce's, which is in log `log`, are what was signed."""
    if not after or after[0].place.log != log + 1:
        return False
    event = after[0]
    match struct:
        case Transfer():
            return _moved(after, log + 1, struct.owner, struct.to, [(struct.id, struct.amount)])
        case BatchTransfer():
            pairs = list(zip(struct.ids, struct.amounts, strict=True))
            return _moved(after, log + 1, struct.owner, struct.to, pairs)
        case Lock():
            return isinstance(event, LockChanged) and event[1:] == (
                struct.owner,
                struct.world,
                struct.id,
                struct.amount,
                struct.until,
            )
        case Unlock():
            return isinstance(event, LockChanged) and (event.owner, event.world, event.id, event.until) == (
                struct.owner,
                struct.world,
                struct.id,
                0,
            )
        case Spend():
            return isinstance(event, SpendAllowed) and event[1:] == (
                struct.owner,
                struct.world,
                struct.id,
                struct.max,
                struct.until if struct.max else 0,  # no permission has no end
            )
        case Swap():
            return _swapped(struct, log, after)


def _moved(
    events: Sequence[Event], log: int, source: Address, target: Address, pairs: Sequence[tuple[int, int]]
) -> bool:
    """Whether one log moved exactly these (class, amount) from one to the other."""
    found = [event for event in events[: len(pairs) + 1] if event.place.log == log]
    return len(found) == len(pairs) and all(
        isinstance(event, Moved) and event[3:] == (source, target, *pair)
        for event, pair in zip(found, pairs, strict=True)
    )


def _swapped(swap: Swap, log: int, after: Sequence[Event]) -> bool:
    """The second's nonce, `Swapped`, what the first gives, and what the second gives, one log after another."""
    if len(after) < 2:
        return False
    nonce, swapped = after[:2]
    if not (
        isinstance(nonce, NonceSpent)
        and not nonce.cancelled
        and nonce[1:3] == swap.signers[1]
        and isinstance(swapped, Swapped)
        and swapped.place.log == log + 2
        and swapped[1:] == (swap.first, swap.second, swap.first_nonce, swap.second_nonce)
    ):
        return False
    rest, log = after[2:], log + 3
    for source, target, gives in (
        (swap.first, swap.second, swap.first_gives),
        (swap.second, swap.first, swap.second_gives),
    ):
        if gives:
            if not _moved(rest, log, source, target, [(item.id, item.amount) for item in gives]):
                return False
            rest, log = rest[len(gives) :], log + 1
    return True
