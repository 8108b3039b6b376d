"""`p2pos model`: model manifests, and models from a hub."""

import importlib
from pathlib import Path

import click

from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.progress import progress_bars
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.shard import hub, manifest
from p2pos.shard.checkpoint import Checkpoint
from p2pos.types import LayerSpan


@click.group()
def model() -> None:
    """Model manifests, and models from a hub."""


@model.command("pin")
@click.argument("directory", type=click.Path(path_type=Path))
@with_settings()
@json_option
def pin(settings: Settings, directory: Path, as_json: bool) -> None:
    """Name the model in DIRECTORY by its content, and keep the manifest.

    Reads every byte once. The name is a CID: equal weights, config and tokenizer have equal names on every machine.
    """
    checkpoint = Checkpoint.open(directory)
    with progress_bars() as progress:
        made = manifest.make(checkpoint, on_bytes=progress(f"reading {checkpoint.name}", checkpoint.total_bytes))
    path = manifest.keep(checkpoint, made, settings.cache)
    if as_json:
        print_json({"model": made.model_id, "directory": directory, "manifest": path, "bytes": checkpoint.total_bytes})
    else:
        click.echo(f"{made.model_id}  {directory}  ({checkpoint.total_bytes:,} bytes of weights)")


@model.command("list")
@with_settings()
@json_option
def list_(settings: Settings, as_json: bool) -> None:
    """List the models that were pinned on this machine, and those from a hub that are here, if only in part."""
    pinned = manifest.pinned(settings.cache)
    pinned += [(manifest.make(each).model_id, str(each.directory)) for each in hub.kept(settings.cache)]
    if as_json:
        print_json([{"model": model_id, "directory": directory} for model_id, directory in pinned])
    for model_id, directory in () if as_json else pinned:
        click.echo(f"{model_id}  {directory}")


@model.command("fetch")
@click.argument("name", metavar="ORG/NAME[@REVISION]")
@click.option("--layers", help="Only what these layers need: A:B. Default: all of them.")
@with_settings("offline")
@json_option
def fetch(settings: Settings, name: str, layers: str | None, as_json: bool) -> None:
    """Fetch a model from a hub, or only what some of its layers need.

    What is here already is not fetched again. HF_ENDPOINT names another hub than huggingface.co, HF_TOKEN says who you
    are.
    """
    found = hub.HubId.parse(name)
    if found is None:
        raise UserError(f"“{name[:200]}” is not a model's name on a hub", hint="for example Qwen/Qwen3-0.6B")
    span = None if layers is None else LayerSpan.parse(layers)
    checkpoint = Checkpoint.open(hub.resolve(found, settings.cache, offline=settings.offline))
    # only here, because it loads torch, which the other commands can do without
    wanted = importlib.import_module("p2pos.shard.stage").needed(checkpoint, span)
    with progress_bars() as progress:
        fetched = hub.fetch(checkpoint, wanted, offline=settings.offline, progress=progress)
    answer = {
        "model": manifest.make(checkpoint).model_id,
        "directory": checkpoint.directory,
        "fetched_bytes": fetched,
        "needed_bytes": sum(tensor.nbytes for tensor in wanted),
    }
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['model']}  {answer['directory']}  ({fetched:,} bytes fetched)")
