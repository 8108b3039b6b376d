"""Options that many commands share, and how a command gets its settings."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.node import swarm_key as keys

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def with_settings(*names: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command `--home` and a flag for each named setting, and call it with `settings` as first argument.

    Args:
        names: of `rpc_url`, `index_url`, `contract`, `max_fee`, `relayer_url`, `bootstrap`, `swarm_key_file`, `model`,
            `offline`, `api_token_file`, `passphrase_file`.

    """
    flags: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
        "rpc_url": click.option(
            "--rpc-url",
            multiple=True,
            metavar="URL",
            help="The chain's JSON-RPC end point. Given several times: the head is what a majority of them says.",
        ),
        "index_url": click.option(
            "--index-url",
            metavar="URL",
            help="A PostgreSQL database for the index, postgresql://USER@HOST/DATABASE. Default: a file at home.",
        ),
        "contract": click.option("--contract", help="Address of the assets contract."),
        "max_fee": click.option("--max-fee", metavar="GWEI", help="The most to offer per gas, the tip included."),
        "relayer_url": click.option("--relayer-url", help="HTTP end point of a relayer."),
        "bootstrap": click.option("--bootstrap", multiple=True, help="Multiaddress of a peer to join through."),
        "swarm_key_file": click.option(
            "--swarm-key-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="A file (mode 0600) with the key of a private swarm; see `p2pos swarm key new`.",
        ),
        "model": click.option(
            "--model",
            help="A model directory, a model's id (a CID), or its name on a hub, ORG/NAME[@REVISION]; to generate, one"
            " that is served.",
        ),
        "offline": click.option("--offline", is_flag=True, help="Fetch no model: use what is here."),
        "api_token_file": click.option(
            "--api-token-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="A file (mode 0600) with the bearer token of the HTTP interface; needed beyond loopback.",
        ),
        "passphrase_file": click.option(
            "--passphrase-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="A file (mode 0600) whose first line is the passphrase. Default: asked for.",
        ),
    }

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def wrapper(*args: Any, home: Path | None, **kwargs: Any) -> R:
            context = click.get_current_context().find_root().obj
            given = {name: kwargs.pop(name) or None for name in names}
            settings: Settings = context.settings(**given) if home is None else _at(home, context, given)
            return command(settings, *args, **kwargs)

        flagged: Callable[..., R] = wrapper
        for name in reversed(names):
            flagged = flags[name](flagged)
        option = click.option(
            "--home", type=click.Path(path_type=Path, file_okay=False), help="Where state lives (P2POS_HOME)."
        )
        return option(flagged)

    return decorate


def swarm_key(settings: Settings) -> bytes | None:
    """The key of the private swarm that the settings name; None for the open one. Raises UserError where it's none."""
    return None if settings.swarm_key_file is None else keys.read(settings.swarm_key_file)


def _at(home: Path, context: Any, given: dict[str, Any]) -> Settings:
    if context.home is not None and context.home != home:
        raise UserError(f"--home is given twice: {context.home} and {home}")
    settings: Settings = type(context)(home, context.log_level, context.log_json).settings(**given)
    return settings


def limit_option(direction: str, text: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """`--DIRECTION-limit`, in MiB per second."""
    return click.option(
        f"--{direction}-limit",
        type=click.FloatRange(0),
        default=0.0,
        metavar="MIB/S",
        help=f"{text} 0: no limit.",
    )


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))
