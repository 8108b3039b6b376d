"""A node that lies: the real one, joined and announced as any other, until it sends nonsense in the place of its work.

`python -m tests.hostile ORDERS --home … node run …`. The file `ORDERS` says `KIND POSITION`, or nothing, and may change
at any time. From `POSITION` on, what the node has to send of hidden states or sampled tokens goes out spoilt, in the
way that `KIND` names. All else that it says stays true, so that nothing but the nonsense itself gives it away.
"""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from p2pos.cli.main import main
from p2pos.node.streams import FrameStream
from p2pos.wire.messages import Step, TensorHeader, Tokens, WireMessage

F32_BYTES = 4
QUIET_NAN = struct.pack("<f", float("nan"))
INFINITE = struct.pack("<f", float("inf"))


class Spoilt(NamedTuple):
    """What goes out: a message and its payload, or bytes that are no frame, or nothing."""

    message: WireMessage | None
    payload: bytes = b""
    raw: bytes = b""


def nan(step: Step, payload: bytes) -> Spoilt:
    """One number of the last row is none."""
    return Spoilt(step, payload[:-F32_BYTES] + QUIET_NAN)


def infinite(step: Step, payload: bytes) -> Spoilt:
    """All numbers are infinite."""
    return Spoilt(step, INFINITE * (len(payload) // F32_BYTES))


def wide(step: Step, payload: bytes) -> Spoilt:
    """Rows of another width, with bytes to match."""
    rows, width = step.tensor.shape
    return Spoilt(
        structs.replace(step, tensor=TensorHeader("f32", [rows, width + 1])), payload + bytes(rows * F32_BYTES)
    )


def tall(step: Step, payload: bytes) -> Spoilt:
    """Twice the rows that were due."""
    rows, width = step.tensor.shape
    return Spoilt(structs.replace(step, tensor=TensorHeader("f32", [2 * rows, width])), payload * 2)


def truncated(step: Step, payload: bytes) -> Spoilt:
    """Fewer bytes than the header says."""
    return Spoilt(step, payload[: len(payload) // 2])


def skipped(step: Step, payload: bytes) -> Spoilt:
    """Rows of a later position than is next."""
    return Spoilt(structs.replace(step, position=step.position + 1), payload)


def garbage(step: Step | Tokens, payload: bytes) -> Spoilt:
    """Bytes that are no frame."""
    return Spoilt(None, raw=b"\xff" * 4096)


def silent(step: Step | Tokens, payload: bytes) -> Spoilt:
    """Nothing, while it answers all that it is asked."""
    return Spoilt(None)


def unknown_token(sampled: Tokens, payload: bytes) -> Spoilt:
    """A token that the model doesn't have."""
    return Spoilt(structs.replace(sampled, tokens=[1_000_000]), payload)


def out_of_turn(sampled: Tokens, payload: bytes) -> Spoilt:
    """A token for a position that is not the next."""
    return Spoilt(structs.replace(sampled, position=sampled.position + 1), payload)


def many_tokens(sampled: Tokens, payload: bytes) -> Spoilt:
    """Several tokens where one is due."""
    return Spoilt(structs.replace(sampled, tokens=sampled.tokens * 3), payload)


STEPS: dict[str, Callable[[Step, bytes], Spoilt]] = {
    each.__name__: each for each in (nan, infinite, wide, tall, truncated, skipped, garbage, silent)
}
"""What a stage that is not the tail may do."""
TOKENS: dict[str, Callable[[Tokens, bytes], Spoilt]] = {
    each.__name__: each for each in (unknown_token, out_of_turn, many_tokens, garbage, silent)
}
"""What the tail may do."""


def told(orders: Path) -> tuple[str, int]:
    """The kind and the position that the file says now; "" for the truth."""
    kind, _, position = orders.read_text().partition(" ")
    return kind, int(position or 0)


def lie(orders: Path) -> None:
    """Have this process's nodes lie as the file says at the time."""
    honest = FrameStream.send

    async def send(stream: FrameStream, message: WireMessage, payload: bytes | memoryview = b"", **how: float) -> None:
        kind, position = told(orders)
        if isinstance(message, Step) and kind in STEPS and message.position + message.tensor.shape[0] > position:
            spoilt = STEPS[kind](message, bytes(payload))
        elif isinstance(message, Tokens) and kind in TOKENS and message.position >= position:
            spoilt = TOKENS[kind](message, bytes(payload))
        else:
            await honest(stream, message, payload, **how)
            return
        if spoilt.message is not None:
            await honest(stream, spoilt.message, spoilt.payload, **how)
        elif spoilt.raw:
            await stream._stream.write(spoilt.raw)

    FrameStream.send = send  # type: ignore[method-assign]  # this process is there to lie


if __name__ == "__main__":
    _, orders_file, *arguments = sys.argv
    lie(Path(orders_file))
    main(arguments)
