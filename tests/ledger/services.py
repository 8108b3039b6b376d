"""A real relayer process."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2pos.ledger.client import RelayerClient
from p2pos.ledger.wallet import Wallets
from tests.ledger.chains import COIN, Ground


class RelayerProcess:
    """`p2pos relayer run` on a home of its own; it dies with us, because it is leashed."""

    def __init__(self, ground: Ground, home: Path, *options: str, rpc_url: str = "") -> None:
        self.ground = ground
        self.rpc_url = rpc_url or ground.anvil.url
        self.home = home
        self.options: Sequence[str] = options
        self.passphrase_file = home / "passphrase"
        self.passphrase_file.touch(mode=0o600)
        self.passphrase_file.write_text("secret\n")
        wallets = Wallets(home / "wallets")
        if "operator" not in wallets.names():
            wallets.create("operator", "secret", light=True)
        self.sender = wallets.address("operator")
        ground.anvil.rpc.call("anvil_setBalance", self.sender, hex(1000 * COIN))
        self.start()

    def start(self) -> None:
        self.log = (self.home / "relayer.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "p2pos", "--log-json", "relayer", "run", "--leash", *self.arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )

    def arguments(self) -> list[str]:
        chain = ("--rpc-url", self.rpc_url, "--contract", self.ground.chain.contract)
        return ["--home", str(self.home), *chain, "--passphrase-file", str(self.passphrase_file), *self.options]

    def ready(self) -> dict[str, Any]:
        """Wait for its line, and keep a client to it."""
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.client = RelayerClient(line["url"])
        return line

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """Let the leash go. Returns the exit code."""
        self.process.stdin.close()
        return self._reap()

    def _reap(self) -> int:
        code = self.process.wait(30)
        self.process.stdout.close()
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.log.close()
        return code
