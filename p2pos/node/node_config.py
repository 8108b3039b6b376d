"""What `p2pos node run` was asked to do, and what a node answers once it serves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2pos.types import LayerSpan, ModelId
from p2pos.wire.messages import Quantization


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """An engine that others run, which is to write in this node's place."""

    url: str
    """Where it speaks OpenAI's protocol."""
    model: str
    """The name by which it serves the model; "" goes by what it lists."""
    key: str
    """What it wants as a bearer token; "" for none."""
    sessions: int
    """Texts that it is to write at a time; 0 as suits it."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What `p2pos node run` was asked to do."""

    home: Path
    cache: Path
    model: Path
    """A checkpoint's directory; one of a hub's may lack weights."""
    offline: bool
    """Fetch none of them."""
    layers: LayerSpan | None
    """None takes those with which the swarm gains most, and moves when it would gain by that."""
    listen: tuple[str, ...]
    bootstrap: tuple[str, ...]
    swarm_key: bytes | None
    """32 bytes that all nodes of a private swarm share; None is the open one."""
    mdns: bool
    """Find others, and be found, on the local network."""
    api: tuple[str, int]
    dtype: str
    quantize: Quantization
    """How to hold the weights of linear layers."""
    device: str
    threads: int
    """Of torch; 0 leaves it to torch."""
    max_tokens: int
    """Positions that all KV caches may hold together."""
    api_token: str
    """What requests to the HTTP interface must bear; "" for none, which only loopback addresses allow."""
    cache_bytes: int
    """Bytes that they may take; 0 is a quarter of the memory that is free when the span is loaded."""
    leashed: bool
    """Leave when standard input ends."""
    max_layers: int = 0
    """To be chosen at most; 0 leaves it to the memory."""
    memory_bytes: int = 0
    """For weights and caches of chosen layers; 0 is most of what is free when the node starts."""
    engine: EngineConfig | None = None
    """None where the node computes itself."""
    model_id: ModelId | None = None
    """What `model` was named by, where that was its id."""
    download_rate: float = 0.0
    """Bytes of weights per second that may come; 0 for no cap."""
    upload_rate: float = 0.0
    """Bytes of weights per second that may leave to peers; 0 for no cap."""
    content: Path | None = None
    """A store of items' descriptors and files, which are there for whoever asks."""
    relay: bool = True
    """Relay for nodes that can't be dialled, unless this one can't be either."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a node says once it serves."""

    peer: str
    addresses: tuple[str, ...]
    api: str


Progress = Callable[[str, int], Callable[[int], None]]
"""Given a title and a total of bytes, what to call with each piece's bytes."""
