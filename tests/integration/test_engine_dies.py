"""A text whose engine dies goes on at nodes that compute themselves."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from p2pos.models import DEFAULT
from tests import checkpoints
from tests.engines import forwarded, free_port, transformers_serve
from tests.integration.api import client_of
from tests.swarms import Node, node

TEXT = "The traveller lifted the bronze lantern and"
COUNT = 48


def expected() -> str:
    """transformers' own greedy text."""
    tokenizer = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode(TEXT).ids])
    text = checkpoints.whole(DEFAULT).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=COUNT, do_sample=False
    )
    return str(tokenizer.decode(text[0, ids.shape[1] :].tolist()))


def until(node_: Node, holds: Any) -> None:
    """Ask a node for its status until something holds of it."""
    deadline_s = time.monotonic() + 60
    while not holds(node_.status()):
        assert time.monotonic() < deadline_s, node_.log.read_text()
        time.sleep(0.1)


def test_a_text_outlives_its_engine(tmp_path: Path) -> None:
    """An engine is killed in mid-text: the text goes on at nodes that compute, and is the same to its end."""
    port = free_port()
    with (
        transformers_serve(tmp_path / "engine", DEFAULT) as engine,
        node(tmp_path / "n0", None, "--engine-url", engine.url, "--dtype", "f32") as replica,
        node(tmp_path / "n1", None, "--layers", "0:3", "--dtype", "f32") as head,
    ):
        _, _, _, _, to, _, peer = replica.address.split("/")
        later = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"  # the two swarms know nothing of one another yet
        joins = ("--bootstrap", head.address, "--bootstrap", later)
        with node(tmp_path / "n2", None, "--layers", "3:6", "--dtype", "f32", *joins), client_of(replica) as client:
            stream = client.completions.create(
                model=replica.status()["model"], prompt=TEXT, max_tokens=COUNT, temperature=0, stream=True
            )
            text = next(iter(stream)).choices[0].text
            engine.stop()
            with forwarded(port, int(to)):
                text += "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
                until(replica, lambda status: status["draining"] and not status["engine"]["up"])
    assert text == expected()
    told = [json.loads(line) for line in replica.log.read_text().splitlines()]
    assert [each["url"] for each in told if each["event"] == "the engine is down"] == [engine.url]
    assert any(each["event"] == "rerouted" for each in told)
