import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import PeerError
from p2pos.shard.activations import from_wire, to_wire

CPU = torch.device("cpu")


@given(st.integers(1, 5), st.integers(1, 9), st.sampled_from([torch.bfloat16, torch.float32]), st.integers(0, 99))
def test_hidden_states_survive_the_wire(rows: int, width: int, dtype: torch.dtype, seed: int) -> None:
    """What is read from header and bytes is bit for bit what was written."""
    hidden = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)
    header, payload = to_wire(hidden)
    back = from_wire(header, bytes(payload), width=width, dtype=header.dtype, device=CPU, peer="p")
    assert torch.equal(back, hidden)


def test_a_slice_is_written_as_what_it_is() -> None:
    """A view into a larger tensor sends its own elements alone."""
    whole = torch.arange(12.0).view(4, 3)
    header, payload = to_wire(whole[1:3])
    assert (header.shape, len(payload)) == ([2, 3], 24)
    assert torch.equal(from_wire(header, payload, width=3, dtype="f32", device=CPU, peer="p"), whole[1:3])


def test_too_few_bytes_are_the_peers_fault() -> None:
    """A payload that is shorter than its header says is refused."""
    header, payload = to_wire(torch.ones(2, 3))
    with pytest.raises(PeerError, match="23 bytes for a tensor of 24"):
        from_wire(header, payload[:-1], width=3, dtype="f32", device=CPU, peer="p")
