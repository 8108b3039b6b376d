"""What a node of a test is asked to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from p2pos.node.node_config import NodeConfig


def config_of(model: Path, home: Path, **changes: Any) -> NodeConfig:
    """A node of this checkpoint, offline, in fp32, which nobody joins."""
    config = NodeConfig(
        home=home,
        cache=home,
        model=model,
        offline=True,
        layers=None,
        listen=(),
        swarm_key=None,
        mdns=False,
        bootstrap=(),
        api=("127.0.0.1", 0),
        dtype="f32",
        quantize="none",
        device="cpu",
        threads=0,
        max_tokens=100,
        api_token="",
        cache_bytes=0,
        leashed=False,
    )
    return replace(config, **changes)
