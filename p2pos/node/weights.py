"""How a model that is named by its content comes here: from the disk, from peers, or from the hub where no peer has it.

First what the model is (`locate`): its manifest and side files, checked against its id; then of the weights what is
needed (`fill`), chunk by chunk.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pos import log
from p2pos.content import cid
from p2pos.content.bucket import Bucket
from p2pos.content.exchange import PATIENCE_S
from p2pos.errors import P2posError, PeerError, UnavailableError, UserError
from p2pos.node.content_service import fetch, fetch_digests
from p2pos.node.fetcher import Fetcher
from p2pos.node.goods import Weights
from p2pos.node.host import Host
from p2pos.node.metrics import Metrics
from p2pos.node.node_config import Progress
from p2pos.node.vetting import vet
from p2pos.node.visitor import Visitor, visit
from p2pos.shard import checkpoint as local
from p2pos.shard import hub, hub_chunks, manifest, shelf
from p2pos.shard.checkpoint import Checkpoint, TensorInfo
from p2pos.shard.hub import HubId
from p2pos.shard.manifest import Manifest
from p2pos.shard.shelf import Shelf
from p2pos.types import Cid, ModelId, PeerId
from p2pos.wire.messages import Announcement

HUB_PATIENCE_S = 2.0
"""Seconds to wait for a peer where the hub may have what is lacking; else `PATIENCE_S`."""
MAX_ASKED = 16
"""Peers that are asked for a manifest, one after the other."""
MAX_SIDE_FILES = 256 << 20
"""Bytes of a model's side files together; the largest tokenizer in use has 34 MB."""
REPORT_S = 10.0
"""Seconds between two lines of the log that say how far a fetch is."""

_log = log.get("weights")


@dataclass(frozen=True, slots=True)
class Swarm:
    """Where weights may come from besides the disk."""

    host: Host
    known: Callable[[], Sequence[Announcement]]
    """What is believed of the swarm now."""
    download: Bucket = field(default_factory=lambda: Bucket(0))
    """The cap on what is asked for; its clock is trio's."""
    find: Callable[[str], Awaitable[object]] | None = None
    """Looks up who serves a model, so that `known` has it, where nobody known does."""

    def sources(self, model: ModelId) -> dict[PeerId, Sequence[str]]:
        """Who may have the weights of a model: those who announce it."""
        return {
            PeerId(each.peer): each.addresses
            for each in self.known()
            if each.model == model and each.peer != self.host.peer and not each.goodbye
        }


def model_id(text: str) -> ModelId | None:
    """The model that `--model` names by its id; None where it is a directory, or anything else."""
    return ModelId(text) if shelf.is_model_id(text) and not local.is_directory(Path(text)) else None


def here(model: ModelId, cache: Path) -> Path | None:
    """The directory on this machine that has the model: one that was pinned, or one from peers.

    Raises UserError where that one is damaged.
    """
    for pinned, directory in manifest.pinned(cache):
        if pinned == model:
            try:
                known = manifest.cached(Checkpoint.open(Path(directory)), cache)
            except UserError:
                continue  # it is gone, or has changed into something else
            if known is not None and known.model_id == model:
                return Path(directory)
    if not shelf.is_here(cache, model):
        return None
    found = shelf.open_home(cache, model)
    known = manifest.make(found)
    files = {name: cid.of(path.read_bytes()) for name, path in found.side_files().items()}
    if known.model_id != model or files != known.files:
        raise UserError(f"{found.directory} is damaged", hint=f"remove it and run `p2pos model fetch {model}` again")
    return found.directory


