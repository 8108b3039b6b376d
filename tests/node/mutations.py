"""Valid bytes, spoilt: what a stranger may send."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parent.parent / "vectors" / "messages.json").read_text()).items()
}
"""Each message in msgpack, by name."""

_EXTREMES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8,
)
"""Bytes at a type's edge, and heads of msgpack that promise gigabytes."""


def mutated(data: bytes, dice: random.Random) -> bytes:
    """These bytes with one to four things wrong."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(out) + 1)
        match dice.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << dice.randrange(8)
            case 1:
                out[at:at] = dice.choice(_EXTREMES)
            case 2:
                del out[at : at + dice.randint(1, 8)]
            case 3:
                out[at:at] = out[at : at + dice.randint(1, 32)]
            case 4:
                out[at : at + dice.randint(1, 4)] = dice.randbytes(4)
            case _:
                del out[at:]
        if not out:
            out += dice.randbytes(8)
    return bytes(out)


def mutations(data: bytes, count: int, *, seed: int) -> Iterator[bytes]:
    """So many spoilt forms of these bytes, always the same."""
    dice = random.Random(seed)
    for _ in range(count):
        yield mutated(data, dice)
