"""`p2pos devnet`: a local network of real processes."""

import importlib
import time

import click
from rich.console import Console
from rich.live import Live

from p2pos.cli.devnet_home import REFRESH_S, with_home
from p2pos.cli.options import json_option, print_json
from p2pos.config import Settings
from p2pos.devnet import story, table
from p2pos.devnet.control import Remote, running
from p2pos.devnet.home import Home
from p2pos.errors import UserError


class _Verbs(click.Group):
    """The group, with `up` in a module of its own: the ledger that it needs takes longer to load than all else."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in order."""
        return sorted([*super().list_commands(ctx), "up"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported where it is `up`."""
        if cmd_name != "up":
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module("p2pos.cli.devnet_up").up
        return command


@click.group(cls=_Verbs)
def devnet() -> None:
    """A local network of real processes."""


@devnet.command("status")
@with_home
@click.option("--watch", is_flag=True, help="Stay and refresh, until Ctrl-C.")
@json_option
def status(_settings: Settings, home: Home, watch: bool, as_json: bool) -> None:
    """Show the processes: state, peer id, layers, memory, tokens/s, block height."""
    remote = Remote(home)
    if as_json:
        print_json(remote.status().as_dict())
        return
    console = Console()
    if not watch:
        console.print(table.render(remote.status()))
        return
    with Live(table.render(remote.status()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(table.render(remote.status()), refresh=True)


@devnet.command("logs")
@with_home
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Stay and print what comes, until Ctrl-C.")
def logs(_settings: Settings, home: Home, name: str, follow: bool) -> None:
    """Print the log of a process: chain, relayer, node-1 … or supervisor."""
    known = sorted(path.stem for path in home.log_file("any").parent.glob("*.log"))
    if name not in known:
        raise UserError(f"there is no log of “{name}” in {home.path}", hint=f"there are: {', '.join(known) or 'none'}")
    with home.log_file(name).open(encoding="utf-8", errors="replace") as file:
        while True:
            while text := file.read(1 << 16):
                click.echo(text, nl=False)
            if not follow:
                return
            time.sleep(REFRESH_S)


@devnet.command("story")
@with_home
def story_(_settings: Settings, home: Home) -> None:
    """Tell what became of the texts whose route broke, from the logs of all nodes."""
    names: dict[str, str] = {}
    events: list[story.Event] = []
    for path in sorted(home.log_file("any").parent.glob("node-*.log")):
        with path.open(encoding="utf-8", errors="replace") as file:
            peer, found = story.read(path.stem, file)
        names[peer or path.stem] = path.stem
        events += found
    for line in story.tell(events, names):
        click.echo("".join(each if each.isprintable() else "\ufffd" for each in line))
    if not events:
        click.echo("no text has lost a stage so far")


@devnet.command("kill")
@with_home
@click.argument("name")
def kill(_settings: Settings, home: Home, name: str) -> None:
    """SIGKILL a process, to see what becomes of the rest."""
    Remote(home).kill(name)
    click.echo(f"{name} killed; `p2pos devnet start {name}` brings it back")


@devnet.command("start")
@with_home
@click.argument("name")
def start(_settings: Settings, home: Home, name: str) -> None:
    """Start a process that is down, and wait until it is ready."""
    remote = Remote(home)
    remote.start(name)
    row = next(row for row in remote.status().processes if row.name == name)
    click.echo(f"{name} ready (pid {row.pid})")


@devnet.command("down")
@with_home
def down(_settings: Settings, home: Home) -> None:
    """Take the devnet down; its state stays. Does nothing where none runs."""
    try:
        running(home)
    except UserError:
        click.echo(f"no devnet runs in {home.path}")
        return
    Remote(home).down()
    click.echo(f"the devnet in {home.path} is down; `p2pos devnet up` resumes it")
