"""Sessions of three stages, for the tests of both ends."""

from typing import Any

from p2pos.shard.owner import OwnerSession
from p2pos.shard.request import Request
from p2pos.shard.session import CHUNK, StageSession
from p2pos.types import PeerId, SessionId
from p2pos.wire.messages import Open, Sampling, StageRef, TensorHeader

SESSION = SessionId(bytes(16))
OWNER = PeerId("owner-peer")
HIDDEN = TensorHeader("f32", [1, 4])


def stages(count: int) -> list[StageRef]:
    return [StageRef(f"stage-{index}", [], index, index + 1) for index in range(count)]


def order(index: int, count: int = 3, **changes: Any) -> Open:
    values: dict[str, Any] = {
        "session": SESSION,
        "model": "model",
        "owner": OWNER,
        "stages": stages(count),
        "index": index,
        "prompt_length": 4,
        "max_tokens": 8,
        "eos": [2],
        "sampling": Sampling(),
        "history": [],
    }
    return Open(**{**values, **changes})


def stage(index: int, count: int = 3, *, cached: int = 0, chunk: int = CHUNK, **changes: Any) -> StageSession:
    """A session that has been let in, with so many positions of its prefix."""
    me, sender = PeerId(f"stage-{index}"), PeerId(changes.get("owner", OWNER))
    session = StageSession(order(index, count, **changes), me=me, sender=sender, now_s=0.0, chunk=lambda: chunk)
    session.start(cached)
    return session


def owner(count: int = 3, **changes: Any) -> OwnerSession:
    values: dict[str, Any] = {"prompt": (5, 6, 7, 8), "max_tokens": 8, "eos": (2,)}
    request = Request(**{**values, **changes})
    return OwnerSession(SESSION, me=OWNER, model="model", stages=stages(count), request=request, now_s=0.0)


def header(rows: int) -> TensorHeader:
    return TensorHeader("f32", [rows, 4])
