"""`p2pos swarm`: who serves which layers."""

import time
from typing import Any

import click
import trio

from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.tables import print_table
from p2pos.config import Settings
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.visitor import Visitor, visit
from p2pos.shard.routing import route
from p2pos.wire.messages import Announcement

HEAD = ("node", "model", "layers", "dtype", "weights", "tok/s", "sessions", "cached", "MiB", "RTT ms")


@click.group()
def swarm() -> None:
    """Who serves which layers."""


@swarm.command("status")
@with_settings("bootstrap")
@json_option
def status(settings: Settings, as_json: bool) -> None:
    """Show the nodes of a swarm, their layers, and whether each model is covered."""
    nodes, models = trio.run(_ask, settings)
    if as_json:
        print_json({"nodes": nodes, "models": models})
        return
    if nodes:
        print_table(HEAD, [_row(each) for each in nodes])
    for model in models:
        covered = f"whole, through {model['stages']} nodes" if model["stages"] else model["why"]
        click.echo(f"{_shown(model['model_name'])} ({model['model']}): {covered}")


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"…{node['peer'][-8:]}",  # all ed25519 peer ids begin alike
        _shown(node["model_name"]),
        node["layers"],
        node["dtype"],
        node["dtype"] if node["quantize"] == "none" else node["quantize"],
        f"{node['tokens_per_s']:.1f}",
        str(node["sessions"]),
        str(node["cached_tokens"]),
        f"{node['resident_bytes'] / 2**20:.0f}",
        "–" if node["round_trip_ms"] is None else f"{node['round_trip_ms']:.1f}",
    )


def _shown(name: str) -> str:
    """A stranger's name for a model, without what would steer the terminal."""
    return "".join(each if each.isprintable() else "�" for each in name)


async def _ask(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    async with visit(settings.bootstrap) as visitor:
        announced = sorted(visitor.announcements, key=lambda each: (each.model_name, each.start, each.peer))
        nodes = [_node(each) for each in announced]
        async with trio.open_nursery() as nursery:
            for each, node in zip(announced, nodes, strict=True):
                nursery.start_soon(_time, visitor, each, node)
    return nodes, [_model(announced, model) for model in dict.fromkeys(each.model for each in announced)]


async def _time(visitor: Visitor, each: Announcement, node: dict[str, Any]) -> None:
    """Put the round trip to a node beside what it says of itself; None where it can't be reached from here."""
    try:
        node["round_trip_ms"] = round(await visitor.round_trip_s(each) * 1e3, 2)
    except (UnavailableError, PeerError):
        node["round_trip_ms"] = None


def _node(each: Announcement) -> dict[str, Any]:
    return {
        "peer": each.peer,
        "addresses": list(each.addresses),
        "model": each.model,
        "model_name": each.model_name,
        "layers": f"{each.start}:{each.end}",
        "model_layers": each.layers,
        "dtype": each.dtype,
        "quantize": each.quantize,
        "tokens_per_s": each.tokens_per_s,
        "sessions": each.sessions,
        "cached_tokens": each.cached_tokens,
        "resident_bytes": each.resident_bytes,
        "weight_bytes": each.weight_bytes,
        "expires_in_s": round(each.expires / 1000 - time.time(), 1),
    }


def _model(announced: list[Announcement], model: str) -> dict[str, Any]:
    name = next(each.model_name for each in announced if each.model == model)
    try:
        return {"model": model, "model_name": name, "stages": len(route(announced, model)), "why": ""}
    except UnavailableError as exc:
        return {"model": model, "model_name": name, "stages": 0, "why": exc.message}
