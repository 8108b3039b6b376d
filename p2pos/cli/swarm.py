"""`p2pos swarm`: who serves which layers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from p2pos.cli.options import json_option, print_json, swarm_key, with_settings
from p2pos.cli.swarm_look import Look, Looker
from p2pos.cli.swarm_view import Picture
from p2pos.config import Settings
from p2pos.node import swarm_key as keys
from p2pos.node.status import wall_ms
from p2pos.node.visitor import visit

WATCH_S = 2.0
"""Between two looks; nodes speak anew every four seconds."""


@click.group()
def swarm() -> None:
    """Who serves which layers."""


@swarm.group("key")
def key() -> None:
    """The key of a private swarm."""


@key.command("new")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def key_new(file: Path) -> None:
    """Make the key of a private swarm and write it to FILE (mode 0600).

    Whoever starts with it (--swarm-key-file) can join, and nobody else. The format is libp2p's swarm.key.
    """
    keys.make(file)
    click.echo(f"wrote {file}: give it to each node of the swarm, by a way that nobody else reads")


@swarm.command("status")
@with_settings("bootstrap", "swarm_key_file")
@click.option(
    "--watch",
    "every_s",
    is_flag=False,
    flag_value=WATCH_S,
    default=None,
    type=click.FloatRange(0.5, 3600.0),
    metavar="[SECONDS]",
    help=f"Stay and refresh so often (default {WATCH_S:g}), until Ctrl-C.",
)
@json_option
def status(settings: Settings, every_s: float | None, as_json: bool) -> None:
    """Show who serves which layers of each model, gaps, speed, sessions, and how far away everyone is.

    A ● marks the nodes that a text would pass through now. RTT is the time of a question and its answer from here; the
    route's are what each node measured to the next. `free` is the room for tokens in a node's caches, and `layer tok/s`
    what one of its layers does alone. With --json and --watch, each look is a line.
    """
    trio.run(_run, settings, every_s, as_json)


async def _run(settings: Settings, every_s: float | None, as_json: bool) -> None:
    async with visit(settings.bootstrap, swarm_key=swarm_key(settings)) as visitor:
        looker = Looker(visitor)
        with _shower(every_s, as_json) as show:
            show(await looker.look(again=False))
            while every_s is not None:
                await trio.sleep(every_s)
                show(await looker.look(again=True))


@contextmanager
def _shower(every_s: float | None, as_json: bool) -> Iterator[Callable[[Look], None]]:
    """What shows a look: as JSON, below the one before, or in its place on a terminal."""
    console = Console(highlight=False)

    def picture(look: Look, *, height: int | None = None) -> Group:
        return Group(*Picture(console.width, encoding=console.encoding, height=height).draw(look))

    if as_json:
        yield lambda look: print_json(look.as_dict(wall_ms()))
    elif every_s is None or not console.is_terminal:
        yield lambda look: console.print(picture(look), soft_wrap=True)
    else:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

            def show(look: Look) -> None:
                under = Text(f"{time.strftime('%H:%M:%S')}, every {every_s:g} s until Ctrl-C", "dim")
                live.update(Group(picture(look, height=console.height - 2), Text(), under), refresh=True)

            yield show
