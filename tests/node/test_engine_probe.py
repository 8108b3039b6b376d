"""What is found out of an engine: against real HTTP servers that answer as each make's own documents say."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from p2pos.errors import P2posError, UnavailableError, UserError
from p2pos.models import DEFAULT
from p2pos.node import engine_probe
from p2pos.node.engine_api import Make
from p2pos.node.engine_client import EngineClient
from p2pos.node.engine_probe import Found, Model, waiting
from p2pos.node.engine_text import Spelling
from tests.engines import STREAM, answer, event, misbehaving

TOKENIZER = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
MODEL = Model("lantern", 3538, 2048, Spelling(TOKENIZER))
WRITES = TOKENIZER.encode(
    " merchant said that the way was long and that he would go with him.", add_special_tokens=False
).ids
ODD = "zq7zq7zq7"


@dataclass
class Engine:
    """Answers as an engine of some make does."""

    models: Any
    ids: bool = True
    """Whether it gives token ids where it's asked for them."""
    grammars: bool = True
    """Whether it knows the fields for them."""
    counts: int | None = None
    """Tokens that it makes of any text."""
    paths: dict[str, Any] = field(default_factory=dict)
    """What else it answers to."""
    completions: str = "/v1/completions"
    status: str = "200 OK"
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, stream: trio.SocketStream, line: str, body: bytes) -> None:
        path = line.split()[1]
        if path == "/v1/models":
            await stream.send_all(answer(self.models, status=self.status))
        elif path in self.paths:
            await stream.send_all(answer(self.paths[path]))
        elif path == self.completions:
            await self._write(stream, json.loads(body))
        else:
            await stream.send_all(answer({"detail": "Not Found"}, status="404 Not Found"))

    async def _write(self, stream: trio.SocketStream, wish: dict[str, Any]) -> None:
        self.asked.append(wish)
        await stream.send_all(STREAM)
        wants = {"structured_outputs", "regex", "json_schema"} & wish.keys()
        said = TOKENIZER.encode(ODD, add_special_tokens=False).ids if wants and self.grammars else WRITES
        for number, token in enumerate(said[: wish.get("max_tokens") or wish["n_predict"]]):
            if number:
                await trio.sleep(0.001)  # so that it has a speed
            text = TOKENIZER.decode([token])
            if self.completions == "/completion":
                await stream.send_all(event(content=text, tokens=[token], stop=False))
                continue
            ids = {"token_ids": [token]} if self.ids and wish.get("return_token_ids") else {}
            if ids and not number:
                ids["prompt_token_ids"] = wish["prompt"]
            await stream.send_all(event(choices=[{"index": 0, "text": text, "finish_reason": None, **ids}]))
        if self.completions == "/completion":
            await stream.send_all(event(content="", tokens=[], stop=True, stop_type="limit", tokens_evaluated=3))
            return
        usage = {} if self.counts is None else {"usage": {"prompt_tokens": self.counts}}
        await stream.send_all(event(choices=[{"index": 0, "text": "", "finish_reason": "length"}], **usage))
        await stream.send_all(b"data: [DONE]\n\n")


