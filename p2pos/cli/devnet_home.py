"""What every verb of `p2pos devnet` shares: where the devnet lives, and how often a live view looks."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from p2pos.config import Settings
from p2pos.devnet.home import Home
from p2pos.errors import UserError

REFRESH_S = 1.0
"""Of live tables and followed logs."""


def with_home(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--home` and call it with (settings, home) first.

    The devnet's home is the directory given with `--home`, before or after the noun, or with P2POS_HOME; else
    `devnet` in the user's own home of p2pos, which the devnet must not take over.
    """

    @click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the devnet lives (P2POS_HOME). Default: `devnet` in the user's data directory.",
    )
    @functools.wraps(command)
    def wrapper(*args: Any, home: Path | None, **kwargs: Any) -> Any:
        root = click.get_current_context().find_root().obj
        if home is not None and root.home is not None and home != root.home:
            raise UserError(f"--home is given twice: {root.home} and {home}")
        in_environment = os.environ.get("P2POS_HOME")
        given = home or root.home or (Path(in_environment) if in_environment else None)
        settings: Settings = type(root)(given, root.log_level, root.log_json).settings()
        return command(settings, Home(given or settings.home / "devnet"), *args, **kwargs)

    return wrapper
