from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from p2pos.assets import library
from p2pos.assets.descriptor import Descriptor
from p2pos.content import cid, unixfs
from p2pos.content.store import Store
from p2pos.errors import UnavailableError, UserError
from p2pos.node.content_service import MAX_REQUEST, ContentService
from p2pos.node.gathering import Gathered, Gathering
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.types import PeerId
from p2pos.wire.messages import CONTENT_PROTOCOL, Block, WireMessage
from tests.assets.items import lantern
from tests.node.test_fetcher import drops

MOST = 10 << 20


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> tuple[Store, Descriptor]:
    """A store with a lantern in it."""
    directory = tmp_path_factory.mktemp("source")
    store = Store(directory / "content")
    return store, lantern(store, directory)


def gather(store: Store, services, digest, *, most=MOST, patience_s=20.0) -> tuple[Gathered, list[PeerId]]:
    """Gather from a real host per service. Returns what came and the hosts' ids, in their order."""

    async def main():
        async with AsyncExitStack() as stack:
            hosts = []
            for service in services:
                host = await stack.enter_async_context(open_host(Identity.new(), ["/ip4/127.0.0.1/tcp/0"]))
                host.serve(CONTENT_PROTOCOL, service.serve, max_frame=MAX_REQUEST)
                hosts.append(host)
            me = await stack.enter_async_context(open_host(Identity.new()))
            sources = {host.peer: host.addresses for host in hosts}
            with trio.fail_after(60):
                done = await Gathering(me, lambda: sources, store, most=most, patience_s=patience_s).run(digest)
            return done, [host.peer for host in hosts]

    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def serving(store: Store) -> ContentService:
    return ContentService({}, store=store)


class Liar(ContentService):
    """Serves each block with one bit flipped."""

    async def _answer(self, message: WireMessage, peer: PeerId) -> tuple[WireMessage, bytes]:
        answer, payload = await super()._answer(message, peer)
        if isinstance(answer, Block) and payload:
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        return answer, payload


def copied(source: Store, target: Store, names) -> Store:
    for name in names:
        target.put(source.get(name), cid.codec(name))
    return target


def test_an_item_comes_whole(tmp_path: Path, source) -> None:
    """Descriptor and files come block by block and are what their author put there."""
    store, descriptor = source
    here = Store(tmp_path / "content")
    service = serving(store)
    done, peers = gather(here, [service], descriptor.digest())
    assert (done.descriptor, done.lacking) == (descriptor, ())
    assert set(here) == set(store)
    assert done.nbytes == {peers[0]: service.sent_bytes} == {peers[0]: sum(len(store.get(name)) for name in store)}
    assert all(library.look(file, here.get).checked for file in descriptor.files)


def test_what_is_here_is_not_fetched_again(tmp_path: Path, source) -> None:
    """After an interruption only the rest is asked for; a block that was damaged on disk counts as the rest."""
    store, descriptor = source
    model = descriptor.files[0]
    leaves = [link.cid for link in unixfs.links_of(store.get(model.cid))]
    here = copied(store, Store(tmp_path / "content"), [descriptor.cid(), model.cid, *leaves[:3]])
    (spoilt,) = (tmp_path / "content").rglob(leaves[0])
    spoilt.write_bytes(b"other")
    service = serving(store)
    done, _ = gather(here, [service], descriptor.digest())
    assert done.lacking == ()
    rest = [leaves[0], leaves[3], *(file.cid for file in descriptor.files[1:])]
    assert service.sent_bytes == sum(len(store.get(name)) for name in rest)
    assert gather(here, [], descriptor.digest())[0].nbytes == {}


def test_peers_that_have_a_part_each_give_theirs(tmp_path: Path, source) -> None:
    """No peer needs to have all of an item."""
    store, descriptor = source
    every = list(store)
    half = copied(store, Store(tmp_path / "one"), every[::2])
    rest = copied(store, Store(tmp_path / "other"), every[1::2])
    here = Store(tmp_path / "content")
    done, peers = gather(here, [serving(half), serving(rest)], descriptor.digest())
    assert done.lacking == ()
    assert set(done.nbytes) == set(peers)
    assert set(here) == set(store)


def test_a_liar_is_dropped_and_named(tmp_path: Path, source, capsys) -> None:
    """Nothing of one who sends other bytes is kept, and what it was asked for comes from another."""
    store, descriptor = source
    here = Store(tmp_path / "content")
    done, peers = gather(here, [Liar({}, store=store), serving(store)], descriptor.digest())
    assert done.lacking == ()
    assert peers[0] not in done.nbytes
    assert set(here) == set(store)
    assert all(peers[0] in line and "sent wrong bytes" in line for line in drops(capsys))


def test_a_liar_alone_gives_nothing(tmp_path: Path, source) -> None:
    """Where nobody else has it, it is said that nobody has it."""
    store, descriptor = source
    with pytest.raises(UnavailableError, match="nobody here has the descriptor"):
        gather(Store(tmp_path / "content"), [Liar({}, store=store)], descriptor.digest(), patience_s=2.0)
    assert list(Store(tmp_path / "content")) == []


def test_files_that_nobody_has_are_named(tmp_path: Path, source) -> None:
    """What can be had comes; the rest is told by its role."""
    store, descriptor = source
    model, image, audio = descriptor.files
    part = copied(store, Store(tmp_path / "part"), [descriptor.cid(), model.cid, image.cid])
    here = Store(tmp_path / "content")
    done, _ = gather(here, [serving(part)], descriptor.digest(), patience_s=2.0)
    assert done.lacking == (model.role, audio.role)
    assert image.cid in here


def test_more_than_was_agreed_to_is_not_fetched(tmp_path: Path, source) -> None:
    """The descriptor says how much there is, and that is too much before a byte of it comes."""
    store, descriptor = source
    service = serving(store)
    with pytest.raises(UserError, match="more than 1,000"):
        gather(Store(tmp_path / "content"), [service], descriptor.digest(), most=1000)
    assert service.sent_bytes == len(descriptor.canonical())


def test_a_descriptor_that_lies_of_a_size_brings_no_more_than_that(tmp_path: Path, source) -> None:
    """Where a file is larger than it says, its root gives it away, and nothing below that is fetched."""
    store, descriptor = source
    model = descriptor.files[0].model_copy(update={"size": 1000})
    lying = Descriptor.make(name="x", files=[model])
    store.put(lying.canonical())
    service = serving(store)
    done, _ = gather(Store(tmp_path / "content"), [service], lying.digest())
    assert done.lacking == ("model",)
    assert service.sent_bytes == len(lying.canonical()) + len(store.get(model.cid))


def test_what_is_no_descriptor_is_said(tmp_path: Path, source) -> None:
    """A digest on chain may be of anything."""
    store, _ = source
    store.put(b"[1, 2]")
    with pytest.raises(UserError, match="not a JSON object"):
        gather(Store(tmp_path / "content"), [serving(store)], cid.digest(cid.of(b"[1, 2]")))
