"""What became of an intent, read from the events of the transaction that carried it. Pure.

A receiver's hook runs inside the transaction and may call the contract itself, so a lone `IntentFailed` or
`NonceUsed` could be its doing. What can't be forged is `NonceUsed` followed at once by exactly the movement that
was signed: the contract emits both in one breath, and only for the owner's signature.
"""

import itertools
from collections.abc import Sequence

from p2pos.ledger.events import Event, IntentFailed, LockChanged, Moved, NonceSpent
from p2pos.ledger.typed_data import Signable, Transfer


def took_effect(struct: Signable, events: Sequence[Event]) -> bool:
    """Whether these events, in their order, show this very intent carried out."""
    return any(
        isinstance(spent, NonceSpent)
        and not spent.cancelled
        and (spent.owner, spent.nonce) == (struct.owner, struct.nonce)
        and done.place.log == spent.place.log + 1
        and _is_deed(struct, done)
        for spent, done in itertools.pairwise(events)
    )


def failure(struct: Signable, events: Sequence[Event]) -> bytes | None:
    """The revert data with which a batch skipped this intent, or None where no event says that it did."""
    for event in events:
        if isinstance(event, IntentFailed) and (event.owner, event.nonce) == (struct.owner, struct.nonce):
            return event.reason
    return None


def _is_deed(struct: Signable, event: Event) -> bool:
    if isinstance(struct, Transfer):
        return isinstance(event, Moved) and (event.source, event.target, event.id, event.amount) == (
            struct.owner,
            struct.to,
            struct.id,
            struct.amount,
        )
    return isinstance(event, LockChanged) and (event.owner, event.world, event.id, event.amount, event.until) == (
        struct.owner,
        struct.world,
        struct.id,
        struct.amount,
        struct.until,
    )
