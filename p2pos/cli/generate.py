"""`p2pos generate`: continue a text through the swarm, streamed as it comes."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import trio

from p2pos.cli.options import json_option, print_json, swarm_key, with_settings
from p2pos.config import Settings
from p2pos.errors import P2posError, PeerError, UnavailableError, UserError
from p2pos.node import client, visitor
from p2pos.node.client import Generation, ModelFiles
from p2pos.shard import hub, manifest
from p2pos.shard.checkpoint import Checkpoint, is_directory
from p2pos.shard.request import PATIENCE_S, Request
from p2pos.shard.text import TextStream, guarded
from p2pos.types import ModelId, PeerId
from p2pos.wire.messages import Sampling, StageRef

INTERRUPTED = 130
MAX_SOURCES = 8
"""Nodes that are asked for a model's config and tokenizer, one after another."""
CONNECT_S = 5.0
"""Seconds for a connection to one of them."""
MAX_ID_DIGITS = 10
"""Of the largest token id on the wire, 2³¹ - 1; Python itself refuses integers of thousands."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for."""

    prompt: str
    max_tokens: int
    chosen: dict[str, float | int]
    """Fields of `Sampling` that flags gave; the model's author decides the rest."""
    stops: tuple[str, ...]
    ids: bool
    quiet: bool
    """Print nothing as it comes."""
    patience_s: float
    """Seconds to wait for somebody to take a lost node's place."""


@click.command()
@click.argument("prompt")
@with_settings("bootstrap", "swarm_key_file", "model", "offline")
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Stop after this many.")
@click.option("--temperature", type=click.FloatRange(0.0, 100.0), help="0 is greedy. Default: as the model says.")
@click.option("--top-p", type=click.FloatRange(0.0, 1.0, min_open=True), help="Default: as the model says.")
@click.option("--top-k", type=click.IntRange(0, 1 << 20), help="0 keeps all. Default: as the model says.")
@click.option("--repetition-penalty", type=click.FloatRange(0.01, 100.0), help="Default: as the model says.")
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True)
@click.option("--stop", "stops", multiple=True, help="End before this text; may be given several times.")
@click.option(
    "--patience",
    type=click.FloatRange(0.0, 86_400.0),
    default=PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for somebody to take the place of a node that was lost.",
)
@click.option("--ids", is_flag=True, help="PROMPT is token ids, and token ids are printed.")
@json_option
def generate(
    settings: Settings,
    prompt: str,
    max_tokens: int,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    seed: int,
    stops: tuple[str, ...],
    patience: float,
    ids: bool,
    as_json: bool,
) -> int:
    """Continue PROMPT through the swarm. Ctrl-C stops it and frees every stage's cache.

    Where no flag says how to sample, the model's generation_config.json does; where it doesn't either, it is greedy.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as exc:
        raise UserError("the prompt is not UTF-8 text", hint="give text, or token ids with --ids") from exc
    flags = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    chosen = {name: value for name, value in flags.items() if value is not None}
    wish = Wish(prompt, max_tokens, chosen, stops, ids, quiet=as_json, patience_s=patience)
    return trio.run(_main, settings, wish)


async def _main(settings: Settings, wish: Wish) -> int:
    code = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def on_signal() -> None:
                nonlocal code
                async for _ in signals:
                    code = INTERRUPTED
                    nursery.cancel_scope.cancel()
                    return

            nursery.start_soon(on_signal)
            async with visitor.visit(settings.bootstrap, swarm_key=swarm_key(settings)) as swarm:
                answer = await _generate(swarm, settings, wish)
            if wish.quiet:
                print_json(answer)
            nursery.cancel_scope.cancel()
    return code


async def _generate(swarm: visitor.Visitor, settings: Settings, wish: Wish) -> dict[str, Any]:
    # naming a model reads all of it; the connections, and Ctrl-C, don't wait for that
    wanted = await trio.to_thread.run_sync(_model_id, settings, abandon_on_cancel=True)  # type: ignore[call-arg]  # trio-typing knows an older trio
    model = await swarm.find_model(wanted)
    files = await _files(swarm, model)
    stages = swarm.client.routes.choose(model)
    prompt = _prompt_ids(files, wish)
    max_tokens = client.prepare(files, prompt, wish.max_tokens)
    request = Request(tuple(prompt), max_tokens, files.eos, _sampling(files, wish), files.vocabulary, wish.patience_s)
    began_s = trio.current_time()
    async with swarm.client.generate(model, stages, request) as generation:
        answer = await _stream(generation, files, wish, began_s)
    return {"prompt_ids": prompt, **answer, "route": _route(generation.stages)}


async def _files(swarm: visitor.Visitor, model: ModelId) -> ModelFiles:
    """The model's config and tokenizer, from any of its nodes. Raises what the last of them failed with."""
    route = [(each.peer, each.addresses) for each in swarm.client.routes.choose(model)]  # those are the nearest
    serving = [(each.peer, each.addresses) for each in swarm.announcements if each.model == model]
    failed: P2posError = UnavailableError(f"nobody serves the model {model}")
    for peer, addresses in [*route, *serving][:MAX_SOURCES]:
        try:
            await swarm.host.connect(PeerId(peer), addresses, deadline_s=CONNECT_S)
            return await client.fetch_model_files(swarm.host, PeerId(peer), model)
        except (UnavailableError, PeerError) as exc:
            swarm.client.routes.failed(PeerId(peer))
            failed = exc
    raise failed