async def locate(
    model: ModelId, bootstrap: Sequence[str], cache: Path, *, offline: bool, swarm_key: bytes | None = None
) -> Path:
    """The directory of a model by its id, laid out where it isn't here: all of it but the weights.

    Raises UserError where it isn't here and nobody may be asked, UnavailableError where nobody has it.
    """
    found = await trio.to_thread.run_sync(here, model, cache)
    if found is not None:
        return found
    if offline:
        raise UserError(f"the model {model} is not here", hint=f"p2pos model fetch {model}, while online")
    if not bootstrap:
        raise UserError(f"the model {model} is not here", hint="give --bootstrap, to get it from peers")
    async with visit(bootstrap, swarm_key=swarm_key) as visitor:
        return await _lay_out(visitor, model, cache)


async def _lay_out(visitor: Visitor, model: ModelId, cache: Path) -> Path:
    """Ask those who serve a model, one after the other, for all of it but the weights."""
    if all(each.model != model for each in visitor.announcements):
        await visitor.find(model)
    serving = [each for each in visitor.announcements if each.model == model]
    if not serving:
        raise UnavailableError(f"nobody serves the model {model}", hint="see `p2pos swarm status`")
    failed: P2posError = UnavailableError(f"nobody gave the model {model}")
    for each in serving[:MAX_ASKED]:
        peer = PeerId(each.peer)
        try:
            await visitor.host.connect(peer, each.addresses)
            return await _from_one(visitor.host, peer, model, each.model_name, cache)
        except PeerError as exc:
            _log.warning("dropped a peer", peer=peer, why=exc.message)
            failed = exc
        except UnavailableError as exc:
            _log.debug("a peer did not give the model", peer=peer, why=exc.message)
            failed = exc
    raise failed


async def _from_one(host: Host, peer: PeerId, model: ModelId, name: str, cache: Path) -> Path:
    data = (await fetch(host, peer, [Cid(model)]))[Cid(model)]
    made = await trio.to_thread.run_sync(lambda: Manifest.from_bytes(data, peer=peer))
    if not made.by_content:
        return await trio.to_thread.run_sync(_from_hub, model, name, cache)
    blocks = await _side_files(host, peer, made)
    leaves = await fetch_digests(host, peer, model)
    return await trio.to_thread.run_sync(lambda: shelf.lay_out(cache, made, leaves, blocks, name, peer=peer))


async def _side_files(host: Host, peer: PeerId, made: Manifest) -> dict[Cid, bytes]:
    """The side files of a manifest. Raises PeerError where they are too large, or the tokenizer isn't fit for use."""
    blocks: dict[Cid, bytes] = {}
    files = shelf.side_files(made, peer=peer)
    for wanted in sorted(set(files.values())):
        blocks |= await fetch(host, peer, [wanted])
        if sum(map(len, blocks.values())) > MAX_SIDE_FILES:
            raise PeerError(peer, f"has side files of more than {MAX_SIDE_FILES:,} bytes")
    if "tokenizer.json" in files:
        await vet(blocks[files["tokenizer.json"]], peer=peer)
    return blocks


def _from_hub(model: ModelId, name: str, cache: Path) -> Path:
    """The directory of a model that a hub's digests name, by the repository that it is said to be.

    Raises UnavailableError where that is another one.
    """
    named = HubId.parse(name)
    if named is None:
        raise UnavailableError(f"the weights of {model} come from a hub, and nobody says which model there it is")
    directory = hub.resolve(named, cache, offline=False)
    if manifest.make(Checkpoint.open(directory)).model_id != model:
        raise UnavailableError(
            f"{name} on the hub is another model than {model} by now", hint=f"give --model {name}@COMMIT"
        )
    return directory


