"""`/p2pos/status/1.0.0` as the one who asks sees it: what another node believes of the swarm."""

import time
from collections.abc import Callable, Sequence

import trio

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.host import Host
from p2pos.node.identity import verify
from p2pos.node.table import Table
from p2pos.types import PeerId
from p2pos.wire.messages import STATUS_PROTOCOL, Announcement, Signed, StatusAnswer, StatusRequest

EXCHANGE_DEADLINE_S = 5.0
"""Seconds for one peer's answer, dialling included."""
MAX_ANSWER = 24 << 20
"""Bytes of an answer: 4,096 announcements of at most 5 KiB."""

_log = log.get("discovery")

Clock = Callable[[], int]
"""Tells the time in milliseconds since the epoch."""


def wall_ms() -> int:
    """The system's time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


async def ask(host: Host, peer: PeerId, *, clock: Clock = wall_ms) -> list[Announcement]:
    """What a connected peer believes of the swarm, each announcement verified, its own first where it serves layers.

    Raises UnavailableError where it does not answer, PeerError where it answers something else.
    """
    table = Table(verify)
    await ask_into(table, host, peer, clock=clock)
    return table.live(clock())


async def ask_into(table: Table, host: Host, peer: PeerId, *, model: str = "", clock: Clock = wall_ms) -> None:
    """Ask a connected peer what it believes, of a model or of all, and take what of it is to be believed.

    Raises UnavailableError where it does not answer, PeerError where it answers something else.
    """
    for signed in await request(host, peer, StatusRequest(None, model)):
        try:
            table.accept(signed, clock())
        except PeerError as exc:
            _log.debug("not believed", teller=peer, peer=exc.peer, why=exc.message)


async def request(host: Host, peer: PeerId, question: StatusRequest) -> Sequence[Signed]:
    """One question and its answer, on a stream of its own. Raises UnavailableError, PeerError."""
    stream = await host.open(peer, STATUS_PROTOCOL, deadline_s=EXCHANGE_DEADLINE_S, max_frame=MAX_ANSWER)
    try:
        with trio.fail_after(EXCHANGE_DEADLINE_S):
            await stream.send(question)
            await stream.close()
            frame = await stream.receive()
            await stream.finish()
    except trio.TooSlowError:
        raise UnavailableError(f"peer {peer} did not answer in {EXCHANGE_DEADLINE_S:g} s", peer=peer) from None
    except BaseException:
        await stream.reset()
        raise
    if frame is None or not isinstance(frame.message, StatusAnswer):
        raise PeerError(peer, "answered something other than its status")
    return frame.message.known
