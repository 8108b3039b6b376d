"""A node with an engine behind it that others run: `transformers serve`, a real process that the tests start."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pos.models import DEFAULT
from tests import checkpoints
from tests.engines import Served, free_port, transformers_serve
from tests.swarms import Node, node, p2pos

TEXT = "The traveller lifted the bronze lantern and"
COUNT = 48


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The default model behind transformers' server, in fp32."""
    with transformers_serve(tmp_path_factory.mktemp("engine"), DEFAULT) as served:
        yield served


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory, engine: Served) -> Iterator[Node]:
    """A node that serves all layers by that engine, and the only one of its swarm."""
    with node(tmp_path_factory.mktemp("replica") / "n", None, "--engine-url", engine.url, "--dtype", "f32") as running:
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


def test_greedy_text_is_that_of_transformers(replica: Node, tmp_path: Path, expected: list[int]) -> None:
    """Through the swarm, with the engine's node alone in it, come the tokens of transformers' own generate."""
    answer = generated(replica.address, tmp_path / "c", "--max-tokens", str(COUNT))
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


def test_a_drawn_text_is_the_same_with_the_same_seed(replica: Node, tmp_path: Path) -> None:
    """The engine's draws follow the seed: the same one gives the same text, and the temperature is heeded."""
    drawn = ("--max-tokens", "16", "--temperature", "1.5", "--seed")
    texts = [generated(replica.address, tmp_path / "c", *drawn, seed)["text"] for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]


def start(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a node that must not come to run."""
    return p2pos("node", "run", *arguments, home=home, check=False)


def test_an_engine_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    """A node whose engine doesn't answer ends at once, by exit code 3, and says which address it tried."""
    url = f"http://127.0.0.1:{free_port()}"
    done = start(tmp_path / "n", "--engine-url", url)
    assert done.returncode == 3
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith(f"no engine answers at {url}: start it, or give another --engine-url")
    )


def test_an_engine_of_another_model_is_refused(engine: Served, tmp_path: Path) -> None:
    """A node whose model splits a text otherwise than the engine does never serves it."""
    other = checkpoints.save(tmp_path / "other", "llama", vocab_size=3538)
    tokenizer = json.loads((DEFAULT / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:300]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = start(tmp_path / "n", "--engine-url", engine.url, "--model", str(other))
    assert done.returncode == 2
    assert "serves another model" in done.stderr.splitlines()[-1]
