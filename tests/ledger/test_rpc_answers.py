import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger.rpc_answers import _CHECKS, is_sound, parse
from tests.ledger.chains import ALICE

HASH = "0x" + "ab" * 32
LOG = {"address": ALICE.address, "blockNumber": "0x5"}
QUESTION = {"address": ALICE.address, "fromBlock": "0x5", "toBlock": "0x6"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["0x", "0x1", HASH]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["number", "hash", "logs"]), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("eth_chainId", [], "0x7a69"),
        ("eth_getCode", [ALICE.address, "latest"], "0x"),
        ("eth_call", [{}, "latest"], "0x00ff"),
        ("eth_sendRawTransaction", ["0x02"], HASH),
        ("eth_getBlockByNumber", ["0x5", False], {"number": "0x05", "hash": HASH}),
        ("eth_getBlockByNumber", ["latest", False], {"number": "0x7", "hash": HASH}),
        ("eth_getBlockByNumber", ["0x5", False], None),
        ("eth_getTransactionReceipt", [HASH], {"transactionHash": HASH.upper().replace("X", "x")}),
        ("eth_getTransactionByHash", [HASH], None),
        ("eth_getLogs", [QUESTION], [LOG, LOG | {"blockNumber": "0x6", "address": ALICE.address.lower()}]),
        ("anvil_mine", [], None),
    ],
)
def test_what_is_sound(method, params, result):
    """The answers that chains give are taken."""
    assert is_sound(method, params, result)


@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("eth_chainId", [], 31337),
        ("eth_chainId", [], "31337"),
        ("eth_chainId", [], "0x"),
        ("eth_chainId", [], "0x" + "1" * 65),
        ("eth_chainId", [], "0x1\n"),
        ("eth_call", [{}, "latest"], "0x0"),
        ("eth_call", [{}, "latest"], None),
        ("eth_sendRawTransaction", ["0x02"], "0x12"),
        ("eth_getBlockByNumber", ["0x5", False], {"number": "0x6", "hash": HASH}),
        ("eth_getBlockByNumber", ["0x5", False], {"number": "0x5", "hash": "0x5"}),
        ("eth_getBlockByNumber", ["0x5", False], []),
        ("eth_getTransactionReceipt", [HASH], {"transactionHash": "0x" + "ac" * 32}),
        ("eth_getTransactionByHash", [HASH], {"hash": 5}),
        ("eth_getLogs", [QUESTION], None),
        ("eth_getLogs", [QUESTION], [5]),
        ("eth_getLogs", [QUESTION], [LOG | {"blockNumber": "0x7"}]),
        ("eth_getLogs", [QUESTION], [LOG | {"blockNumber": "0x4"}]),
        ("eth_getLogs", [QUESTION], [LOG | {"blockNumber": None}]),
        ("eth_getLogs", [QUESTION], [LOG | {"address": "0x" + "00" * 20}]),
        ("eth_getLogs", [QUESTION], [LOG | {"address": None}]),
    ],
)
def test_what_is_nonsense(method, params, result):
    """Other forms, and answers to another question, are not."""
    assert not is_sound(method, params, result)


@given(method=st.sampled_from(sorted(_CHECKS)), result=JSON)
def test_it_never_raises(method, result):
    """Whatever an end point answers, it is found sound or not."""
    assert is_sound(method, ["0x1"], result) in {True, False}


@pytest.mark.parametrize("bomb", [b"[" * 10**6, b'{"a":' * 10**6, b"[" * 1000 + b"]" * 1000, b'"' + b"[" * 100])
def test_an_answer_that_nests_without_end(bomb):
    """What nests too deep, which would end the process, is no answer; nor is what is not JSON."""
    with pytest.raises(ValueError, match="recursion limit exceeded|EOF while parsing"):
        parse(bomb)


@given(JSON)
def test_answers_are_read(value):
    """Everything else is what the standard parser says, whatever its texts hold."""
    text = json.dumps([value, "]]}[{\\"]).encode()
    assert parse(text) == json.loads(text)