async def _stream(generation: Generation, files: ModelFiles, wish: Wish, began_s: float) -> dict[str, Any]:
    """Print tokens as they come, and give what `--json` says of them."""
    text = TextStream(files.tokenizer, wish.stops) if files.tokenizer is not None else None
    token_ids: list[int] = []
    shown: list[str] = []
    first_s = last_s = began_s

    def show(piece: str) -> None:
        shown.append(piece)
        if not wish.quiet and not wish.ids:
            sys.stdout.write(piece)
            sys.stdout.flush()

    async for token in generation:
        last_s = trio.current_time()
        first_s = first_s if token_ids else last_s
        token_ids.append(token)
        if wish.ids and not wish.quiet:
            sys.stdout.write(f"{token} ")
            sys.stdout.flush()
        if text is not None:
            show(text.push(token))
            if text.stopped:
                break
    if text is not None:
        show(text.end())
    if not wish.quiet:
        click.echo()
    decode_s = last_s - first_s
    return {
        "token_ids": token_ids,
        "text": "".join(shown),
        "finish_reason": generation.finish_reason or "stop",
        "ttft_ms": round((first_s - began_s) * 1e3, 3),
        "tok_s": round((len(token_ids) - 1) / decode_s, 3) if decode_s > 0 else None,
    }


def _model_id(settings: Settings) -> str:
    """What `--model` means to the swarm: for a directory, and for a revision on a hub, the id of what it holds.

    A hub's model without a revision is the one that the swarm serves by that name.
    """
    named = hub.HubId.parse(settings.model)
    if named is not None and "@" in settings.model and not is_directory(Path(settings.model)):
        # its config and tokenizer are fetched, and what its weights are; not the weights
        return manifest.make(Checkpoint.open(hub.resolve(named, settings.cache, offline=settings.offline))).model_id
    directory = Path(settings.model)
    if not settings.model or not is_directory(directory):
        return settings.model
    checkpoint = Checkpoint.open(directory)
    known = manifest.cached(checkpoint, settings.cache)
    if known is None:
        known = manifest.make(checkpoint)
        manifest.keep(checkpoint, known, settings.cache)
    return known.model_id


def _sampling(files: ModelFiles, wish: Wish) -> Sampling:
    """What the model's author says, under what the person says."""
    author = asdict(files.defaults)
    del author["eos"]
    return Sampling(**author | wish.chosen)


def _prompt_ids(files: ModelFiles, wish: Wish) -> list[int]:
    if wish.ids:
        words = wish.prompt.replace(",", " ").split()
        if not all(word.isdecimal() and len(word) <= MAX_ID_DIGITS for word in words):
            raise UserError("with --ids the prompt is token ids", hint='for example "1 22 333"')
        return [int(word) for word in words]
    if files.tokenizer is None:
        raise UserError("this model has no tokenizer.json", hint="give token ids with --ids")
    tokenizer = files.tokenizer
    return guarded(lambda: list(tokenizer.encode(wish.prompt).ids))


def _route(stages: Sequence[StageRef]) -> list[dict[str, str]]:
    return [{"peer": stage.peer, "layers": f"{stage.start}:{stage.end}"} for stage in stages]
