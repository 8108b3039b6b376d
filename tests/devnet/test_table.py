"""The table of a devnet."""

import io

from rich.console import Console

from p2pos.devnet.status import Devnet, Row
from p2pos.devnet.table import render


def test_table_fits_a_terminal_of_80_columns() -> None:
    """No cell is cut, with the longest values that occur."""
    rows = [
        Row("chain", "ready", 4194303, None, "http://x", memory_bytes=70 << 20, block=1234567),
        Row("relayer", "dead", None, "exit code 2", None),
        Row("node-32", "ready", 4194303, None, "http://y", "12D3KooWABCDEFGH", "100:128", 1000 << 20, 1234.5),
    ]
    devnet = Devnet("/home", "http://127.0.0.1:20000", 31337, "0x" + "a" * 40, 7, rows)
    assert Devnet.from_dict(devnet.as_dict()) == devnet
    output = io.StringIO()
    Console(file=output, width=80).print(render(devnet))
    text = output.getvalue()
    for word in ("dead: exit 2", "…ABCDEFGH", "100:128", "1000 MiB", "1234.5", "1234567", "0x" + "a" * 40):
        assert word in text
