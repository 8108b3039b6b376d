"""What a devnet consists of: names, who serves which layers, and the command line of each process."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pos.devnet.home import Home
from p2pos.devnet.processes import Command, python, tied
from p2pos.errors import UserError
from p2pos.shard.checkpoint import Checkpoint
from p2pos.types import LayerSpan
from p2pos.wire.messages import Quantization

MAX_NODES = 32
"""Processes with torch take 0.3 GB each; more than this is a mistake on one machine."""
MAX_BOOTSTRAP = 3
"""Addresses given to a node to join through; one that answers is enough."""
DTYPE = "f32"
"""What the nodes compute in: greedy text is then that of `transformers` in fp32, to the token."""
WALLETS = ("alice", "bob", "operator")
OPERATOR = "operator"

CHAIN_READY_S = 30.0
RELAYER_READY_S = 60.0
NODE_READY_S = 180.0
"""A node on a busy two-core machine imports torch in up to 15 s, then reads and names its model's bytes."""
CHAIN_STOP_S = 10.0
RELAYER_STOP_S = 15.0
NODE_STOP_S = 15.0
"""A node gives its sessions 10 s to finish."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `p2pos devnet up` was asked for."""

    home: Home
    cache: Path
    nodes: int
    model: Path
    rpc_url: str
    """A chain that is already there, or "" for the embedded one."""
    quantize: Quantization = "none"
    """How the nodes hold their weights."""
    stages: int = 0
    """Spans that the layers are cut into; nodes beyond these hold a span once more. 0: as many as nodes."""

    @property
    def embedded(self) -> bool:
        """Whether the devnet runs its own chain."""
        return not self.rpc_url


def node_names(count: int) -> tuple[str, ...]:
    """`node-1 … node-N`. Raises UserError for a count that makes no sense."""
    if not 1 <= count <= MAX_NODES:
        raise UserError(f"a devnet has 1 to {MAX_NODES} nodes, not {count}", hint="check --nodes")
    return tuple(f"node-{number}" for number in range(1, count + 1))


def split_layers(layers: int, parts: int) -> tuple[LayerSpan, ...]:
    """Cut `layers` into `parts` consecutive spans whose sizes differ by one at most, the larger ones first.

    Raises UserError where there are fewer layers than parts.
    """
    if parts > layers:
        raise UserError(
            f"{parts} nodes can't share the model's {layers} layers", hint=f"give --nodes {layers} or fewer"
        )
    size, larger = divmod(layers, parts)
    starts = [part * size + min(part, larger) for part in range(parts + 1)]
    return tuple(LayerSpan(start, end) for start, end in itertools.pairwise(starts))


def spans(request: Request) -> dict[str, LayerSpan]:
    """Which node serves which layers. Raises UserError where that can't be."""
    names = node_names(request.nodes)
    stages = request.stages or request.nodes
    if not 1 <= stages <= request.nodes:
        raise UserError(f"{request.nodes} nodes can't serve {stages} spans", hint="give --stages as many or fewer")
    return dict(zip(names, itertools.cycle(split_layers(layer_count(request.model), stages)), strict=False))


def layer_count(model: Path) -> int:
    """How many decoder layers a model directory has. Raises UserError where it is no model that can be read."""
    checkpoint = Checkpoint.open(model)
    text = checkpoint.config.get("text_config")
    for config in (text if isinstance(text, dict) else {}, checkpoint.config):
        count = config.get("num_hidden_layers")
        if isinstance(count, int) and count > 0:
            return count
    # GPT-2 and its age have other names for it; their tensors are named like the others': h.11.attn.bias
    numbers = [int(match[1]) for name in checkpoint.tensors if (match := re.search(r"(?:^|\.)(\d+)\.", name))]
    if not numbers:
        raise UserError(f"{model} has no decoder layers", hint="give --model a causal language model")
    return max(numbers) + 1


def chain_command(request: Request, anvil: Path, port: int) -> Command:
    """The embedded chain."""
    argv = python("p2pos.devnet.anvil", "--binary", str(anvil), "--state", str(request.home.chain_state))
    return Command((*argv, "--port", str(port), "--leash"), CHAIN_READY_S, CHAIN_STOP_S, environment())


def relayer_command(home: Home, rpc_url: str, port: int) -> Command:
    """The relayer; the contract's address is in p2pos.toml."""
    argv = tied("p2pos", "--home", str(home.path), "--log-json", "relayer", "run")
    argv += ("--rpc-url", rpc_url, "--listen", f"127.0.0.1:{port}", "--wallet", OPERATOR)
    argv += ("--passphrase-file", str(home.passphrase_file), "--leash")
    return Command(argv, RELAYER_READY_S, RELAYER_STOP_S, environment())


def node_command(
    request: Request, name: str, layers: LayerSpan, *, port: int, api_port: int, bootstrap: Sequence[str]
) -> Command:
    """A node that serves `layers` and joins through the addresses in `bootstrap`."""
    argv = tied("p2pos", "--home", str(request.home.node(name)), "--log-json", "node", "run")
    argv += ("--model", str(request.model), "--layers", str(layers), "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    for address in bootstrap[:MAX_BOOTSTRAP]:
        argv += ("--bootstrap", address)
    argv += (
        "--api",
        f"127.0.0.1:{api_port}",
        "--dtype",
        DTYPE,
        "--quantize",
        request.quantize,
        "--threads",
        "1",
        "--content",
        str(request.home.path / "content"),  # what the devnet's people issue is served by its nodes
        "--leash",
    )
    return Command(argv, NODE_READY_S, NODE_STOP_S, environment(P2POS_CACHE=str(request.cache)))


def environment(**more: str) -> Mapping[str, str]:
    """The environment for a child: this one without the P2POS_* settings, which are meant for a person's commands."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("P2POS_")}
    return {**kept, **more}
