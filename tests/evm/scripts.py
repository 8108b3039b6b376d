"""Runs the JavaScript beside this file: another make of an Ethereum client, and of wallets' libraries."""

import json
from pathlib import Path
from typing import Any

from p2pos.devnet.tools import run_node_tool

HERE = Path(__file__).parent
INSTALL_S = 300.0  # about 40 MB to download
PATIENCE_S = 120.0  # the scripts take seconds; a machine that is busy with other tests may need ten times that


def run_script(name: str, request: dict[str, Any]) -> Any:
    """What a script answers to a request; both are JSON. Its packages are what the lock file says."""
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        arguments = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        assert run_node_tool("npm", [*arguments, "--prefix", str(HERE)], timeout=INSTALL_S).returncode == 0
    done = run_node_tool(
        "node", [str(HERE / name)], input=json.dumps(request), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
