"""Text through three real processes."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from p2pos.models import DEFAULT
from tests import checkpoints
from tests.swarms import P2POS, Node, p2pos, swarm

THIRDS = ("0:2", "2:4", "4:6")
PROMPT = [17, 101, 5, 88, 240, 33, 9, 150, 77, 12]


@pytest.fixture(scope="module")
def llama_swarm(tmp_path_factory: pytest.TempPathFactory, checkpoint_of):
    """Three nodes that hold a third of a random Llama each."""
    with swarm(tmp_path_factory.mktemp("llama-swarm"), checkpoint_of("llama"), THIRDS, "--dtype", "f32") as nodes:
        yield nodes


def generate(nodes: list[Node], home: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return p2pos("generate", *arguments, "--bootstrap", nodes[0].address, home=home, check=check)


def greedy_by_transformers(directory: Path, prompt: list[int], count: int) -> list[int]:
    whole = checkpoints.whole(directory)
    ids = torch.tensor([prompt])
    text = whole.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return text[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_greedy_text_is_that_of_transformers(tmp_path: Path, checkpoint_of, kind: str) -> None:
    """64 greedy tokens through three processes are those of transformers' own generate, token for token."""
    directory = checkpoint_of(kind)
    with swarm(tmp_path, directory, THIRDS, "--dtype", "f32") as nodes:
        prompt = " ".join(map(str, PROMPT))
        done = generate(nodes, tmp_path / "c", prompt, "--ids", "--max-tokens", "64", "--json")
        answer = json.loads(done.stdout)
        assert len({node.process.pid for node in nodes}) == 3
        assert [stage["layers"] for stage in answer["route"]] == list(THIRDS)
    assert answer["prompt_ids"] == PROMPT
    assert answer["token_ids"] == greedy_by_transformers(directory, PROMPT, 64)


def test_greedy_text_of_the_default_model_is_that_of_transformers(tmp_path: Path) -> None:
    """The model that ships gives the same 64 tokens, and the same text, as transformers does."""
    from transformers import AutoTokenizer

    layers = json.loads((DEFAULT / "config.json").read_text())["num_hidden_layers"]
    spans = [f"{layers * index // 3}:{layers * (index + 1) // 3}" for index in range(3)]
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT)
    text = "The traveller lifted the bronze lantern and"
    with swarm(tmp_path, None, spans, "--dtype", "f32") as nodes:
        answer = json.loads(generate(nodes, tmp_path / "c", text, "--max-tokens", "64", "--json").stdout)
    assert answer["prompt_ids"] == tokenizer(text)["input_ids"]
    expected = greedy_by_transformers(DEFAULT, answer["prompt_ids"], 64)
    assert answer["token_ids"] == expected
    assert answer["text"] == tokenizer.decode(expected, skip_special_tokens=True)


def test_a_prompt_of_several_chunks_gives_the_same_text(tmp_path: Path) -> None:
    """A prompt longer than a prefill chunk passes in pieces and gives transformers' text all the same."""
    directory = checkpoints.save(tmp_path / "m", "llama", max_position_embeddings=2048)
    prompt = torch.randint(3, 250, (1200,), generator=torch.Generator().manual_seed(3)).tolist()
    with swarm(tmp_path, directory, THIRDS, "--dtype", "f32") as nodes:
        words = " ".join(map(str, prompt))
        answer = json.loads(generate(nodes, tmp_path / "c", words, "--ids", "--max-tokens", "8", "--json").stdout)
    assert answer["token_ids"] == greedy_by_transformers(directory, prompt, 8)


def test_one_node_may_hold_it_all(tmp_path: Path, checkpoint_of) -> None:
    """A swarm of one is head and tail in one, and its text is the same."""
    with swarm(tmp_path, checkpoint_of("llama"), ["0:6"], "--dtype", "f32") as nodes:
        answer = json.loads(generate(nodes, tmp_path / "c", "5 6 7", "--ids", "--json").stdout)
    assert answer["token_ids"] == greedy_by_transformers(checkpoint_of("llama"), [5, 6, 7], 64)


def test_a_seed_fixes_sampled_text(llama_swarm, tmp_path: Path) -> None:
    """The same seed gives the same sampled tokens; another gives others."""
    arguments = ("5 6 7", "--ids", "--json", "--temperature", "1.5", "--top-k", "50", "--max-tokens", "24")
    texts = [
        json.loads(generate(llama_swarm, tmp_path, *arguments, "--seed", seed).stdout)["token_ids"]
        for seed in ("1", "1", "2")
    ]
    assert texts[0] == texts[1] != texts[2]


