"""A signer that speaks Clef's JSON-RPC, as a process: HTTP and a unix socket, a real key, and faults on request.

It reads requests by go-ethereum's documents (cmd/clef) and signs with eth-account, which encodes typed data by itself.
`test_behave` is its only method that Clef hasn't: it names the fault of the next answers.
"""

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address


class Signer:
    """One account, and one behaviour at a time."""

    def __init__(self, name: str) -> None:
        self.account = Account.from_key(keccak(name.encode()))
        self.other = Account.from_key(keccak(b"somebody else"))
        self.behaviour = "sign"
        self.asked: list[Any] = []
        self.forever = threading.Event()

    def answer(self, body: bytes) -> bytes:
        request = json.loads(body)
        method, params = request["method"], request.get("params", [])
        if method == "test_behave":
            self.behaviour, result = params[0], self.asked
            self.asked = []
            return self._say(request, {"result": result})
        self.asked.append([method, params])
        if self.behaviour == "hang":
            self.forever.wait()
        if self.behaviour == "nonsense":
            return b"<html>hello</html>\n"
        if self.behaviour == "deny" and method != "account_version":
            return self._say(request, {"error": {"code": -32000, "message": "Request denied"}})
        if self.behaviour == "locked" and method != "account_version":
            return self._say(request, {"error": {"code": -32000, "message": "could not decrypt key"}})
        if self.behaviour == "endless":
            return self._say(request, {"result": "0x" + "00" * (4 << 20)})
        return self._say(request, {"result": getattr(self, method)(*params)})

    @staticmethod
    def _say(request: Any, what: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], **what}).encode() + b"\n"

    def account_version(self) -> str:
        return "6.1.0"

    def account_list(self) -> list[str]:
        return [self._account().address.lower()]

    def account_signTypedData(self, address: str, typed: Any) -> str:  # noqa: N802
        if address.lower() != self.account.address.lower():
            raise ValueError("no such account")
        typed["domain"]["chainId"] = int(typed["domain"]["chainId"], 16)
        typed["message"] = numbers(typed["types"], typed["primaryType"], typed["message"])
        if self.behaviour == "change":
            typed["message"]["deadline"] += 1
        signature = bytes(self._account().sign_message(encode_typed_data(full_message=typed)).signature)
        if self.behaviour == "low-v":
            signature = signature[:64] + bytes([signature[64] - 27])
        return "0x" + signature.hex()

    def account_signTransaction(self, asked: Any) -> Any:  # noqa: N802
        fields = {
            "type": 2,
            "to": to_checksum_address(asked["to"]) if "to" in asked else b"",
            "data": asked["input"],
            **{
                name: int(asked[name], 16)
                for name in ("chainId", "nonce", "value", "gas", "maxFeePerGas", "maxPriorityFeePerGas")
            },
        }
        if self.behaviour == "change":
            fields["gas"] += 1
        signed = self._account().sign_transaction(fields)
        return {"raw": "0x" + bytes(signed.raw_transaction).hex(), "tx": {"hash": "0x" + "00" * 32}}

    def _account(self) -> Any:
        return self.other if self.behaviour == "other" else self.account


def numbers(types: Any, kind: str, message: Any) -> Any:
    """A message with its numbers as numbers, which eth-account wants."""
    if kind.endswith("[]"):
        return [numbers(types, kind[:-2], one) for one in message]
    if kind in types:
        return {field["name"]: numbers(types, field["type"], message[field["name"]]) for field in types[kind]}
    return int(message) if kind.startswith("uint") else message


def main(name: str, socket: str) -> None:
    signer = Signer(name)

    class Http(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = signer.answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.headers["Content-Type"] == "application/json" else 415)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Unix(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(signer.answer(line))

    class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    http, unix = ThreadingHTTPServer(("127.0.0.1", 0), Http), UnixServer(socket, Unix)
    for server in (http, unix):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{http.server_address[1]}"}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()  # until whoever started it is gone


@contextmanager
def running_signer(name: str, directory: Path) -> Iterator[tuple[str, Path]]:
    """Its URL and its socket."""
    socket = directory / "clef.ipc"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.clef_server", name, str(socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield json.loads(process.stdout.readline())["url"], socket
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
