"""Dialling: several addresses at a time, through relays, from the port that is listened on, and on trial."""

from collections.abc import Sequence
from typing import Any, Protocol

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses as multiaddresses
from p2pos.node import circuits, identify, private
from p2pos.node.pipes import Pipe
from p2pos.node.private import SwarmKeyError
from p2pos.types import PeerId

DIAL_STAGGER_S = 0.2
"""Head start of an address over the next one of the same peer (RFC 8305 recommends 0.25 s and 0.1 s at least)."""
CIRCUIT_HEAD_START_S = 0.5
"""Head start of a peer's own addresses over those through relays, where those don't fail before. Behind another's
router they seldom fail: nothing answers."""
CLOSE_S = 2.0
"""Seconds for closing what was dialled on trial."""
LOOK_S = 5.0
"""Seconds for hearing how a peer sees a port of ours."""

_log = log.get("host")


class Library(Protocol):
    """What dialling needs of the host it dials for."""

    @property
    def peer(self) -> PeerId:
        """Its own peer id."""

    async def open_raw(self, peer: PeerId, protocol: str, *, deadline_s: float = ...) -> Pipe:
        """Open a stream to a peer that is connected. Raises UnavailableError, PeerError."""

    def joined(self, peer: PeerId) -> bool:
        """Whether a connection to a peer is open."""


class Failures(list[str]):
    """A line for each address that failed."""

    strange: bool = False
    """Somebody was there with whom no word could be exchanged: as where one is in a private swarm."""


