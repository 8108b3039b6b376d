"""A libp2p host: an identity that listens, dials, and serves protocols. The one wrapper of the library.

Only noise and TLS secure a connection (the library's default takes plaintext, over which anyone can be anyone)
and only yamux carries streams (mplex lets a stranger end the process). Noise comes first: as fast as TLS per
message here, twice as fast to connect, and the library's TLS reaches into the interpreter's own structures.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import trio
from libp2p.connection_types import ConnectionType
from libp2p.exceptions import BaseLibp2pError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.rcmgr import Direction

from p2pos import log
from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.node import addresses as multiaddresses
from p2pos.node import libp2p_host, libp2p_yamux
from p2pos.node.conduct import Conduct
from p2pos.node.dialling import Dialler, Failures
from p2pos.node.identity import Identity
from p2pos.node.notifier import Notifier
from p2pos.node.pipes import Pipe, RawHandler
from p2pos.node.streams import CLOSE_DEADLINE_S, FrameStream, Traffic, fault_of
from p2pos.types import PeerId
from p2pos.wire import framing

MAX_ADDRESSES = 16
"""Addresses tried of one peer, as many as an announcement holds."""
OPEN_S = libp2p_yamux.STALL_S + 1.0
"""For the frame that opens a stream, which ends its connection where it can't leave."""
Handler = Callable[[FrameStream], Awaitable[None]]

_log = log.get("host")


class Connection(NamedTuple):
    """A connection that is open."""

    relayed: bool
    dialled: bool
    """Whether it was this host that began it."""
    remote: tuple[str, int] | None
    """IP address and port of its other end, where that is known."""
    close: Callable[[], Awaitable[None]]


