"""`python -m bench NAME --json [--quick] [--device cpu|cuda]`."""

import importlib
import json
import sys
import time

import click

from bench import harness
from p2pos import log
from p2pos.errors import P2posError

BENCHES = (
    "dht",
    "generate",
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
def main(name: str, as_json: bool, quick: bool, device: str) -> None:
    """Run one bench. Progress goes to standard error."""
    log.configure(level="warning")
    machine = harness.machine()
    began_s = time.monotonic()
    figures = harness.Figures()
    try:
        harness.check_device(device)
        repeats = importlib.import_module(f"bench.{name}").run(figures, quick=quick, device=device)
    except P2posError as exc:
        click.echo(f"bench {name}: {exc}", err=True)
        sys.exit(exc.exit_code)
    seconds = round(time.monotonic() - began_s, 1)
    answer = {"name": name, "machine": machine, "repeats": repeats, "seconds": seconds, **figures.values}
    if as_json:
        click.echo(json.dumps(answer))
    else:
        for key, value in answer.items():
            click.echo(f"{key:28} {value}")


main()
