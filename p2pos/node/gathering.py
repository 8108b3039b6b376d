"""Gets an item's descriptor and files from peers: every block verified, what is here not fetched again.

What a file's blocks are is known level by level, from its root; so it takes a few rounds, each of them a `Fetcher`'s.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from p2pos.assets.descriptor import MAX_BYTES, Descriptor, FileRef
from p2pos.content import cid, unixfs
from p2pos.content.exchange import PATIENCE_S
from p2pos.content.store import Store
from p2pos.content.unixfs import Link
from p2pos.errors import UnavailableError, UserError
from p2pos.node.fetcher import Dialler, Fetcher, Sources
from p2pos.node.goods import Blocks
from p2pos.node.node_config import Progress
from p2pos.types import Cid, PeerId

MAX_ROUND = 4096
"""Blocks of one round: their list stays small, and what came before an interruption is soon the larger part."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What came."""

    descriptor: Descriptor
    nbytes: Mapping[PeerId, int]
    """By peer; nothing where all was here."""
    lacking: tuple[str, ...]
    """Roles of files that nobody had whole, or that are not what the descriptor says."""


class Gathering:
    """One item's content, on its way into a store.

    Args:
        host: a running host.
        sources: tells who may have something of it.
        store: where it goes.
        most: bytes of files that may come.
        patience_s: seconds to wait for somebody who has what is lacking.
        progress: given a title and a total of bytes, what to call with each block's bytes.

    """

    def __init__(
        self,
        host: Dialler,
        sources: Sources,
        store: Store,
        *,
        most: int,
        patience_s: float = PATIENCE_S,
        progress: Progress = lambda _title, _total: lambda _: None,
    ) -> None:
        self._host = host
        self._sources = sources
        self._store = store
        self._most = most
        self._patience_s = patience_s
        self._progress = progress
        self._on_bytes: Callable[[int], None] = lambda _: None
        self._sound: set[Cid] = set()
        """Blocks that are here; each is hashed once."""
        self._nbytes: Counter[PeerId] = Counter()

    async def run(self, digest: bytes) -> Gathered:
        """Fetch what isn't here of the item whose descriptor has this digest.

        Raises:
            UnavailableError: nobody has the descriptor.
            UserError: what has this digest is no descriptor, or its files have more than `most` bytes.

        """
        descriptor = await self.descriptor(digest)
        if descriptor.total_bytes > self._most:
            raise UserError(
                f"the files of {descriptor.name} have {descriptor.total_bytes:,} bytes, more than {self._most:,}",
                hint="give --most-mib if you want them",
            )
        self._on_bytes = self._progress(f"fetching {descriptor.name}", descriptor.total_bytes)
        lacking = await self._files(descriptor.files)
        return Gathered(descriptor, dict(self._nbytes), lacking)

    async def descriptor(self, digest: bytes) -> Descriptor:
        """The descriptor alone. Raises as `run`."""
        name = cid.from_digest(digest)
        if not await trio.to_thread.run_sync(self._has, name) and await self._fetch([Link(name, MAX_BYTES, 0)]):
            raise UnavailableError(f"nobody here has the descriptor {name}", hint="ask its issuer for a CAR", cid=name)
        data = self._store.get(name)
        return Descriptor.parse(data or b"", digest)

    async def _files(self, files: Sequence[FileRef]) -> tuple[str, ...]:
        """Fetch what isn't here of these, all of them in each round. Returns the roles of those that can't be had."""
        failed: dict[int, str] = {}
        while True:
            wanted: dict[Cid, Link] = {}
            needs: dict[int, list[Cid]] = {}
            for number, file in enumerate(files):
                if number in failed or len(wanted) >= MAX_ROUND:
                    continue
                try:
                    links = await trio.to_thread.run_sync(self._lacking, file)
                except unixfs.NoFileError:
                    failed[number] = file.role
                    continue
                links = links[:MAX_ROUND]
                needs[number] = [link.cid for link in links]
                wanted |= {link.cid: link for link in links}
            if not wanted:
                return tuple(failed[number] for number in sorted(failed))
            missing = await self._fetch(list(wanted.values()))
            failed |= {number: files[number].role for number, names in needs.items() if missing & set(names)}

    def _lacking(self, file: FileRef) -> list[Link]:
        return unixfs.lacking(Cid(file.cid), file.size, self._has, self._store.get)

    async def _fetch(self, links: list[Link]) -> set[Cid]:
        """Fetch these blocks. Returns those that nobody had."""
        goods = Blocks(self._store, links)
        fetcher = Fetcher(self._host, goods, self._sources, patience_s=self._patience_s, on_bytes=self._on_bytes)
        done = await fetcher.run(range(len(links)))
        self._nbytes.update(done.nbytes)
        missing = {links[number].cid for number in done.lacking}
        self._sound.update(link.cid for link in links if link.cid not in missing)
        return missing

    def _has(self, name: Cid) -> bool:
        if name not in self._sound and self._store.sound(name) is not None:
            self._sound.add(name)
        return name in self._sound