def test_the_repetition_penalty_is_that_of_transformers(llama_swarm, checkpoint_of, tmp_path: Path) -> None:
    """With a penalty, greedy tokens are still those of transformers, over prompt and text."""
    whole = checkpoints.whole(checkpoint_of("llama"))
    ids = torch.tensor([PROMPT])
    expected = whole.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, repetition_penalty=1.3
    )[0, len(PROMPT) :].tolist()
    words = " ".join(map(str, PROMPT))
    done = generate(
        llama_swarm, tmp_path, words, "--ids", "--json", "--max-tokens", "32", "--repetition-penalty", "1.3"
    )
    assert json.loads(done.stdout)["token_ids"] == expected


def test_every_cache_is_freed_when_the_text_ends(llama_swarm, tmp_path: Path) -> None:
    """After a text, no stage holds a session or a position."""
    generate(llama_swarm, tmp_path, "5 6 7", "--ids")
    for node in llama_swarm:
        assert wait_until_free(node)


def test_ctrl_c_frees_every_cache(llama_swarm, tmp_path: Path) -> None:
    """An interrupted client ends 130, says nothing ugly, and every stage's cache is freed."""
    command = [*P2POS, "--home", str(tmp_path), "generate", "5 6 7", "--ids", "--max-tokens", "500"]
    process = subprocess.Popen(
        [*command, "--bootstrap", llama_swarm[0].address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.read(8)  # tokens are coming
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    for node in llama_swarm:
        assert wait_until_free(node)


def test_a_killed_client_frees_every_cache(llama_swarm, tmp_path: Path) -> None:
    """A client that is killed says nothing; the stages notice that it is gone."""
    command = [*P2POS, "--home", str(tmp_path), "generate", "5 6 7", "--ids", "--max-tokens", "500"]
    process = subprocess.Popen([*command, "--bootstrap", llama_swarm[0].address], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.read(8)
    process.kill()
    process.wait(30)
    process.stdout.close()
    for node in llama_swarm:
        assert wait_until_free(node)


def test_a_prompt_beyond_the_context_is_refused(llama_swarm, tmp_path: Path) -> None:
    """A prompt that fills the context is the user's mistake, in one line."""
    done = generate(llama_swarm, tmp_path, "5 " * 512, "--ids", check=False)
    assert done.returncode == 2
    assert done.stderr == "p2pos: the prompt has 512 tokens; the model's context holds 512: shorten it\n"


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ("", "the prompt is empty"),
        ("5 x", "with --ids the prompt is token ids"),
        ("5" * 5000, "with --ids the prompt is token ids"),
        ("5 256", "token 256 is not in the vocabulary"),
    ],
)
def test_a_prompt_that_is_no_prompt_is_refused(llama_swarm, tmp_path: Path, prompt: str, line: str) -> None:
    """Each wrong prompt gets one line and exit code 2."""
    done = generate(llama_swarm, tmp_path, prompt, "--ids", check=False)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_text_needs_a_tokenizer(llama_swarm, tmp_path: Path) -> None:
    """A checkpoint without a tokenizer takes token ids alone, and the refusal says how."""
    done = generate(llama_swarm, tmp_path, "hello", check=False)
    assert done.returncode == 2
    assert "give token ids with --ids" in done.stderr


def test_missing_layers_are_named(tmp_path: Path, checkpoint_of) -> None:
    """Where a layer is served by nobody, the client says which, and ends 3."""
    with swarm(tmp_path, checkpoint_of("llama"), ["0:2", "4:6"], "--dtype", "f32") as nodes:
        done = generate(nodes, tmp_path / "c", "5 6 7", "--ids", check=False)
    assert done.returncode == 3
    assert "nobody serves layers 2, 3" in done.stderr


def test_a_stage_killed_in_mid_sentence_is_a_clear_error(tmp_path: Path, checkpoint_of) -> None:
    """With no replacement, a node that dies ends the text with the layers that were lost, and frees the rest."""
    with swarm(tmp_path, checkpoint_of("llama"), THIRDS, "--dtype", "f32") as nodes:
        command = [*P2POS, "generate", "5 6 7", "--ids", "--max-tokens", "500", "--bootstrap", nodes[0].address]
        command += ["--patience", "2"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "P2POS_HOME": str(tmp_path)},
        )
        assert process.stdout
        assert process.stdout.read(8)
        nodes[1].stop(signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 3
        assert "Traceback" not in errors
        assert wait_until_free(nodes[0])
        assert wait_until_free(nodes[2])


def wait_until_free(node: Node) -> bool:
    """Ask until the node holds nothing; each question is a round trip, so this does not spin. Bounded."""
    return any((status := node.status())["sessions"] == 0 and status["cached_tokens"] == 0 for _ in range(500))
