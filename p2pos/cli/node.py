"""`p2pos node`: the daemon that serves layers."""

import json
import sys
from pathlib import Path
from typing import get_args

import click
import trio

from p2pos.cli.located import located
from p2pos.cli.options import limit_option, swarm_key, with_settings
from p2pos.cli.progress import progress_bars
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.models import DEFAULT
from p2pos.node import daemon, weights
from p2pos.node.guard import read_token
from p2pos.node.node_config import EngineConfig, NodeConfig, Ready
from p2pos.shard import hub
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.session import MAX_SESSIONS
from p2pos.types import LayerSpan
from p2pos.wire.messages import Quantization


@click.group()
def node() -> None:
    """The daemon that serves layers."""


@node.command("run")
@with_settings("model", "offline", "bootstrap", "swarm_key_file", "api_token_file")
@click.option("--layers", default="auto", show_default=True, help="Which layers to serve: A:B, or auto.")
@click.option(
    "--max-layers", type=click.IntRange(0), default=0, help="Of --layers auto: at most so many. 0: as memory allows."
)
@click.option(
    "--memory",
    type=click.IntRange(0),
    default=0,
    metavar="MIB",
    help="Of --layers auto: MiB for weights and caches. 0: most of what is free.",
)
@click.option(
    "--listen", multiple=True, default=["/ip4/127.0.0.1/tcp/0"], show_default=True, help="Multiaddress to listen on."
)
@click.option("--mdns/--no-mdns", default=False, help="Find others, and be found, on the local network.")
@click.option("--api", default="127.0.0.1:0", show_default=True, help="HOST:PORT of the HTTP interface.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "bf16", "f32", "f16"]),
    default="auto",
    show_default=True,
    help="Compute in this. auto: as the weights are stored. All stages of a route have the same.",
)
@click.option(
    "--quantize",
    type=click.Choice(get_args(Quantization)),
    default="none",
    show_default=True,
    help="Hold linear layers in fewer bits. All stages of a route have the same.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads of torch. 0: torch decides.")
@click.option(
    "--cache-tokens",
    type=click.IntRange(1),
    default=65536,
    show_default=True,
    help="Tokens that all sessions' caches may hold together.",
)
@click.option(
    "--cache-memory",
    type=click.IntRange(0),
    default=0,
    metavar="MIB",
    help="MiB that they may take. 0: a quarter of the memory that is free.",
)
@click.option(
    "--engine-url",
    metavar="URL",
    help="Write by an engine that others run (vLLM, SGLang, llama-server, transformers serve): all layers of --model.",
)
@click.option("--engine-model", default="", metavar="NAME", help="The model's name at the engine, where it lists more.")
@click.option(
    "--engine-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file (mode 0600) with the key that the engine wants.",
)
@click.option(
    "--engine-sessions",
    type=click.IntRange(0, MAX_SESSIONS),
    default=0,
    show_default=True,
    help="Texts that the engine is to write at a time. 0: as suits it.",
)
@click.option(
    "--relay/--no-relay",
    default=True,
    show_default=True,
    help="Relay for nodes behind routers, where this one can be dialled itself.",
)
@click.option(
    "--content",
    type=click.Path(path_type=Path, file_okay=False),
    help="A store of items' descriptors and files to give to whoever asks. Default: the home's own.",
)
@click.option("--leash", "leashed", is_flag=True, help="Leave when standard input ends.")
@limit_option("download", "Weights that may come, from peers and hub together.")
@limit_option("upload", "Weights that may go to peers.")
def run(
    settings: Settings,
    layers: str,
    max_layers: int,
    memory: int,
    listen: tuple[str, ...],
    mdns: bool,
    api: str,
    dtype: str,
    quantize: Quantization,
    device: str,
    threads: int,
    cache_tokens: int,
    cache_memory: int,
    engine_url: str | None,
    engine_model: str,
    engine_key_file: Path | None,
    engine_sessions: int,
    relay: bool,
    content: Path | None,
    leashed: bool,
    download_limit: float,
    upload_limit: float,
) -> None:
    """Serve a span of a model's layers until told to stop.

    Prints one line of JSON when it is ready: peer id, addresses, and the HTTP interface's URL. SIGTERM or Ctrl-C
    finishes the sessions under way, says goodbye and leaves.
    """
    model_id = weights.model_id(settings.model)
    if model_id is not None:
        model = located(model_id, settings)
    else:
        model = hub.locate(settings.model, settings.cache, offline=settings.offline) if settings.model else DEFAULT
    config = NodeConfig(
        home=settings.home,
        cache=settings.cache,
        model=model,
        offline=settings.offline,
        layers=None if layers == "auto" else LayerSpan.parse(layers),
        listen=listen,
        bootstrap=settings.bootstrap,
        mdns=mdns,
        swarm_key=swarm_key(settings),
        api=_host_port(api),
        dtype=Checkpoint.open(model).dtype if dtype == "auto" else dtype,
        quantize=quantize,
        device=device,
        threads=threads,
        max_tokens=cache_tokens,
        api_token="" if settings.api_token_file is None else read_token(settings.api_token_file),
        cache_bytes=cache_memory << 20,
        leashed=leashed,
        max_layers=max_layers,
        memory_bytes=memory << 20,
        engine=_engine(engine_url, engine_model, engine_key_file, engine_sessions),
        model_id=model_id,
        download_rate=download_limit * (1 << 20),
        upload_rate=upload_limit * (1 << 20),
        relay=relay,
        content=content or settings.content,
    )

    async def main() -> None:
        with progress_bars() as progress:
            async with trio.open_nursery() as nursery:
                ready: Ready = await nursery.start(daemon.run, config, progress)
                line = {"ready": True, "peer": ready.peer, "addresses": ready.addresses, "api": ready.api}
                click.echo(json.dumps(line))
                sys.stdout.flush()

    trio.run(main)


def _engine(url: str | None, model: str, key_file: Path | None, sessions: int) -> EngineConfig | None:
    if url is None:
        if model or key_file is not None or sessions:
            raise UserError("--engine-… says something of an engine that isn't named", hint="give --engine-url")
        return None
    key = "" if key_file is None else read_token(key_file, option="--engine-key-file", least=1)
    return EngineConfig(url, model, key, sessions)


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and len(port) < 6 and int(port) < 1 << 16):
        raise UserError(f"“{text}” is not HOST:PORT", hint="for example 127.0.0.1:8080")
    return host.strip("[]"), int(port)