class Dialler:
    """Dials for a host.

    Args:
        host: the library's host.
        library: whom for.

    """

    def __init__(self, host: Any, library: Library) -> None:
        self._library = library
        self._host = host
        self._network = host.get_network()

    async def race(self, peer: PeerId, targets: Sequence[Any], why: Failures) -> None:
        """Dial every address, each a little after the one before or at once when that one failed.

        Relays come after the peer's own addresses.

        Args:
            peer: whom to dial.
            targets: what `addresses.dialable` made of its addresses.
            why: takes a line for each that failed.

        """
        direct = [target for target in targets if not isinstance(target, multiaddresses.Circuit)]
        relayed = [target for target in targets if isinstance(target, multiaddresses.Circuit)]
        async with trio.open_nursery() as nursery:
            tried = trio.Event()
            nursery.start_soon(self._stagger, peer, direct, why, nursery.cancel_scope, tried)
            if relayed:
                with trio.move_on_after(CIRCUIT_HEAD_START_S):
                    await tried.wait()
                await self._stagger(peer, relayed, why, nursery.cancel_scope, trio.Event())

    async def _stagger(
        self, peer: PeerId, targets: Sequence[Any], why: Failures, race: trio.CancelScope, tried: trio.Event
    ) -> None:
        async with trio.open_nursery() as nursery:
            for target in targets:
                failed = trio.Event()
                nursery.start_soon(self._attempt, peer, target, failed, why, race)
                with trio.move_on_after(DIAL_STAGGER_S):
                    await failed.wait()
        tried.set()

    async def _attempt(
        self, peer: PeerId, target: Any, failed: trio.Event, why: Failures, race: trio.CancelScope
    ) -> None:
        try:
            if isinstance(target, multiaddresses.Circuit):
                await self._dial_circuit(target, peer)
            else:
                await self._network.dial_addr(target, multiaddresses.library_id(peer))
        except (BaseLibp2pError, OSError, UnavailableError, PeerError) as exc:
            where = target.address if isinstance(target, multiaddresses.Circuit) else target
            why.append(f"{where}: {exc}")
            why.strange = why.strange or _no_common_word(exc)
            failed.set()
        else:
            race.cancel()

    async def _dial_circuit(self, circuit: multiaddresses.Circuit, peer: PeerId) -> None:
        """Raises UnavailableError, PeerError."""
        if circuit.relay == self._library.peer:
            raise UnavailableError(f"peer {peer} is to be reached through this node, and isn't connected", peer=peer)
        if not self._library.joined(circuit.relay):
            # not the host's `connect`: two peers that relay for each other would wait for each other's turn to dial
            why = Failures()
            await self.race(circuit.relay, [circuit.address], why)
            if not self._library.joined(circuit.relay):
                raise UnavailableError(f"relay {circuit.relay} does not answer", peer=circuit.relay, why=why)
        await self.adopt(await circuits.join(self._library, circuit.relay, peer), peer, dialled=True)

    async def adopt(self, pipe: Pipe, peer: PeerId, *, dialled: bool) -> Any:
        """Make a connection of a circuit, once it is sure who is at its other end; `pipe` belongs to it then.

        Args:
            pipe: the stream to the relay.
            peer: who was dialled, or who the relay says is there.
            dialled: whether it was we who asked for the circuit.

        Returns the library's muxer.

        Raises UnavailableError where the handshake fails or somebody else is there.

        """
        raw = circuits.raw(pipe, peer, dialled=dialled)
        peer_id = multiaddresses.library_id(peer)
        try:
            if dialled:
                muxed = (await self._network.upgrade_outbound_raw_conn(self._private(raw), peer_id)).muxed_conn
            else:
                muxed = await self._network.upgrade_inbound_raw_conn(raw, Multiaddr(multiaddresses.through("", peer)))
        except BaseException as exc:
            with trio.CancelScope(shield=True):
                await pipe.reset()
            if isinstance(exc, Exception):  # what a stranger sends before it has a name may fail anywhere
                raise UnavailableError(f"no connection to peer {peer} over the circuit: {exc!r}", peer=peer) from exc
            raise
        if muxed.peer_id != peer_id:
            await muxed.close()
            raise UnavailableError(f"peer {muxed.peer_id} came through a relay as {peer}", peer=peer)
        return muxed

    async def answers_at(self, address: Any, peer: PeerId) -> bool:
        """Whether a peer proves at an address that it is there; leaves no connection."""
        peer_id = multiaddresses.library_id(peer)
        raw: Any = None
        try:
            raw = await TCP().dial(address)
            secured = await self._network.upgrader.upgrade_security(
                self._private(raw), is_initiator=True, peer_id=peer_id
            )
        except (BaseLibp2pError, OSError) as exc:
            _log.debug("does not answer", peer=peer, address=str(address), why=repr(exc))
            return False
        finally:
            if raw is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                    await raw.close()
        return bool(secured.get_remote_peer() == peer_id)

    async def dial_from(self, port: int, address: Any, peer: PeerId, *, as_server: bool) -> None:
        """Dial from a port that is listened on, which a router then lets answers, and other dials, through to.

        Args:
            port: ours.
            address: theirs.
            peer: who is to be there.
            as_server: whether the peer dials at the same time, both dials may become one connection, and it is the
                one that speaks first on it.

        Raises UnavailableError.

        """
        peer_id = multiaddresses.library_id(peer)
        source = (_any(address), port)
        try:
            if not as_server:
                await self._network.dial_addr(address, peer_id, source=source)
                return
            # not the library's `dial_addr_as_responder`, which seals a private swarm's connection twice
            raw = await TCP().dial_with_source(address, source)
            muxed = await self._network.upgrade_inbound_raw_conn(raw, address)
        except (BaseLibp2pError, OSError) as exc:
            raise UnavailableError(f"peer {peer} does not answer at {address}", peer=peer) from exc
        if muxed.peer_id != peer_id:
            await muxed.close()
            raise UnavailableError(f"peer {muxed.peer_id} answers at an address of {peer}", peer=peer)

    def _private(self, raw: Any) -> Any:
        """A connection that we began, sealed with the key of a private swarm where there is one.

        The library seals those that it accepts, and those that it dials itself.
        """
        psk = self._network.psk
        return raw if psk is None else private.protected(raw, psk)

    async def seen_from(self, port: int, address: Any, peer: PeerId) -> tuple[str, int] | None:
        """How a peer, to be dialled at this address, sees a port of ours: behind a router, the router's.

        Raises UnavailableError, PeerError.
        """
        peer_id = multiaddresses.library_id(peer)
        try:
            with trio.fail_after(LOOK_S):
                connection = await self._network.dial_addr(address, peer_id, source=(_any(address), port))
                try:
                    stream = await connection.new_stream()
                    communicator = MultiselectCommunicator(stream)
                    await self._host.multiselect_client.select_one_of([identify.IDENTIFY_PROTOCOL], communicator)
                    return (await identify.read(Pipe(stream))).sees_us
                finally:
                    with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                        await connection.close()
        except trio.TooSlowError:
            raise UnavailableError(f"peer {peer} did not say how it sees us", peer=peer) from None
        except (BaseLibp2pError, MultiselectError, OSError) as exc:
            raise UnavailableError(f"peer {peer} does not answer at {address}", peer=peer) from exc


def _any(address: Any) -> str:
    """The address that stands for all of ours, of the same family."""
    return "::" if str(address).startswith("/ip6/") else "0.0.0.0"  # noqa: S104 - dialled from, not listened on


def _no_common_word(exc: BaseException) -> bool:
    """Whether somebody was there, but could not even agree on how to secure the connection."""
    seen: BaseException | None = exc
    while seen is not None and not isinstance(seen, MultiselectClientError | SwarmKeyError):
        seen = seen.__cause__
    return seen is not None
