"""What a devnet looks like at one moment: its processes, what its nodes say of themselves, the chain's height."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import trio

from p2pos.devnet.home import Home
from p2pos.devnet.processes import Process, describe_exit
from p2pos.types import LayerSpan

ASK_TIMEOUT_S = 2.0
"""For one process's word on itself, all being on this machine. One that computes answers in 0.1 s."""


@dataclass(slots=True)
class Row:
    """One process. What isn't known is None."""

    name: str
    state: str
    pid: int | None
    exit: str | None
    """Of a dead one: `exit code 1`, `SIGKILL` …"""
    url: str | None
    peer: str | None = None
    layers: str | None = None
    memory_bytes: int | None = None
    """Resident, children included."""
    tokens_per_s: float | None = None
    sessions: int | None = None
    weight_bytes: int | None = None
    """Read from the model's files."""
    block: int | None = None
    """The chain's newest."""
    facts: dict[str, Any] = field(default_factory=dict)
    """All that the process says of itself."""


@dataclass(slots=True)
class Devnet:
    """All of it."""

    home: str
    rpc_url: str
    chain_id: int
    contract: str
    block: int | None
    processes: list[Row]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Devnet":
        """The reverse of `as_dict`."""
        return cls(**{**data, "processes": [Row(**row) for row in data["processes"]]})


async def observe(
    home: Home,
    processes: Iterable[Process],
    spans: Mapping[str, LayerSpan],
    *,
    rpc_url: str,
    chain_id: int,
    contract: str,
) -> Devnet:
    """Ask everybody at once. Who doesn't answer in ASK_TIMEOUT_S is shown with what is known without it."""
    devnet = Devnet(str(home.path), rpc_url, chain_id, contract, None, [_row(process, spans) for process in processes])
    async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S) as client, trio.open_nursery() as nursery:
        nursery.start_soon(_ask_chain, client, devnet)
        for row in devnet.processes:
            if row.layers is not None and row.url is not None:
                nursery.start_soon(_ask_node, client, row)
    return devnet


def _row(process: Process, spans: Mapping[str, LayerSpan]) -> Row:
    ready = process.ready if process.alive else {}
    url = ready.get("api") or ready.get("url") or ready.get("rpc_url")
    ended = describe_exit(process.exit_code) if not process.alive and process.exit_code is not None else None
    span = spans.get(process.name)
    return Row(
        process.name,
        process.state,
        process.pid,
        ended,
        url,
        peer=ready.get("peer"),
        layers=None if span is None else str(span),
        memory_bytes=process.resident_bytes() or None,
    )


async def _ask_chain(client: httpx.AsyncClient, devnet: Devnet) -> None:
    if not devnet.rpc_url:
        return
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}
    try:
        devnet.block = int((await client.post(devnet.rpc_url, json=request)).json()["result"], 16)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return  # shown as unknown
    for row in devnet.processes:
        if row.name == "chain":
            row.block = devnet.block


async def _ask_node(client: httpx.AsyncClient, row: Row) -> None:
    try:
        facts = (await client.get(f"{row.url}/status")).json()
    except (httpx.HTTPError, ValueError):
        return  # shown as unknown
    if isinstance(facts, dict):
        row.facts = facts
        row.peer = facts.get("peer", row.peer)
        row.layers = facts.get("layers", row.layers)
        row.tokens_per_s = facts.get("tokens_per_s")
        row.sessions = facts.get("sessions")
        row.weight_bytes = facts.get("weight_bytes")
