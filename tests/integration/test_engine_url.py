"""A node with an engine behind it that others run: `transformers serve`, a real process that the tests start."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tokenizers import Tokenizer

from p2pos.models import DEFAULT
from tests import checkpoints
from tests.engines import Served, forwarded, free_port, transformers_serve
from tests.integration.api import client_of
from tests.swarms import Node, node, p2pos

TEXT = "The traveller lifted the bronze lantern and"
COUNT = 48


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all homes lie, so that the model is named by its content once."""
    return tmp_path_factory.mktemp("engine-url")


@pytest.fixture(scope="module")
def engine(place: Path) -> Iterator[Served]:
    """The default model behind transformers' server, in fp32."""
    with transformers_serve(place / "engine", DEFAULT) as served:
        yield served


@pytest.fixture(scope="module")
def replica(place: Path, engine: Served) -> Iterator[Node]:
    """A node that serves all layers by that engine, and the only one of its swarm."""
    with node(place / "replica", None, "--engine-url", engine.url, "--dtype", "f32") as running:
        yield running


def generated(bootstrap: str, home: Path, *arguments: str) -> dict[str, Any]:
    done = p2pos("generate", TEXT, *arguments, "--bootstrap", bootstrap, "--json", home=home)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def expected() -> list[int]:
    """transformers' own greedy tokens."""
    from transformers import AutoTokenizer

    prompt = AutoTokenizer.from_pretrained(DEFAULT)(TEXT, return_tensors="pt")
    text = checkpoints.whole(DEFAULT).generate(**prompt, max_new_tokens=COUNT, do_sample=False)
    return list(text[0, prompt["input_ids"].shape[1] :].tolist())


def test_greedy_text_is_that_of_transformers(replica: Node, place: Path, expected: list[int]) -> None:
    """Through the swarm, with the engine's node alone in it, come the tokens of transformers' own generate."""
    answer = generated(replica.address, place / "client", "--max-tokens", str(COUNT))
    assert [stage["layers"] for stage in answer["route"]] == ["0:6"]
    assert answer["token_ids"] == expected


def test_the_node_says_what_its_engine_is(replica: Node, engine: Served) -> None:
    """Status and announcement have the engine's measured speed and places, and no weights were read."""
    status = replica.status()
    assert status["engine"] | {"tokens_per_s_alone": 0} == {
        "url": engine.url,
        "make": "transformers serve",
        "model": "",
        "up": True,
        "passes": "text",
        "places": 1,
        "context": 2048,
        "grammars": [],
        "tokens_per_s_alone": 0,
    }
    assert (status["layers"], status["weight_bytes"]) == ("0:6", 0)
    assert status["layer_tokens_per_s"] == pytest.approx(6 * status["engine"]["tokens_per_s_alone"], rel=0.01)
    assert status["layer_tokens_per_s"] > 0


def test_a_drawn_text_is_the_same_with_the_same_seed(replica: Node) -> None:
    """The engine's draws follow the seed: the same one gives the same text, and the temperature is heeded."""
    with client_of(replica) as client:
        texts = [
            client.completions.create(model="lantern", prompt=TEXT, max_tokens=16, temperature=1.5, seed=seed)
            for seed in (1, 1, 2)
        ]
    first, again, other = (each.choices[0].text for each in texts)
    assert first == again != other


def test_what_the_engine_cannot_do_is_refused_at_once(replica: Node) -> None:
    """A text with a penalty that this engine would leave out is not written: the answer says what it can't do."""
    with client_of(replica) as client, pytest.raises(openai.APIStatusError, match="presence and frequency penalty"):
        client.completions.create(model="lantern", prompt=TEXT, max_tokens=4, presence_penalty=1.0)


def start(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a node that must not come to run."""
    return p2pos("node", "run", *arguments, home=home, check=False)


def test_an_engine_that_is_not_there_is_one_clear_line(place: Path) -> None:
    """A node whose engine doesn't answer ends at once, by exit code 3, and says which address it tried."""
    url = f"http://127.0.0.1:{free_port()}"
    done = start(place / "alone", "--engine-url", url)
    assert done.returncode == 3
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith(f"no engine answers at {url}: start it, or give another --engine-url")
    )


def test_an_engine_of_another_model_is_refused(engine: Served, place: Path) -> None:
    """A node whose model splits a text otherwise than the engine does never serves it."""
    other = checkpoints.save(place / "model", "llama", vocab_size=3538)
    tokenizer = json.loads((DEFAULT / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:300]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = start(place / "other", "--engine-url", engine.url, "--model", str(other))
    assert done.returncode == 2
    assert "serves another model" in done.stderr.splitlines()[-1]


def until(node_: Node, holds: Any) -> None:
    """Ask a node for its status until something holds of it."""
    deadline_s = time.monotonic() + 60
    while not holds(node_.status()):
        assert time.monotonic() < deadline_s, node_.log.read_text()
        time.sleep(0.1)


def test_a_text_outlives_its_engine(replica: Node, engine: Served, place: Path, expected: list[int]) -> None:
    """An engine is killed in mid-text: the text goes on at nodes that compute, and is the same to its end.

    It's the last test of this file: nobody starts the engine again.
    """
    port = free_port()
    _, _, _, _, to, _, peer = replica.address.split("/")
    later = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"  # the two swarms know nothing of one another yet
    with node(place / "n1", None, "--layers", "0:3", "--dtype", "f32") as head:
        joins = ("--bootstrap", head.address, "--bootstrap", later)
        with node(place / "n2", None, "--layers", "3:6", "--dtype", "f32", *joins), client_of(replica) as client:
            stream = client.completions.create(
                model="lantern", prompt=TEXT, max_tokens=COUNT, temperature=0, stream=True
            )
            text = next(iter(stream)).choices[0].text
            engine.stop()
            with forwarded(port, int(to)):
                text += "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
                until(replica, lambda status: status["draining"] and not status["engine"]["up"])
    assert text == Tokenizer.from_file(str(DEFAULT / "tokenizer.json")).decode(expected)
    told = [json.loads(line) for line in replica.log.read_text().splitlines()]
    assert [each["url"] for each in told if each["event"] == "the engine is down"] == [engine.url]
    assert any(each["event"] == "rerouted" for each in told)
