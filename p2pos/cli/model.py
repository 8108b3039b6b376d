"""`p2pos model`: model manifests, and models from peers and from a hub."""

import importlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from p2pos.cli.located import located
from p2pos.cli.options import json_option, limit_option, print_json, swarm_key, with_settings
from p2pos.cli.progress import Start, progress_bars
from p2pos.config import Settings
from p2pos.content.bucket import Bucket
from p2pos.errors import UserError
from p2pos.node import weights
from p2pos.node.visitor import visit
from p2pos.node.weights import Swarm
from p2pos.shard import hub, manifest, shelf
from p2pos.shard.checkpoint import Checkpoint, TensorInfo
from p2pos.shard.shelf import Shelf
from p2pos.types import LayerSpan

REFRESH_S = 5.0
"""Seconds between two questions who serves the model, while its weights come."""


@click.group()
def model() -> None:
    """Model manifests, and models from peers and from a hub."""


@model.command("pin")
@click.argument("directory", type=click.Path(path_type=Path))
@with_settings()
@json_option
def pin(settings: Settings, directory: Path, as_json: bool) -> None:
    """Name the model in DIRECTORY by its content, and keep the manifest.

    Reads every byte once. The name is a CID: equal weights, config and tokenizer have equal names on every machine, and
    who joins by that name gets the weights from its peers.
    """
    checkpoint = Checkpoint.open(directory)
    with progress_bars() as progress:
        on_bytes = progress(f"reading {checkpoint.name}", checkpoint.total_bytes)
        made = manifest.make_by_content(checkpoint, on_bytes=on_bytes)
    path = manifest.keep(checkpoint, made, settings.cache)
    if as_json:
        chunks = made.chunks().total
        size = checkpoint.total_bytes
        print_json({"model": made.model_id, "directory": directory, "manifest": path, "bytes": size, "chunks": chunks})
    else:
        click.echo(f"{made.model_id}  {directory}  ({checkpoint.total_bytes:,} bytes of weights)")


@model.command("list")
@with_settings()
@json_option
def list_(settings: Settings, as_json: bool) -> None:
    """List the models on this machine: those that were pinned, and those from peers or a hub, if only in part."""
    listed: list[dict[str, Any]] = [
        {"model": known, "directory": directory} for known, directory in manifest.pinned(settings.cache)
    ]
    for each in (*shelf.kept(settings.cache), *hub.kept(settings.cache)):
        lacking = _lacking_bytes(each)
        entry = {"model": manifest.make(each).model_id, "directory": str(each.directory), "name": each.name}
        listed.append({**entry, "bytes": each.total_bytes, "lacking_bytes": lacking})
    if as_json:
        print_json(listed)
        return
    for entry in listed:
        part = f"  ({entry['lacking_bytes']:,} bytes lack)" if entry.get("lacking_bytes") else ""
        click.echo(f"{entry['model']}  {entry['directory']}{part}")


def _lacking_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of the weights of a model from peers, or from a hub, that aren't here."""
    if checkpoint.fetched is not None:
        chunks = checkpoint.fetched.chunks
        return sum(chunks.size(chunk) for chunk in checkpoint.fetched.lacking(checkpoint.tensors))
    if checkpoint.partial is not None:
        places = [(each.file, each.offset, each.nbytes) for each in checkpoint.tensors.values()]
        return sum(end - begin for _, begin, end in checkpoint.partial.lacking(places))
    return 0


@model.command("fetch")
@click.argument("name", metavar="CID|ORG/NAME[@REVISION]")
@click.option("--layers", help="Only what these layers need: A:B. Default: all of them.")
@with_settings("offline", "bootstrap", "swarm_key_file")
@limit_option("download", "Weights that may come.")
@json_option
def fetch(settings: Settings, name: str, layers: str | None, download_limit: float, as_json: bool) -> None:
    """Fetch a model, or only what some of its layers need: by its id from peers, by its name from a hub.

    What is here already is not fetched again. HF_ENDPOINT names another hub than huggingface.co, HF_TOKEN says who you
    are.
    """
    span = None if layers is None else LayerSpan.parse(layers)
    model_id, found = weights.model_id(name), hub.HubId.parse(name)
    rate = download_limit * (1 << 20)
    if model_id is not None:
        directory = located(model_id, settings)
    elif found is not None:
        directory = hub.resolve(found, settings.cache, offline=settings.offline)
    else:
        raise UserError(
            f"“{name[:200]}” is neither a model's id nor its name on a hub",
            hint="for example Qwen/Qwen3-0.6B, or what `p2pos swarm status` shows",
        )
    checkpoint = Checkpoint.open(directory)
    # only here, because it loads torch, which the other commands can do without
    wanted: list[TensorInfo] = importlib.import_module("p2pos.shard.stage").needed(checkpoint, span)
    with progress_bars() as progress:
        if checkpoint.fetched is not None:
            fetched = trio.run(_from_peers, settings, checkpoint, wanted, rate, progress)
        else:
            pace = partial(_paced, progress, rate)
            fetched = hub.fetch(checkpoint, wanted, offline=settings.offline, progress=pace)
    answer = {
        "model": model_id or manifest.make(checkpoint).model_id,
        "directory": checkpoint.directory,
        "fetched_bytes": fetched,
        "needed_bytes": sum(tensor.nbytes for tensor in wanted),
    }
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['model']}  {answer['directory']}  ({fetched:,} bytes fetched)")


def _paced(progress: Start, rate: float, title: str, total: int) -> Callable[[int], None]:
    return weights.paced(progress(title, total), rate, threading.Event())


async def _from_peers(
    settings: Settings, checkpoint: Checkpoint, wanted: Sequence[TensorInfo], rate: float, progress: Start
) -> int:
    target = Shelf(checkpoint, manifest.make(checkpoint))
    fill: dict[str, Any] = {"cache": settings.cache, "offline": settings.offline, "progress": progress}
    if not target.lacking(wanted) or settings.offline or not settings.bootstrap:
        return await weights.fill(None, target, wanted, **fill)
    async with visit(settings.bootstrap, swarm_key=swarm_key(settings)) as visitor, trio.open_nursery() as nursery:

        async def refresh() -> None:
            while True:
                await trio.sleep(REFRESH_S)
                await visitor.refresh()

        nursery.start_soon(refresh)
        swarm = Swarm(visitor.host, lambda: visitor.announcements, Bucket(rate), visitor.find)
        fetched = await weights.fill(swarm, target, wanted, **fill)
        nursery.cancel_scope.cancel()
    return fetched
