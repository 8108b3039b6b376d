import json
from typing import Any

import pytest
import trio

from p2pos.content import cid
from p2pos.errors import PeerError, UserError
from p2pos.node.client import ModelFiles, fetch_model_files, prepare
from p2pos.node.content_service import ContentService
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.shard.manifest import Manifest
from p2pos.types import ModelId
from p2pos.wire.messages import CONTENT_PROTOCOL, MAX_CONTEXT


def files(**config: Any) -> ModelFiles:
    return ModelFiles(ModelId("m"), {"vocab_size": 100, "max_position_embeddings": 16, **config}, {}, None)


def test_a_text_ends_with_the_context() -> None:
    """More tokens than the context holds are not asked for."""
    assert prepare(files(), [1, 2, 3], 64) == 13
    assert prepare(files(), [1, 2, 3], 5) == 5


def test_a_context_beyond_the_wire_is_cut_to_it() -> None:
    """However much a model claims to hold, no more is asked for than a message can count."""
    assert files(max_position_embeddings=10 << 20).max_positions == MAX_CONTEXT


@pytest.mark.parametrize(
    ("prompt", "line"),
    [([], "empty"), ([1] * 16, "has 16 tokens; the model's context holds 16"), ([100], "token 100 is not in")],
)
def test_a_prompt_that_cannot_be_continued_is_refused(prompt: list[int], line: str) -> None:
    """Nothing, too much, or what is no token."""
    with pytest.raises(UserError, match=line):
        prepare(files(), prompt, 4)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [2, 3]}, {"eos_token_id": 9}, (2, 3)),
        ({"eos_token_id": 2}, {}, (2,)),
        ({}, {"eos_token_id": 9}, (9,)),
        ({}, {}, ()),
        ({}, {"text_config": {"eos_token_id": 7, "max_position_embeddings": 4}}, (7,)),
    ],
)
def test_what_ends_a_text(generation: dict[str, Any], config: dict[str, Any], expected: tuple[int, ...]) -> None:
    """generation_config's word comes first, one id or several; then the config's, nested or not."""
    assert ModelFiles(ModelId("m"), config, generation, None).eos == expected


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"text_config": 1},
        {"vocab_size": "many"},
        {"max_position_embeddings": [1]},
        {"vocab_size": float("inf")},
        {"vocab_size": 0},
        {"vocab_size": 1 << 40},
        {"max_position_embeddings": -1},
        {"vocab_size": 100, "eos_token_id": 100},
        {"vocab_size": 100, "eos_token_id": [-1]},
        {"vocab_size": 100, "eos_token_id": [1] * 65},
    ],
    ids=lambda config: str(config)[:60],
)
def test_a_model_of_nonsense_is_the_peers_fault(config: Any) -> None:
    """Files that hash to the model's id may still be no model's; who serves them is at fault."""
    body = json.dumps(config).encode()
    made = Manifest({"config.json": cid.of(body)}, {})

    async def main() -> None:
        async with open_host(Identity.new(), ["/ip4/127.0.0.1/tcp/0"]) as server, open_host(Identity.new()) as client:
            blocks = {cid.of(made.to_bytes()): made.to_bytes(), cid.of(body): body}
            server.serve(CONTENT_PROTOCOL, ContentService(blocks).serve)
            await client.connect(server.peer, server.addresses)
            with pytest.raises(PeerError, match="can't be read"):
                await fetch_model_files(client, server.peer, made.model_id)

    trio.run(main)
