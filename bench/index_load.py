"""A million events of a busy asset contract, served as a node serves them: `python -m bench.index_load EVENTS SEED`.

The mix is chosen to be what relayers make of it, and the logs have the form of the contract's own, to which
`tests/ledger/test_index_verify.py` holds the model that writes them: transactions of a hundred intents, each a
NonceUsed and a TransferSingle, among 10,000 people who hold 100 currencies and items, and to every such transaction a
handful of every other deed there is. Blocks are kept as compressed JSON text.

Prints one JSON line when it is ready: the URL, the head, the events; then answers JSON-RPC until its standard input
ends. It speaks HTTP/1.1 by hand, since it must be no bottleneck on a machine of two cores.
"""

import hashlib
import json
import random
import socketserver
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler
from typing import Any

from bench.index_deeds import BLOCK_S, CONTRACT, RELAYER, START_S, ZERO, Deeds, Truth, json_logs

PEOPLE = 10_000
ITEMS = 100
KINDS = 5
"""Classes that a person holds."""
BATCHES = 4
"""Relayed transactions in a block."""
BATCH = 100
OTHERS = 12
"""Deeds drawn from all kinds, in a block."""
RICH = 1 << 40


class Load:
    """The chain: block hashes, and logs as text."""

    def __init__(self, events: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.hashes = [bytes(32)]
        self.texts: list[bytes] = [b""]
        self.events = 0
        self.people = [hashlib.sha256(f"person {at}".encode()).hexdigest()[:40] for at in range(PEOPLE)]
        self.items = [hashlib.sha256(f"item {at}".encode()).hexdigest() for at in range(ITEMS)]
        self.truth = Truth()
        self.few = Deeds(self.rng, Truth(), [who[::-1] for who in self.people[:20]], 10)
        self._begin()
        while self.events < events:
            self._block(self._relayed() + self._others())

    def holdings(self, who: str) -> dict[str, int]:
        """What a person holds, by class."""
        return {item: amount for (of, item), amount in self.truth.balances.items() if of == who and amount}

    def _begin(self) -> None:
        work = Deeds(self.rng, self.truth, self.people, 0)
        for item in self.items:
            words = [f"{0:064x}", hashlib.sha256(item.encode()).hexdigest(), *([f"{0:064x}"] * 5)]
            work._emit("ClassCreated", [item, f"{self.people[0]:0>64}"], words)
        self.held = {who: self.rng.sample(self.items, KINDS) for who in self.people}
        for at, who in enumerate(self.people):
            work.transaction += not at % BATCH
            for item in self.held[who]:
                work._move(self.people[0], ZERO, who, [(item, RICH)])
        for start in range(0, len(work.logs), 1000):
            self._block(work.logs[start : start + 1000])

    def _relayed(self) -> list[tuple[int, list[str], str]]:
        work = Deeds(self.rng, self.truth, self.people, 0)
        for _ in range(BATCHES):
            work.transaction += 1
            for _ in range(BATCH):
                owner, to = self.rng.choice(self.people), self.rng.choice(self.people)
                work._use_nonce(owner)
                work._move(RELAYER, owner, to, [(self.rng.choice(self.held[owner]), self.rng.randint(1, 1000))])
        return work.logs

    def _others(self) -> list[tuple[int, list[str], str]]:
        self.few.logs, self.few.transaction, self.few.now_s = [], BATCHES, START_S + BLOCK_S * len(self.hashes)
        for _ in range(OTHERS):
            self.few.any()
        return self.few.logs

    def _block(self, logs: list[tuple[int, list[str], str]]) -> None:
        number, hash_ = len(self.hashes), self.rng.randbytes(32)
        text = json.dumps(json_logs(number, hash_, START_S + BLOCK_S * number, logs), separators=(",", ":"))
        self.hashes.append(hash_)
        self.texts.append(zlib.compress(text[1:-1].encode(), 1))
        self.events += len(logs)

    # ---- JSON-RPC

    def answer(self, request: dict[str, Any]) -> bytes:
        """One call's answer, as JSON text."""
        method, params = request["method"], request["params"]
        if method == "eth_getLogs":
            first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
            result = b"[" + b",".join(filter(None, map(self._text, range(first, last + 1)))) + b"]"
        else:
            result = json.dumps(self._plain(method, params)).encode()
        return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (request["id"], result)

    def _plain(self, method: str, params: list[Any]) -> Any:
        head = len(self.hashes) - 1
        if method == "eth_getBlockByNumber":
            number = head if params[0] == "latest" else int(params[0], 16)
            return self._header(number) if number <= head else None
        if method == "eth_getCode":
            return "0x60" if int(params[1], 16) else "0x"
        return {"eth_chainId": "0x7a69", "eth_blockNumber": hex(head)}[method]

    def _text(self, number: int) -> bytes:
        return zlib.decompress(self.texts[number]) if self.texts[number] else b""

    def _header(self, number: int) -> dict[str, Any]:
        """All that a node sends of a block, for it has to be parsed as well."""
        words = dict.fromkeys(("stateRoot", "transactionsRoot", "receiptsRoot", "mixHash"), f"0x{number:064x}")
        transactions = [f"0x{number:032x}{at:032x}" for at in range(BATCHES + OTHERS)]
        return {
            **words,
            "number": hex(number),
            "hash": "0x" + self.hashes[number].hex(),
            "parentHash": "0x" + self.hashes[max(0, number - 1)].hex(),
            "timestamp": hex(START_S + BLOCK_S * number),
            "logsBloom": "0x" + "00" * 256,
            "gasLimit": "0x1c9c380",
            "gasUsed": "0x1c9c380",
            "baseFeePerGas": "0x7",
            "transactions": transactions,
        }


def serve(load: Load) -> socketserver.TCPServer:
    """A server for it on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or the body waits 40 ms for the head's acknowledgement
        wbufsize = -1  # head and body leave together

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            one = isinstance(body, dict)
            text = load.answer(body) if one else b"[" + b",".join(map(load.answer, body)) + b"]"
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Nothing: a million events make thousands of requests."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    return Server(("127.0.0.1", 0), Handler)


def main() -> None:
    """Make the chain, say so, and serve until standard input ends."""
    load = Load(int(sys.argv[1]), int(sys.argv[2]))
    who = load.people[7]
    with serve(load) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ready = {
            "url": f"http://127.0.0.1:{server.server_address[1]}",
            "head": len(load.hashes) - 1,
            "events": load.events,
            "contract": CONTRACT,
            "someone": "0x" + who,
            "holdings": load.holdings(who),
        }
        print(json.dumps(ready), flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
