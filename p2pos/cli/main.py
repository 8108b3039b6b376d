"""`p2pos NOUN VERB`: the root command, its options, and how an error becomes one line and an exit code."""

import gc
import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from p2pos import __version__, config, log
from p2pos.errors import InternalError, P2posError, UserError

NOUNS = {
    # noun: (module, attribute, its line in `p2pos --help`)
    "asset": ("p2pos.cli.asset", "asset", "Items and currencies: classes, minting, sending, signing."),
    "contact": ("p2pos.cli.contact", "contact", "Names for other people's addresses."),
    "devnet": ("p2pos.cli.devnet", "devnet", "A local network of real processes."),
    "generate": ("p2pos.cli.generate", "generate", "Continue a text through the swarm."),
    "index": ("p2pos.cli.index", "index", "What the chain's events add up to, kept here."),
    "model": ("p2pos.cli.model", "model", "Model manifests, and models from a hub."),
    "node": ("p2pos.cli.node", "node", "The daemon that serves layers."),
    "relayer": ("p2pos.cli.relayer", "relayer", "The service that submits signed intents."),
    "swarm": ("p2pos.cli.swarm", "swarm", "Who serves which layers."),
    "wallet": ("p2pos.cli.wallet", "wallet", "Keystores, watched addresses, external signers."),
}
"""The registry of commands. A module is imported when its noun is used, so that `p2pos wallet` never loads torch."""

SERVICES = ("devnet", "index", "node", "relayer")
"""Nouns whose commands run for long and are watched by their log."""

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@dataclass(frozen=True, slots=True)
class Globals:
    """What stands before the noun."""

    home: Path | None
    log_level: str
    log_json: bool

    def settings(self, **flags: Any) -> config.Settings:
        """The settings of this run; `flags` are the command's own, None where not given."""
        return config.load(home=self.home, **flags)


class Nouns(click.Group):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The nouns, in order."""
        return sorted(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the noun's module, or None where there is no such noun."""
        if cmd_name not in NOUNS:
            return None
        module, attribute, _ = NOUNS[cmd_name]
        # a node's libraries are millions of objects that stay; to search them for garbage takes a sixth of the time
        gc.disable()
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        finally:
            gc.freeze()
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the nouns without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(noun, NOUNS[noun][2]) for noun in sorted(NOUNS)])


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pos")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where state lives (P2POS_HOME). Default: the user's data directory.",
)
@click.option(
    "--log-level",
    type=click.Choice(log.LEVELS),
    help="The least level to log. Default: info for services, warning for the rest.",
)
@click.option("--log-json", is_flag=True, help="Log JSON lines.")
@click.pass_context
def root(ctx: click.Context, home: Path | None, log_level: str | None, log_json: bool) -> None:
    """An operating system whose kernel is a language model, run by a network that nobody owns."""
    level = log_level or ("info" if ctx.invoked_subcommand in SERVICES else "warning")
    log.configure(level=level, as_json=log_json)
    ctx.obj = Globals(home, level, log_json)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 the user's mistake, 3 not reachable, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = root.main(arguments, prog_name="p2pos", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        _report(_usage_error(exc), as_json="--json" in arguments)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except P2posError as exc:
        _report(exc, as_json="--json" in arguments)
        sys.exit(exc.exit_code)
    except BaseExceptionGroup as group:
        fault = root_cause(group)
        if isinstance(fault, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        if isinstance(fault, BrokenPipeError):  # as in `p2pos generate … | head`; click does so outside of groups
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
            sys.exit(1)
        if not isinstance(fault, P2posError):
            raise
        _report(fault, as_json="--json" in arguments)
        sys.exit(fault.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error a person should hear of: the first of ours in the group, else its first leaf."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        exc = pending.pop(0)
        if isinstance(exc, BaseExceptionGroup):
            pending.extend(exc.exceptions)
        else:
            leaves.append(exc)
    ours = [exc for exc in leaves if isinstance(exc, P2posError) and not isinstance(exc, InternalError)]
    return (ours or leaves)[0]


def _usage_error(exc: click.ClickException) -> UserError:
    """What click found wrong with the command line, said as we say things."""
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    hint = f"see {context.command_path} --help" if context else ""
    return UserError(exc.format_message().rstrip("."), hint=hint)


def _report(exc: P2posError, *, as_json: bool) -> None:
    """One line on standard error; with `--json`, the same facts as an object on standard output."""
    line = " ".join(str(exc).split())
    # some of the words may be a peer's, and must not steer the terminal
    shown = "".join(each if each.isprintable() else "\ufffd" for each in line)
    click.echo(f"p2pos: {shown}", err=True)
    if as_json:
        click.echo(json.dumps({"error": exc.as_dict()}, ensure_ascii=False, default=str))
