"""`p2pos devnet up`: the supervisor in the foreground, or in a session of its own."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn, get_args

import click
import trio
from rich.console import Console
from rich.live import Live

from p2pos.cli.devnet_home import REFRESH_S, with_home
from p2pos.cli.main import INTERRUPTED, root_cause
from p2pos.config import Settings
from p2pos.devnet import table, tools
from p2pos.devnet.home import Home
from p2pos.devnet.plan import Request
from p2pos.devnet.processes import ROTATE_BYTES
from p2pos.devnet.status import Devnet
from p2pos.devnet.supervisor import Supervisor
from p2pos.errors import P2posError, UnavailableError, UserError
from p2pos.models import DEFAULT
from p2pos.wire.messages import Quantization

ERRORS = {kind.exit_code: kind for kind in (UserError, UnavailableError)}


@click.command()
@with_home
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes share the model's layers.")
@click.option(
    "--stages",
    type=int,
    default=0,
    help="Spans that the layers are cut into; nodes beyond these hold a span once more. 0: as many as nodes.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False),
    help="A model directory. Default: the one that ships with p2pos.",
)
@click.option(
    "--quantize",
    type=click.Choice(get_args(Quantization)),
    default="none",
    show_default=True,
    help="Nodes hold linear layers in fewer bits.",
)
@click.option("--rpc-url", default="", help="Use the chain at this JSON-RPC end point. Default: start one.")
@click.option("--detach", is_flag=True, help="Return when all is ready, and leave it running.")
@click.option("--as-child", is_flag=True, hidden=True)
def up(
    settings: Settings,
    home: Home,
    nodes: int,
    stages: int,
    model: Path | None,
    quantize: Quantization,
    rpc_url: str,
    detach: bool,
    as_child: bool,
) -> int:
    """Bring up a chain, a relayer and nodes, and stay until Ctrl-C.

    All state lives in the home; `up` again resumes the same chain, wallets and peer ids. With --rpc-url the chain is
    one that is already there, and the wallet `operator` pays for gas on it.
    """
    request = Request(home, settings.cache, nodes, (model or DEFAULT).absolute(), rpc_url, quantize, stages)
    if detach:
        _detach(request)
        return 0
    anvil = functools.partial(tools.find_anvil, settings)
    try:
        supervisor = Supervisor(request, anvil, _report_json if as_child else _report_text)
        trio.run(_stay, supervisor, home, as_child)
    except (P2posError, BaseExceptionGroup) as exc:
        fault = root_cause(exc) if isinstance(exc, BaseExceptionGroup) else exc
        if as_child and isinstance(fault, P2posError):
            _say({"error": fault.as_dict()})
        raise
    return INTERRUPTED if supervisor.interrupted else 0


# ---- up in the foreground


async def _stay(supervisor: Supervisor, home: Home, as_child: bool) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        if supervisor.leaving:
            return
        if as_child:
            _say({"ready": True})
            _let_go_of_stdout(home)
            return
        _print_invitation(home)
        console = Console()
        if not console.is_terminal:
            console.print(table.render(await supervisor.status()))
            return
        nursery.start_soon(_show, supervisor, console)


async def _show(supervisor: Supervisor, console: Console) -> None:
    """A live table until the devnet goes down."""
    with Live(table.render(await supervisor.status()), console=console, auto_refresh=False) as live:
        while not supervisor.leaving:
            with trio.move_on_after(REFRESH_S):
                await supervisor.told_to_leave()
            shown: Devnet = await supervisor.status()
            live.update(table.render(shown), refresh=True)


def _report_text(name: str, what: str) -> None:
    click.echo(f"{name:<10} {what}", err=True)


def _report_json(name: str, what: str) -> None:
    _say({"name": name, "what": what})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)  # noqa: T201 - lines for the process that detached this one


def _let_go_of_stdout(home: Home) -> None:
    """Put standard output into the log, because the process that read it ends now."""
    handle = os.open(home.log_file("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.close(handle)


def _print_invitation(home: Home) -> None:
    click.echo(f"the devnet is up; try: p2pos --home {home.path} asset list")


# ---- up in the background


def _detach(request: Request) -> None:
    """Run `up` as a session of its own, and pass on its progress until it is ready.

    Raises the error that it ended with.
    """
    home = request.home
    command = [sys.executable, "-m", "p2pos", "devnet", "up", "--home", str(home.path), "--nodes", str(request.nodes)]
    command += ["--model", str(request.model), "--rpc-url", request.rpc_url, "--quantize", request.quantize]
    command += ["--stages", str(request.stages), "--as-child"]
    log_file = home.log_file("supervisor")
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if log_file.exists() and log_file.stat().st_size > ROTATE_BYTES:
            log_file.replace(log_file.with_suffix(".log.1"))
        output = log_file.open("ab")
    except OSError as exc:
        raise UserError(f"{home.path} can't be the devnet's home: {exc.strerror}", hint="choose --home") from exc
    with output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    try:
        _pass_on(child, home)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)
        child.wait()
        raise


def _pass_on(child: "subprocess.Popen[str]", home: Home) -> None:
    if child.stdout is None:
        return
    for line in child.stdout:
        message = json.loads(line)
        if message.get("ready"):
            _print_invitation(home)
            click.echo("end it with: p2pos devnet down --home " + str(home.path))
            return
        if "error" in message:
            _raise_as(child.wait(), message["error"])
        _report_text(message["name"], message["what"])
    code = child.wait()
    raise P2posError(f"the supervisor ended with exit code {code}", hint=f"see {home.log_file('supervisor')}")


def _raise_as(code: int, error: dict[str, Any]) -> NoReturn:
    raise ERRORS.get(code, P2posError)(error["message"], hint=error.get("hint", ""))