class Host:
    """A running host. Made by `open_host`."""

    def __init__(self, identity: Identity, host: Any) -> None:
        self.peer = identity.peer
        self.traffic: dict[str, Traffic] = {}
        """What passed over each protocol that this program speaks in frames."""
        self.listening: tuple[str, ...] = ()
        """Where it listens: real ports, `/p2p/` at the end. Empty for a pure client."""
        self.learned: tuple[str, ...] = ()
        """Where else it can be dialled, as whoever `learn`s it found out while it runs."""
        self._host = host
        self._network = host.get_network()
        self._dialling: WeakValueDictionary[PeerId, trio.Lock] = WeakValueDictionary()
        self.dialler = Dialler(host, self)
        """For those who dial otherwise than `connect` does."""
        self._on_learn: list[Callable[[], None]] = []
        self._keepers: list[Callable[[], Collection[PeerId]]] = []
        self._on_connect: list[Callable[[PeerId], None]] = []
        self._on_direct: list[Callable[[PeerId], None]] = []
        self._on_disconnect: list[Callable[[PeerId], None]] = []
        self._conduct = Conduct()
        self._network.register_notifee(Notifier(self._connected, self._disconnected))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can dial it now."""
        return (*self.listening[: MAX_ADDRESSES - len(self.learned)], *self.learned)

    async def connect(self, peer: PeerId, addresses: Sequence[str], *, deadline_s: float = 10.0) -> None:
        """Have a connection to this peer, over whichever of its addresses answers first.

        Raises UnavailableError where none does in time, and PeerError for a peer id or an address that is none.
        """
        if banned_s := self.banned_s(peer):
            raise UnavailableError(f"peer {peer} is banned for {banned_s:.0f} s more", peer=peer)
        targets = [multiaddresses.dialable(text, peer) for text in addresses[:MAX_ADDRESSES]]
        lock = self._dialling.setdefault(peer, trio.Lock())
        why = Failures()
        with trio.move_on_after(deadline_s):
            async with lock:
                if not self.joined(peer):
                    await self.dialler.race(peer, targets, why)
        if not self.joined(peer):
            unreached = f"does not answer at any of its {len(targets)} addresses"
            known = unreached if targets else "is not connected, and none of its addresses is known"
            raise UnavailableError(
                f"peer {peer} {known}", peer=peer, addresses=list(addresses), why=list(why), strange=why.strange
            )

    async def connect_to(self, address: str, *, deadline_s: float = 10.0) -> PeerId:
        """Connect to the peer that a multiaddress names at its end, `/p2p/…`; returns its id.

        Raises UserError for anything else, UnavailableError where nobody or somebody else answers there.
        """
        peer = multiaddresses.peer_of(address)
        try:
            await self.connect(peer, [address], deadline_s=deadline_s)
        except UnavailableError as exc:
            why = exc.fields.get("why", [])
            if exc.fields.get("strange"):
                raise UnavailableError(
                    f"whoever answers at {address} is in another swarm",
                    hint="is it a node, and does it have the same --swarm-key-file?",
                    address=address,
                    why=why,
                ) from exc
            raise UnavailableError(
                f"nobody answers at {address}",
                hint="is that node running, and is this its peer id?",
                address=address,
                why=why,
            ) from exc
        return peer

    def serve(self, protocol: str, handler: Handler, *, max_frame: int = framing.MAX_FRAME) -> None:
        """Have `handler` called with each stream that a peer opens for this protocol.

        The stream is closed when the handler returns and reset when it raises; what it raises is logged and ends
        nothing else.

        Args:
            protocol: its id.
            handler: takes the stream.
            max_frame: bytes of the largest frame that a peer may send; each stream can hold as much memory.

        """
        traffic = self.traffic.setdefault(protocol, Traffic())

        async def framed(peer: PeerId, stream: Pipe) -> None:
            frames = FrameStream(peer, stream, max_frame=max_frame, traffic=traffic)
            await handler(frames)
            await frames.finish()

        self.serve_raw(protocol, framed)

    def serve_raw(self, protocol: str, handler: RawHandler) -> None:
        """As `serve`, for protocols that cut their streams in another way than ours.

        A `PeerError` that the handler raises for the peer at the other end counts against it, see `offended`.
        """

        async def handle(net_stream: Any) -> None:
            peer = PeerId(str(net_stream.muxed_conn.peer_id))
            stream = Pipe(net_stream)
            if self.banned_s(peer):
                await stream.reset()
                await self.disconnect(peer)
                return
            try:
                await handler(peer, stream)
            except Exception as exc:  # noqa: BLE001 - a handler's fault ends its stream, not the host
                await _reset(stream)
                fault = fault_of(exc)
                if fault is None:
                    _log.exception("a handler failed", protocol=protocol, peer=peer)
                    return
                _log.info("dropped a stream", protocol=protocol, peer=peer, why=str(fault))
                if isinstance(fault, PeerError) and fault.peer in {peer, ""}:
                    await self.offended(peer, fault)
            except BaseException:
                await _reset(stream)
                raise

        self._host.set_stream_handler(protocol, handle)

    async def offended(self, peer: PeerId, fault: PeerError) -> None:
        """Hold a fault against a peer: the first few are forgiven, after that it is cut off for a growing while."""
        ban_s = self._conduct.offended(peer, trio.current_time())
        if ban_s:
            _log.warning("banned a peer", peer=peer, seconds=round(ban_s), why=str(fault))
            await self.disconnect(peer)

    def banned_s(self, peer: PeerId) -> float:
        """Seconds that a peer stays banned for; 0 where it isn't."""
        return self._conduct.banned(peer, trio.current_time())

    def stop_serving(self, protocol: str) -> None:
        """Answer that this protocol is not spoken from now on; streams that are open stay."""
        self._host.remove_stream_handler(protocol)

    async def open(
        self, peer: PeerId, protocol: str, *, deadline_s: float = 10.0, max_frame: int = framing.MAX_FRAME
    ) -> FrameStream:
        """Open a stream to a peer that is connected, past any relay where there is a way.

        It may send frames of `max_frame` bytes at most.

        Raises UnavailableError where it isn't, or not any more, and PeerError where it does not speak the protocol.
        """
        pipe = await self.open_raw(peer, protocol, deadline_s=deadline_s)
        return FrameStream(peer, pipe, max_frame=max_frame, traffic=self.traffic.setdefault(protocol, Traffic()))

    async def open_raw(self, peer: PeerId, protocol: str, *, deadline_s: float = 10.0) -> Pipe:
        """As `open`, for protocols that cut their streams in another way than ours."""
        peer_id = multiaddresses.library_id(peer)
        if not self.joined(peer):
            raise UnavailableError(f"peer {peer} is not connected", peer=peer)
        try:
            with trio.fail_after(deadline_s):
                return Pipe(await self._negotiated(peer_id, protocol))
        except trio.TooSlowError:
            raise UnavailableError(f"peer {peer} did not answer in {deadline_s:g} s", peer=peer) from None
        except MultiselectClientError as exc:
            if self.joined(peer):
                raise PeerError(peer, f"does not speak {protocol}", protocol=protocol) from exc
            raise UnavailableError(f"the connection to peer {peer} is gone", peer=peer) from exc
        except (BaseLibp2pError, OSError) as exc:
            raise UnavailableError(f"the connection to peer {peer} is gone", peer=peer) from exc

    def on_connect(self, callback: Callable[[PeerId], None]) -> None:
        """Have `callback` called with the peer of each connection that begins."""
        self._on_connect.append(callback)

    def on_direct(self, callback: Callable[[PeerId], None]) -> None:
        """Have `callback` called with each peer that a relay joined us to, and that is now connected without one."""
        self._on_direct.append(callback)

    def on_disconnect(self, callback: Callable[[PeerId], None]) -> None:
        """Have `callback` called with each peer whose last connection ends."""
        self._on_disconnect.append(callback)

    def connected(self) -> frozenset[PeerId]:
        """The peers that a connection is open to."""
        return frozenset(
            PeerId(str(peer))
            for peer, connections in self._network.connections.items()
            if any(_alive(connection) for connection in connections)
        )

    def learn(self, addresses: tuple[str, ...]) -> None:
        """Have these be where else this host can be dialled, and those told who wait for such news."""
        self.learned = addresses
        for callback in self._on_learn:
            callback()

    def on_learn(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when `addresses` has changed."""
        self._on_learn.append(callback)

    def keep(self, peers: Callable[[], Collection[PeerId]]) -> None:
        """Never count those that `peers` returns as idle: their connection is of use without a stream."""
        self._keepers.append(peers)

    def idle(self) -> frozenset[PeerId]:
        """The connected peers to whom no stream is open, but for those that are kept."""
        kept = {peer for keeper in self._keepers for peer in keeper()}
        return frozenset(
            PeerId(str(peer))
            for peer, connections in self._network.connections.items()
            if connections and not any(each.muxed_conn.streams for each in connections)
        ).difference(kept)

    def joined(self, peer: PeerId) -> bool:
        """Whether a connection to this peer is open. Raises PeerError where it is no peer id."""
        peer_id = multiaddresses.library_id(peer)
        return any(_alive(connection) for connection in self._network.get_connections(peer_id))

    def connections(self, peer: PeerId) -> list[Connection]:
        """The connections that are open to a peer."""
        return [
            Connection(
                each.get_connection_type() == ConnectionType.RELAYED,
                each.direction == Direction.OUTBOUND,
                each.muxed_conn.get_remote_address(),
                each.close,
            )
            for each in self._network.get_connections(multiaddresses.library_id(peer))
            if _alive(each)
        ]

    async def disconnect(self, peer: PeerId) -> None:
        """Close every connection to this peer."""
        await self._network.close_peer(multiaddresses.library_id(peer))

    async def listen(self, address: str) -> None:
        """Listen at this multiaddress too; its port may be 0 for any.

        Raises UserError where the address is not one of TCP or can't be listened on.
        """
        wanted = multiaddresses.listenable(address)
        if str(wanted) in self._network.listeners:
            return
        if not await self._network.listen(wanted):
            raise UserError(multiaddresses.why_not(wanted), hint="choose another with --listen", address=address)
        found = [str(real) for real in self._network.listeners[str(wanted)].get_addrs()]
        self.listening += tuple(f"{real}/p2p/{self.peer}" for text in found for real in multiaddresses.expanded(text))

    async def _negotiated(self, peer_id: Any, protocol: str) -> Any:
        # The library forgets a stream whose opening is cancelled, with the place that it holds among 256. Opening
        # waits for such a place, so look for one first, and writes one frame.
        connections = self._network.get_connections(peer_id)
        if not any(connection.muxed_conn.stream_backlog_semaphore.value for connection in connections):
            raise UnavailableError(f"too many streams are open to peer {peer_id}", peer=str(peer_id))
        with trio.CancelScope(shield=True), trio.fail_after(OPEN_S):
            net_stream = await self._network.new_stream(peer_id)
        try:
            client = self._host.multiselect_client
            await client.select_one_of([protocol], MultiselectCommunicator(net_stream))
        except BaseException:
            with trio.CancelScope(shield=True):
                await net_stream.reset()
            raise
        return net_stream

    def _connected(self, peer: PeerId) -> None:
        for callback in self._on_connect:
            callback(peer)
        if {each.relayed for each in self.connections(peer)} == {True, False}:
            for callback in self._on_direct:
                callback(peer)

    def _disconnected(self, peer: PeerId) -> None:
        if peer not in self.connected():
            for callback in self._on_disconnect:
                callback(peer)


@asynccontextmanager
async def open_host(
    identity: Identity, listen: Sequence[str] = (), *, swarm_key: bytes | None = None
) -> AsyncIterator[Host]:
    """Run a host for as long as the context lasts.

    Args:
        identity: whose host it is.
        listen: multiaddresses of TCP, such as `/ip4/127.0.0.1/tcp/0`; empty for a pure client.
        swarm_key: 32 bytes that all nodes of a private swarm share; None is the open one.

    Raises UserError for an address that can't be listened on.

    """
    library = libp2p_host.make(identity, swarm_key)
    error: Exception | None = None
    try:
        async with library.run([]):
            host = Host(identity, library)
            try:
                for address in listen:
                    await host.listen(address)
                yield host
            except Exception as exc:
                error = exc
                raise
            finally:
                with trio.CancelScope(shield=True):
                    await libp2p_host.close(library)
    except BaseExceptionGroup as group:
        if error is not None and _only(group) is error:
            raise error from None  # not in the groups of the library's own nurseries
        raise


def _only(exc: BaseException) -> BaseException:
    """What is inside groups of one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


async def _reset(stream: Pipe) -> None:
    """Reset a stream, in bounded time, whatever else is being cancelled."""
    with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_DEADLINE_S):
        await stream.reset()


def _alive(connection: Any) -> bool:
    return not connection.is_closed and not connection.muxed_conn.event_shutting_down.is_set()