def listing(*names: str, owner: str = "", **more: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": owner, **more} for name in names]}


def with_client(engine: Engine, act: Callable[[EngineClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(misbehaving, engine)
            async with EngineClient(url) as client:
                result = await act(client)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main)


def found(engine: Engine, *, model: Model = MODEL, wanted: str = "", places: int = 0) -> Found:
    result: Found = with_client(engine, lambda client: engine_probe.find(client, model, wanted=wanted, places=places))
    return result


def refused(engine: Engine, kind: type[P2posError] = UserError, **changes: Any) -> P2posError:
    async def act(client: EngineClient) -> P2posError:
        with pytest.raises(kind) as caught:
            await engine_probe.find(client, changes.get("model", MODEL), wanted=changes.get("wanted", ""), places=0)
        return caught.value

    error: P2posError = with_client(engine, act)
    assert "\n" not in str(error)
    return error


def test_vllm_passes_tokens_and_holds_grammars() -> None:
    """It is known by its list; ids, grammars and speed are found by having it write."""
    engine = Engine(listing("org/lantern", owner="vllm", max_model_len=512))
    result = found(engine)
    assert (result.can.make, result.can.model, result.can.tokens) == (Make.VLLM, "org/lantern", True)
    assert (result.can.context, result.can.places, result.can.logprobs) == (512, 64, True)
    assert result.can.grammars == {"json_schema", "regex"}
    assert result.tokens_per_s > 0
    assert all(asked["model"] == "org/lantern" and isinstance(asked["prompt"], list) for asked in engine.asked)


def test_a_field_that_an_engine_does_not_know_is_found_out() -> None:
    """A version that leaves a grammar out without a word is not believed to hold one."""
    result = found(Engine(listing("m", owner="sglang"), grammars=False))
    assert (result.can.make, result.can.tokens, result.can.grammars) == (Make.SGLANG, True, frozenset())


def test_an_engine_without_ids_passes_text() -> None:
    """A version that gives no token ids is used by its text, as any other engine is."""
    result = found(Engine(listing("m", owner="vllm"), ids=False))
    assert (result.can.make, result.can.tokens, result.can.logprobs) == (Make.OTHER, False, False)


def test_llama_server_says_how_many_it_writes_at_a_time() -> None:
    """Its slots and context count, and a grammar that it is asked for in its own field."""
    props = {"total_slots": 3, "default_generation_settings": {"n_ctx": 1024}}
    engine = Engine(listing("m.gguf", owner="llamacpp"), completions="/completion", paths={"/props": props})
    result = found(engine)
    assert (result.can.make, result.can.places, result.can.context) == (Make.LLAMA, 3, 1024)
    assert (result.can.tokens, result.can.grammars) == (True, {"json_schema"})
    assert found(engine, places=7).can.places == 7


@pytest.mark.parametrize(("special", "adds"), [(False, False), (True, True)])
def test_what_an_engine_makes_of_a_text_is_counted(special: bool, adds: bool) -> None:
    """Whether it puts a first token before a text shows in how many tokens it counts."""
    count = len(TOKENIZER.encode(engine_probe.SAMPLE, add_special_tokens=special).ids)
    assert found(Engine(listing("m"), counts=count)).can.adds_special is adds


def test_an_engine_that_counts_other_tokens_is_refused() -> None:
    """One that splits a text otherwise serves another model."""
    assert "serves another model" in refused(Engine(listing("m"), counts=99)).message


def test_names_are_told_apart() -> None:
    """The only model is it, or the one of the checkpoint's name; else the person has to say, and is told the names."""
    several = listing("a", "org/lantern", "b")
    assert found(Engine(several)).can.model == "org/lantern"
    assert found(Engine(several), wanted="b").can.model == "b"
    assert "give --engine-model, one of: a, b" in refused(Engine(listing("a", "b"))).hint
    wrong = refused(Engine(several), wanted="c")
    assert ("serves no model “c”" in wrong.message, wrong.hint) == (True, "it lists: a, org/lantern, b")


@pytest.mark.parametrize(
    ("engine", "kind", "why"),
    [
        (Engine({}, status="401 Unauthorized"), UserError, "asks for a key"),
        (Engine({}, status="404 Not Found"), UserError, "no OpenAI-compatible engine (GET /v1/models: 404)"),
        (Engine(b"<html>"), UserError, "no OpenAI-compatible engine"),
        (Engine({"data": [{"id": 7}]}), UserError, "no OpenAI-compatible engine"),
        (Engine({"data": "x"}), UserError, "no OpenAI-compatible engine"),
        (Engine({}, status="503 Loading"), UnavailableError, "answers 503 when asked for its models"),
        (Engine(listing("m"), completions="/v1/chat/completions"), UserError, "has no /v1/completions"),
    ],
)
def test_what_will_not_do_is_one_line(engine: Engine, kind: type[P2posError], why: str) -> None:
    """A missing key, something that is no engine, one that loads still, one that only chats: each is told apart."""
    assert why in refused(engine, kind).message


def test_an_engine_of_text_needs_a_tokenizer() -> None:
    """A model that has none can only pass tokens."""
    bare = Model("lantern", 3538, 2048, None)
    assert "tokenizer.json" in refused(Engine(listing("m")), model=bare).message
    assert found(Engine(listing("m", owner="vllm")), model=bare).can.tokens


def test_the_queue_is_read_from_its_metrics() -> None:
    """The gauge is summed over its labels, whatever else stands there."""
    text = (
        b"# HELP vllm:num_requests_waiting Number of requests waiting.\n# TYPE vllm:num_requests_waiting gauge\n"
        b'vllm:num_requests_waiting{engine="0",model_name="m"} 3.0\nvllm:num_requests_waiting{engine="1"} 4.0\n'
        b'vllm:num_requests_waiting_total{engine="0"} 9.0\nvllm:num_requests_running{engine="0"} 2.0\n'
    )
    assert waiting(text, b"vllm:num_requests_waiting") == 7
    assert waiting(b"llamacpp:requests_deferred 5\n", b"llamacpp:requests_deferred") == 5
    engine = Engine(listing("m", owner="vllm"), paths={"/metrics": text})
    assert with_client(engine, lambda client: engine_probe.queue(client, Make.VLLM)) == 7
    assert with_client(Engine(listing("m")), lambda client: engine_probe.queue(client, Make.VLLM)) == 0


@given(st.binary(max_size=200))
def test_no_metrics_do_harm(data: bytes) -> None:
    """Whatever stands there, the queue is a number that is not negative."""
    assert waiting(b"q " + data + b"\nq{x} 1\n" + data, b"q") >= 0
