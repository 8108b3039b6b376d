"""The directory of a model that is named by its id: here already, or its manifest and side files fetched from peers."""

from functools import partial
from pathlib import Path

import trio

from p2pos.cli.options import swarm_key
from p2pos.config import Settings
from p2pos.node import weights
from p2pos.types import ModelId


def located(model: ModelId, settings: Settings) -> Path:
    """Find it, or fetch it through the bootstrap peers. Raises UserError, UnavailableError, PeerError."""
    locate = partial(
        weights.locate,
        model,
        settings.bootstrap,
        settings.cache,
        offline=settings.offline,
        swarm_key=swarm_key(settings),
    )
    return trio.run(locate)
