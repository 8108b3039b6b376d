"""A class's descriptors, one after the other, as its events tell. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from p2pos.errors import ChainError
from p2pos.ledger.events import ClassCreated, ClassUpdated, Event


class Version(NamedTuple):
    """A descriptor that a class had, or has."""

    number: int
    """From 1."""
    digest: bytes
    """sha2-256 of the descriptor."""
    block: int
    """From which on."""
    transaction: str


def versions(id_: int, happened: Iterable[Event]) -> list[Version]:
    """Every version of a class, oldest first.

    Args:
        id_: the class.
        happened: events of the contract, in order; of other classes and kinds as well.

    Raises:
        ChainError: they don't follow one another: one is missing, or made up.

    """
    found: list[Version] = []
    for event in happened:
        if isinstance(event, ClassCreated) and event.id == id_:
            if found:
                raise ChainError(f"class 0x{id_:064x} was made twice, says the chain's end point")
            found.append(Version(1, event.digest, event.place.block, event.place.transaction))
        elif isinstance(event, ClassUpdated) and event.id == id_:
            if not found or event.version != found[-1].number + 1 or event.previous != found[-1].digest:
                raise ChainError(f"the updates of class 0x{id_:064x} that the chain's end point tells don't follow")
            found.append(Version(event.version, event.digest, event.place.block, event.place.transaction))
    return found
