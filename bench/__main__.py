"""`python -m bench NAME --json [--quick] [--device cpu|cuda] [--seconds S]`."""

import importlib
import json
import sys
import time

import click

from bench import harness
from p2pos import log
from p2pos.cli.main import root_cause
from p2pos.errors import InternalError, P2posError, UserError

BENCHES = (
    "churn",
    "descriptor",
    "dht",
    "failover",
    "generate",
    "index",
    "interference",
    "join",
    "parity",
    "peers",
    "pipeline",
    "placement",
    "prefix",
    "relay",
    "roofline",
    "route",
    "streams",
)


@click.command()
@click.argument("name", type=click.Choice(BENCHES))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quick", is_flag=True, help="The smallest honest version, at most 60 s.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seconds", type=click.FloatRange(30.0), help="How long churn goes on.")
def main(name: str, as_json: bool, quick: bool, device: str, seconds: float | None) -> None:
    """Run one bench. Progress goes to standard error."""
    log.configure(level="warning")
    machine = harness.machine()
    began_s = time.monotonic()
    figures = harness.Figures()
    longer = {} if seconds is None else {"seconds": seconds}
    try:
        if longer and name != "churn":
            raise UserError(f"--seconds is not for {name}", hint="it is for churn")
        harness.check_device(device)
        repeats = importlib.import_module(f"bench.{name}").run(figures, quick=quick, device=device, **longer)
    except P2posError as exc:
        click.echo(f"bench {name}: {exc}", err=True)
        sys.exit(exc.exit_code)
    except BaseExceptionGroup as group:
        fault = root_cause(group)
        if not isinstance(fault, P2posError) or isinstance(fault, InternalError):
            raise
        click.echo(f"bench {name}: {fault}", err=True)
        sys.exit(fault.exit_code)
    seconds = round(time.monotonic() - began_s, 1)
    answer = {"name": name, "machine": machine, "repeats": repeats, "seconds": seconds, **figures.values}
    if as_json:
        click.echo(json.dumps(answer))
    else:
        for key, value in answer.items():
            click.echo(f"{key:28} {value}")


main()