async def fill(
    swarm: Swarm | None,
    target: Shelf,
    tensors: Iterable[TensorInfo],
    *,
    cache: Path,
    offline: bool,
    progress: Progress,
    metrics: Metrics | None = None,
) -> int:
    """Fetch what isn't here of some tensors of a model from peers; and from the hub what none of these has.

    Args:
        swarm: whom to ask; None for nobody.
        target: where the chunks go.
        tensors: those that are wanted.
        cache: where models are kept.
        offline: only see whether all is here.
        progress: given a title and the bytes that are to come, what to call with each chunk's bytes.
        metrics: count what comes.

    Returns:
        Bytes that came.

    Raises:
        UserError: `offline` and not all of it is here; or there is no room.
        UnavailableError: nobody has it.

    """
    lacking = target.lacking(tensors)
    if not lacking:
        return 0
    total = target.check_room(lacking)
    name = target.checkpoint.name
    if offline:
        raise UserError(
            f"{total:,} bytes of {name} that this needs are not here",
            hint=f"p2pos model fetch {target.model}, while online",
        )
    on_hub = HubId.parse(name) is not None
    meter = _Meter(progress(f"fetching {name}", total), total)
    came: Mapping[PeerId, int] = {}
    _log.info("fetching what isn't here", model=name, bytes=total, chunks=len(lacking))
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.report)
        if swarm is not None:
            if swarm.find is not None and not swarm.sources(target.model):
                await swarm.find(target.model)
            patience_s = HUB_PATIENCE_S if on_hub else PATIENCE_S
            sources = lambda: swarm.sources(target.model)  # noqa: E731 - one line, used once
            fetcher = Fetcher(
                swarm.host, Weights(target), sources, download=swarm.download, patience_s=patience_s, on_bytes=meter.add
            )
            done = await fetcher.run(lacking)
            came, lacking = done.nbytes, list(done.lacking)
        from_hub = await _from_hub_too(swarm, target, lacking, cache, meter) if lacking and on_hub else 0
        nursery.cancel_scope.cancel()
    if metrics is not None:
        metrics.fetched("peers", sum(came.values()))
        metrics.fetched("hub", from_hub)
    if lacking and not on_hub:
        raise UnavailableError(
            f"nobody here has {len(lacking):,} of {target.chunks.total:,} chunks of {name} that this needs",
            hint="what came is kept; start a node that has the whole model, and try again",
            lacking=len(lacking),
        )
    seconds = trio.current_time() - began_s
    _log.info("fetched", bytes=meter.done, peers=dict(came), hub_bytes=from_hub, seconds=round(seconds, 2))
    return meter.done


async def _from_hub_too(swarm: Swarm | None, target: Shelf, lacking: list[int], cache: Path, meter: "_Meter") -> int:
    """Fetch from the hub what no peer has, within the same cap. Raises what `hub_chunks.fill` does."""
    _log.info("no peer has the rest; asking the hub", model=target.checkpoint.name, chunks=len(lacking))
    stop = threading.Event()
    pace = paced(meter.add, swarm.download.rate if swarm is not None else 0, stop)
    try:
        return await trio.to_thread.run_sync(
            lambda: hub_chunks.fill(target, lacking, cache, on_bytes=pace, stop=stop),
            abandon_on_cancel=True,  # type: ignore[call-arg]  # trio-typing knows an older trio
        )
    finally:
        stop.set()


def paced(on_bytes: Callable[[int], None], rate: float, stop: threading.Event) -> Callable[[int], None]:
    """What a thread that fetches is to call with the bytes of each piece, so that it keeps to a cap.

    Args:
        on_bytes: told of them.
        rate: bytes per second; 0 for no cap.
        stop: when set, by another thread, it waits no longer.

    """
    bucket = Bucket(rate)

    def add(nbytes: int) -> None:
        on_bytes(nbytes)
        now_s = time.monotonic()
        bucket.take(nbytes, now_s)
        stop.wait(max(0.0, bucket.free_s(now_s) - now_s))

    return add


class _Meter:
    """Counts what comes, and says in the log how far it is."""

    def __init__(self, on_bytes: Callable[[int], None], total: int) -> None:
        self.done = 0
        self._on_bytes = on_bytes
        self._total = total

    def add(self, nbytes: int) -> None:
        self.done += nbytes
        self._on_bytes(nbytes)

    async def report(self) -> None:
        while True:
            await trio.sleep(REPORT_S)
            _log.info("fetching", bytes=self.done, of=self._total)
