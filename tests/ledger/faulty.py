"""An HTTP server between us and a real chain, that lets requests through or does something to them."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ERROR = {"code": -32000, "message": "the end point is out of order"}


class Faulty:
    """What it does to each request, until told otherwise.

    `fault`, given the number of the request and its calls, says what happens to it:

    - `pass`: nothing
    - `error`: the chain never sees it; every call is answered with an error
    - `500`: likewise, with a page of HTML
    - `nonsense`: likewise, with JSON that is no answer
    - `cut`: the connection is closed before the chain sees it
    - `lose`: the chain has it, its answer is lost
    - `half`: the chain has it, half of its answer comes
    - `hang`: nobody answers for as long as anybody listens
    - `late`: the chain has it, but nobody answers for as long as anybody listens
    - `twice`: the chain has it twice, the second answer comes
    - `drip`: a byte of a header at a time, for ever
    - `endless`: an answer that never ends

    `edit`, given method, parameters and result of each call, gives the result that is answered instead.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.count = 0
        self.seen: list[str] = []
        """Methods that were asked, by name."""
        self.fault: Callable[[int, list[Any]], str] = lambda _number, _calls: "pass"
        self.edit: Callable[[str, list[Any], Any], Any] = lambda _method, _params, result: result
        self._over = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.upstream = http.client.HTTPConnection(proxy.upstream.hostname, proxy.upstream.port, timeout=30)

            def finish(self) -> None:
                super().finish()
                self.upstream.close()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    proxy._serve(self, body)
                except OSError:
                    self.close_connection = True

            def log_message(self, *args) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def let(self, fault: str) -> None:
        """The same for every request from now on."""
        self.fault = lambda _number, _calls: fault

    def _serve(self, handler: Any, body: bytes) -> None:
        asked = json.loads(body)
        calls = asked if isinstance(asked, list) else [asked]
        self.count += 1
        self.seen += [call["method"] for call in calls]
        fault = self.fault(self.count, calls)
        if fault in {"cut", "hang", "drip", "endless"}:
            self._misbehave(handler, fault)
        elif fault == "500":
            self._answer(handler, b"<html>Internal Server Error</html>", 500)
        elif fault == "nonsense":
            self._answer(handler, b'{"jsonrpc": "2.0", "result": {"number": []}}')
        elif fault == "error":
            answers = [{"jsonrpc": "2.0", "id": call["id"], "error": ERROR} for call in calls]
            self._answer(handler, json.dumps(answers if isinstance(asked, list) else answers[0]).encode())
        else:
            answer = self._ask(handler, body)
            if fault == "twice":
                answer = self._ask(handler, body)
            if fault == "lose":
                handler.close_connection = True
            elif fault == "late":
                self._misbehave(handler, "hang")
            elif fault == "half":
                handler.close_connection = True
                self._answer(handler, self._edited(asked, answer), keep=0.5)
            else:
                self._answer(handler, self._edited(asked, answer))

    def _ask(self, handler: Any, body: bytes) -> bytes:
        handler.upstream.request("POST", "/", body, {"Content-Type": "application/json"})
        return handler.upstream.getresponse().read()

    def _edited(self, asked: Any, answer: bytes) -> bytes:
        said = json.loads(answer)
        calls, answers = (asked, said) if isinstance(asked, list) else ([asked], [said])
        for call, each in zip(calls, answers, strict=True):
            if "result" in each:
                each["result"] = self.edit(call["method"], call["params"], each["result"])
        return json.dumps(said).encode()

    def _answer(self, handler: Any, body: bytes, code: int = 200, *, keep: float = 1.0) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: int(len(body) * keep)])

    def _misbehave(self, handler: Any, fault: str) -> None:
        handler.close_connection = True
        if fault == "cut":
            return
        if fault in {"drip", "endless"}:
            handler.send_response(200)
            handler.end_headers()
        handler.wfile.flush()
        handler.connection.settimeout(0.02)
        while not self._over.is_set():
            if fault == "drip":
                handler.wfile.write(b" ")
            if fault == "endless":
                handler.connection.settimeout(5)
                handler.wfile.write(b" " * (1 << 20))
                continue
            try:
                if not handler.connection.recv(1):
                    return
            except TimeoutError:
                continue

    def close(self) -> None:
        self._over.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def faulty(upstream: str) -> Iterator[Faulty]:
    made = Faulty(upstream)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
