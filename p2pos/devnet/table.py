"""A devnet as a table for a terminal."""

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from p2pos.devnet.status import Devnet, Row

STYLES = {"ready": "green", "starting": "yellow", "stopping": "yellow", "dead": "bold red"}
MIB = 1 << 20
UNKNOWN = "–"
COLUMNS: tuple[tuple[str, JustifyMethod], ...] = (
    ("process", "left"),
    ("pid", "right"),
    ("state", "left"),
    ("peer id", "left"),
    ("layers", "right"),
    ("memory", "right"),
    ("tok/s", "right"),
    ("block", "right"),
)


def render(devnet: Devnet) -> RenderableType:
    """The table, and below it what is common to all."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")  # fits into 80 columns
    for heading, justify in COLUMNS:
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in devnet.processes:
        table.add_row(*_cells(row))
    block = UNKNOWN if devnet.block is None else str(devnet.block)
    facts = (
        f"chain {devnet.chain_id} at {devnet.rpc_url}, block {block}",
        f"contract {devnet.contract or UNKNOWN}",
        f"home {devnet.home}",
    )
    return Group(table, *(Text(fact, style="dim", overflow="fold") for fact in facts))


def _cells(row: Row) -> tuple[str | Text, ...]:
    state = Text(
        row.state if row.exit is None else f"{row.state}: {row.exit.replace('exit code', 'exit')}",
        style=STYLES.get(row.state, ""),
    )
    return (
        row.name,
        UNKNOWN if row.pid is None else str(row.pid),
        state,
        UNKNOWN if row.peer is None else f"…{row.peer[-8:]}",  # all ed25519 peer ids begin alike
        row.layers or UNKNOWN,
        UNKNOWN if row.memory_bytes is None else f"{row.memory_bytes / MIB:.0f} MiB",
        UNKNOWN if row.tokens_per_s is None else f"{row.tokens_per_s:.1f}",
        UNKNOWN if row.block is None else str(row.block),
    )
