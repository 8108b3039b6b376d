"""What the tests of the HTTP interface share: one swarm of two nodes that hold half of a model each."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tokenizers import Tokenizer

from tests import checkpoints
from tests.integration.api import MODEL, client_of
from tests.swarms import Node, swarm


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that can chat and call tools."""
    return checkpoints.save_chat(tmp_path_factory.mktemp("models") / MODEL)


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory, chat_checkpoint: Path) -> Iterator[list[Node]]:
    """Head and tail. The tests ask the head unless they say otherwise."""
    with swarm(tmp_path_factory.mktemp("openai"), chat_checkpoint, ["0:3", "3:6"], "--dtype", "f32") as running:
        yield running


@pytest.fixture(scope="session")
def client(nodes: list[Node]) -> Iterator[openai.OpenAI]:
    """The official client, at the head."""
    with client_of(nodes[0]) as made:
        yield made


@pytest.fixture(scope="session")
def tokenizer(chat_checkpoint: Path) -> Tokenizer:
    """The model's."""
    return Tokenizer.from_file(str(chat_checkpoint / "tokenizer.json"))
