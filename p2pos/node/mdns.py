"""Nodes of one local network find one another by mDNS, without an address to join through. Off unless asked for.

As libp2p's specification (discovery/mdns) has it: the service `_p2p._udp.local`, a name that means nothing, and in its
TXT record a `dnsaddr=` for each address that can be dialled. A private swarm has a service name of its own, with the
first digits of its key's hash. It is spoken on those interfaces that the host listens on.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence

import trio
import zeroconf
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import UserError
from p2pos.node.addresses import peer_of, tcp_ip
from p2pos.node.host import Host
from p2pos.types import PeerId

PREFIX = b"dnsaddr="
MAX_TXT = 255
"""Bytes of one string in a TXT record (RFC 1035 §3.3); longer addresses are left out."""
MAX_STRINGS = 16
"""Of one peer, as addresses in an announcement."""
ASK_MS = 1_000
"""Milliseconds for a service that was heard of to say what it is."""
MAX_HEARD = 64
"""Peers that wait to be met; whoever comes to a full queue is heard of again when it renews its record."""
CLOSE_S = 2.0
"""Seconds for taking the record back."""
PORT = 4001
"""What the SRV record says, which nobody looks at: the addresses are in the TXT record."""

_log = log.get("mdns")


def service(swarm_key: bytes | None) -> str:
    """The service's name: of everyone, or of those who have this key."""
    if swarm_key is None:
        return "_p2p._udp.local."
    return f"_p2p-{hashlib.sha256(swarm_key).hexdigest()[:8]}._udp.local."  # 15 characters at most (RFC 6335 §5.1)


def text_of(addresses: Sequence[str]) -> bytes:
    """The TXT record of these addresses."""
    strings = [PREFIX + each.encode() for each in addresses]
    fitting = [each for each in strings if len(each) <= MAX_TXT][:MAX_STRINGS]
    return b"".join(bytes([len(each)]) + each for each in fitting)


def addresses_of(text: bytes) -> dict[PeerId, list[str]]:
    """The addresses in a TXT record, by the peer that each names; whatever else is there is passed over."""
    found: dict[PeerId, list[str]] = {}
    strings = 0
    while text and strings < MAX_STRINGS:
        string, text = text[1 : 1 + text[0]], text[1 + text[0] :]
        strings += 1
        if string.startswith(PREFIX):
            address = string.removeprefix(PREFIX).decode("ascii", "replace")
            try:
                found.setdefault(peer_of(address), []).append(address)
            except UserError as exc:
                _log.debug("no address", address=address, why=exc.message)
    return found


async def run(
    host: Host,
    meet: Callable[[PeerId, Sequence[str]], Awaitable[None]],
    *,
    swarm_key: bytes | None = None,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Say where this host is, and hear of others, until cancelled.

    Args:
        host: one that listens.
        meet: called with each peer that is heard of, and its addresses.
        swarm_key: of a private swarm.
        task_status: told when others can hear of it.

    Raises UserError where the host listens on no IPv4 address, or nothing can be sent there.

    """
    own = host.addresses
    interfaces = sorted({ip for each in own if (ip := tcp_ip(each)) is not None})
    if not interfaces:
        raise UserError("mDNS needs an IPv4 address to listen on", hint="give --listen, for example /ip4/0.0.0.0/tcp/0")
    heard, to_meet = trio.open_memory_channel[bytes](MAX_HEARD)
    token = trio.lowlevel.current_trio_token()
    kind = service(swarm_key)
    name = secrets.token_hex(16)
    info = zeroconf.ServiceInfo(
        kind,
        f"{name}.{kind}",
        parsed_addresses=interfaces,  # a service without is none to the library
        port=PORT,
        properties=text_of(own),
        server=f"{name}.local.",
    )

    def hand_over(text: bytes) -> None:
        try:
            heard.send_nowait(text)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            _log.debug("nobody was met", why=repr(exc))

    class Listener(zeroconf.ServiceListener):
        """Called in a thread of the library's."""

        def add_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None:
            found = zc.get_service_info(type_, name, ASK_MS)
            if found is not None and found.text and name != info.name:
                token.run_sync_soon(hand_over, found.text)

        update_service = add_service

        def remove_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None: ...

    def start() -> zeroconf.Zeroconf:
        responder = zeroconf.Zeroconf(interfaces=interfaces)
        responder.register_service(info)
        zeroconf.ServiceBrowser(responder, kind, Listener())
        return responder

    try:
        responder = await trio.to_thread.run_sync(start)
    except OSError as exc:
        raise UserError(f"mDNS can't be spoken on {', '.join(interfaces)}: {exc.strerror or exc}") from exc
    try:
        _log.info("heard on the local network", service=kind, interfaces=interfaces)
        task_status.started()
        async for text in to_meet:
            for peer, addresses in addresses_of(text).items():
                if peer != host.peer:
                    _log.info("heard of a peer on the local network", peer=peer, addresses=addresses)
                    await meet(peer, addresses)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
            await trio.to_thread.run_sync(responder.close, abandon_on_cancel=True)  # type: ignore[call-arg]  # trio-typing knows an older trio
