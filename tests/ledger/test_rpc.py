import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from p2pos.errors import UnavailableError
from p2pos.ledger.chain import Chain
from p2pos.ledger.rpc import MAX_BATCH, Rpc, RpcError, revert_data


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Answers every request with `server.answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.answer)

        def log_message(self, *args) -> None:
            pass

    made = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_many_calls_answer_in_order(ground):
    """More calls than one array holds are answered, each in its place, a refusal as a value."""
    rpc = ground.anvil.rpc
    calls = [("eth_getBlockByNumber", (hex(number % 2), False)) for number in range(MAX_BATCH + 5)]
    answers = rpc.batch([*calls, ("no_such_method", ())])
    assert [int(one["number"], 16) for one in answers[:-1]] == [number % 2 for number in range(MAX_BATCH + 5)]
    assert isinstance(answers[-1], RpcError)


def test_a_refused_call_raises(ground):
    """A single call that is refused raises with the node's code."""
    with pytest.raises(RpcError) as caught:
        ground.anvil.rpc.call("no_such_method")
    assert caught.value.code == -32601


def test_nobody_there():
    """A port where nobody listens is unreachable."""
    with pytest.raises(UnavailableError, match="can't be reached"):
        Rpc("http://127.0.0.1:1").call("eth_chainId")


@pytest.mark.parametrize("answer", [b"", b"hello", b"1", b"{}", b"[]", b'{"id": 1}', b'[{"id": 99, "result": 1}]'])
def test_nonsense_is_not_believed(server, answer):
    """What answers, but not as JSON-RPC, is said to be no end point."""
    server.answer = answer
    rpc = Rpc(f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(UnavailableError, match="doesn't answer as a chain"):
        rpc.call("eth_chainId")
    with pytest.raises(UnavailableError, match="doesn't answer as a chain"):
        rpc.batch([("eth_chainId", ())])


@pytest.mark.parametrize(
    "answer", [b"null", b"[]", b"<html>", b'{"id": 1, "result": "zz"}', b'{"id": 1, "error": {"message": "no"}}']
)
def test_what_is_no_chain_is_not_connected_to(server, answer):
    """Whatever answers to the question for a chain id, it is a chain or said to be none."""
    server.answer = answer
    with pytest.raises(UnavailableError, match="doesn't answer as a chain"):
        Chain.connect(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize(
    ("data", "found"),
    [("0x0102", b"\x01\x02"), ({"data": "0x03"}, b"\x03"), ("0x", b""), ("0xzz", b""), (None, b""), (5, b"")],
)
def test_revert_data_in_its_several_forms(data, found):
    """End points put a revert's data in an error in different places; what is none of them is empty."""
    assert revert_data(data) == found
