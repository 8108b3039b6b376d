"""Hidden states as torch tensors ↔ a header and raw bytes."""

import torch

from p2pos.errors import PeerError
from p2pos.wire import tensors
from p2pos.wire.messages import TensorHeader

_TORCH = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
_NAME = {dtype: name for name, dtype in _TORCH.items()}


def to_wire(hidden: torch.Tensor) -> tuple[TensorHeader, memoryview]:
    """Header and bytes of hidden states. hidden: (rows, d_model). On a CPU the bytes are a view, not a copy."""
    data = hidden.detach().to("cpu").contiguous()
    header = TensorHeader(_NAME[data.dtype], list(data.shape))  # type: ignore[arg-type]  # one of the three literals
    return header, data.reshape(-1).view(torch.uint8).numpy().data


def from_wire(
    header: TensorHeader, payload: bytes | memoryview, *, width: int, dtype: str, device: torch.device, peer: str
) -> torch.Tensor:
    """Hidden states (rows, width) that a peer sent.

    Raises PeerError where header and payload disagree with these, or a number is not finite.
    """
    tensors.check(header, payload, width=width, dtype=dtype, peer=peer)
    flat = torch.frombuffer(bytearray(payload), dtype=_TORCH[dtype])
    if not bool(torch.isfinite(flat).all()):
        raise PeerError(peer, "sent numbers that are not finite")
    return flat.view(header.shape).to(device)
