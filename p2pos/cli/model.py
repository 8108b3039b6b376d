"""`p2pos model`: model manifests."""

from pathlib import Path

import click

from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.progress import progress_bars
from p2pos.config import Settings
from p2pos.shard import manifest
from p2pos.shard.checkpoint import Checkpoint


@click.group()
def model() -> None:
    """Model manifests."""


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
    """List the models that were pinned on this machine."""
    pinned = manifest.pinned(settings.cache)
    if as_json:
        print_json([{"model": model_id, "directory": directory} for model_id, directory in pinned])
    for model_id, directory in () if as_json else pinned:
        click.echo(f"{model_id}  {directory}")
