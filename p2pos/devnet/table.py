"""A devnet as a table for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from p2pos.devnet.status import Devnet, Row

STYLES = {"ready": "green", "starting": "yellow", "stopping": "yellow", "dead": "bold red"}
MIB = 1 << 20
UNKNOWN = "–"


def render(devnet: Devnet) -> RenderableType:
    """The table, and below it what is common to all."""
    table = Table(title="p2pos devnet", title_justify="left")
    table.add_column("process", no_wrap=True)
    table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("peer id", no_wrap=True)
    table.add_column("layers", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("tokens/s", justify="right", no_wrap=True)
    table.add_column("block", justify="right", no_wrap=True)
    for row in devnet.processes:
        table.add_row(*_cells(row))
    chain = f"chain {devnet.chain_id} at {devnet.rpc_url}"
    if not any(row.name == "chain" for row in devnet.processes):
        chain += f", block {UNKNOWN if devnet.block is None else devnet.block}"
    return Group(table, Text(f"{chain} · contract {devnet.contract or UNKNOWN}", style="dim", overflow="fold"))


def _cells(row: Row) -> tuple[str | Text, ...]:
    state = Text(row.state if row.exit is None else f"{row.state} ({row.exit})", style=STYLES.get(row.state, ""))
    return (
        row.name,
        UNKNOWN if row.pid is None else str(row.pid),
        state,
        UNKNOWN if row.peer is None else f"{row.peer[:8]}…{row.peer[-6:]}",  # its first 8 characters are often alike
        row.layers or UNKNOWN,
        UNKNOWN if row.memory_bytes is None else f"{row.memory_bytes / MIB:.0f} MiB",
        UNKNOWN if row.tokens_per_s is None else f"{row.tokens_per_s:.1f}",
        UNKNOWN if row.block is None else str(row.block),
    )
