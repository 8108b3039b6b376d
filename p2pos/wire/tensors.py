"""How many bytes a tensor's header promises, and whether a payload keeps the promise. Pure: no torch."""

import math

from p2pos.errors import PeerError
from p2pos.wire.messages import TensorHeader

ITEM_BYTES = {"bf16": 2, "f16": 2, "f32": 4}


def nbytes(header: TensorHeader) -> int:
    """Bytes of a tensor with this header."""
    return math.prod(header.shape) * ITEM_BYTES[header.dtype]


def check(header: TensorHeader, payload: bytes | memoryview, *, width: int, dtype: str, peer: str) -> int:
    """The rows of hidden states in a payload.

    Args:
        header: what the peer says of it.
        payload: what it sent.
        width: the model's hidden size.
        dtype: the dtype that both stages agreed on.
        peer: who sent it.

    Raises:
        PeerError: it is not (rows, width) of that dtype, or the bytes are more or fewer than that.

    """
    if len(header.shape) != 2 or header.shape[1] != width or header.dtype != dtype:
        raise PeerError(peer, f"sent {header.dtype} {header.shape} where (rows, {width}) of {dtype} belong")
    if len(payload) != nbytes(header):
        raise PeerError(peer, f"sent {len(payload)} bytes for a tensor of {nbytes(header)}")
    return header.shape[0]
