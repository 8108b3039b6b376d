"""Calldata, return values, events and errors as bytes, encoded by hand. Pure.

Only what this contract uses: words, and dynamic parts that are words themselves. An address is an int here.
"""

from collections.abc import Iterable
from functools import cache

from eth_hash.auto import keccak

WORD_MAX = (1 << 256) - 1


class Tail:
    """A dynamic part of an encoding: its head is an offset, its body comes after all heads."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body


Part = int | bytes | Tail
"""A word; words already encoded; or a dynamic part."""


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def encode(parts: Iterable[Part]) -> bytes:
    """The parts one after another, as ABI.md of Solidity calls a tuple."""
    heads: list[bytes | Tail] = [part.to_bytes(32, "big") if isinstance(part, int) else part for part in parts]
    offset = sum(32 if isinstance(head, Tail) else len(head) for head in heads)
    tails = []
    for place, head in enumerate(heads):
        if isinstance(head, Tail):
            heads[place] = offset.to_bytes(32, "big")
            tails.append(head.body)
            offset += len(head.body)
    return b"".join(heads) + b"".join(tails)  # type: ignore[arg-type] # no Tail is left among the heads


def text(data: bytes) -> Tail:
    """`bytes` or `string`."""
    return Tail(word(len(data)) + data + bytes(-len(data) % 32))


def words(values: Iterable[int]) -> Tail:
    """An array of words."""
    listed = list(values)
    return Tail(word(len(listed)) + b"".join(map(word, listed)))


def array(elements: Iterable[Tail]) -> Tail:
    """An array of dynamic parts, such as `bytes[]`."""
    listed = list(elements)
    return Tail(word(len(listed)) + encode(listed))


def row(static: Iterable[bytes]) -> Tail:
    """An array of static structs, each already encoded."""
    listed = list(static)
    return Tail(word(len(listed)) + b"".join(listed))


@cache
def selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


@cache
def topic(signature: str) -> bytes:
    return keccak(signature.encode())


def error(signature: str, *arguments: Part) -> bytes:
    """The revert data of a custom error."""
    return selector(signature) + encode(arguments)
