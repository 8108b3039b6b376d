import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from p2pos.node.openai.answers import ChatShape, CompletionShape, Delta, event
from p2pos.node.openai.texts import Scored, Spelled
from p2pos.node.openai.tools import Called, Said

SPELLED = st.builds(Spelled, st.binary(max_size=4), st.floats(-100, 0))
SCORED = st.lists(st.builds(Scored, SPELLED, st.tuples(SPELLED), st.integers(0, 9)), max_size=2).map(tuple)
PARTS = st.lists(st.builds(Said, st.text(max_size=5)) | st.builds(Called, st.just("walk"), st.just("{}")), max_size=3)
DELTAS = st.lists(st.builds(Delta, st.just(0), PARTS.map(tuple), SCORED, st.just("")), max_size=5).map(
    lambda deltas: [*deltas, Delta(0, finish="stop")]
)


@given(DELTAS)
def test_the_chunks_of_a_chat_make_the_whole(deltas: list[Delta]) -> None:
    """Text, calls, log-probabilities and the reason, joined as a client joins them."""
    whole = ChatShape().whole(deltas)
    stream = ChatShape()
    chunks = [stream.chunk(delta) for delta in deltas]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == (whole["message"]["content"] or "")
    calls = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", [])]
    assert [call.pop("index") for call in calls] == list(range(len(calls)))
    assert calls == whole["message"].get("tool_calls", [])
    entries = [entry for chunk in chunks if chunk["logprobs"] for entry in chunk["logprobs"]["content"]]
    assert entries == (whole["logprobs"]["content"] if whole["logprobs"] else [])
    assert chunks[-1]["finish_reason"] == whole["finish_reason"] == "stop"


@given(DELTAS)
def test_the_chunks_of_a_completion_make_the_whole(deltas: list[Delta]) -> None:
    """The same for the older kind, whose lists run in parallel."""
    shape = CompletionShape(["Once "])
    whole: Any = shape.whole(deltas)
    opening: Any = shape.opening(0)
    chunks = [opening, *(shape.chunk(delta) for delta in deltas)]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
    for name in ("tokens", "token_logprobs", "text_offset"):
        joined = [entry for chunk in chunks if chunk["logprobs"] for entry in chunk["logprobs"][name]]
        assert joined == (whole["logprobs"][name] if whole["logprobs"] else [])


@given(st.text(max_size=20))
def test_an_event_is_one_line_of_json(text: str) -> None:
    """Whatever the text has of line ends and half characters, the frame of server-sent events holds."""
    data = event({"text": text})
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    assert data.count(b"\n") == 2
    assert b"\r" not in data
    assert isinstance(json.loads(data[6:]), dict)
