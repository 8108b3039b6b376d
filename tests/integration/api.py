"""The HTTP interface as its tests speak to it."""

from typing import Any

import openai

from tests.swarms import Node

MODEL = "tiny-chat"
HELLO: Any = [{"role": "user", "content": "Hello, lantern"}]


def client_of(node: Node, **changes: Any) -> openai.OpenAI:
    """The official client; it doesn't try again, so that what the node answers is what a test sees."""
    return openai.OpenAI(base_url=f"{node.ready['api']}/v1", max_retries=0, **{"api_key": "none", **changes})


def free(nodes: list[Node]) -> bool:
    """Ask until no node holds anything; each question is a round trip, so this does not spin. Bounded."""

    def holds_nothing(node: Node) -> bool:
        status = node.status()
        return status["sessions"] == status["owned_sessions"] == status["cached_tokens"] == 0

    return all(any(holds_nothing(node) for _ in range(500)) for node in nodes)
