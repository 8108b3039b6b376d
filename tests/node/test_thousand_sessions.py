import random
from collections.abc import Sequence
from typing import Any

import psutil
import trio

from p2pos.node.stage_service import StageService
from p2pos.shard import runners
from p2pos.shard.blocks import keys
from p2pos.shard.runners import Paged
from p2pos.shard.stage import Stage
from p2pos.types import ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, Close, Open, Sampling, StageMessage, StageRef, Step, TensorHeader, Tokens

ME = PeerId("this-stage")
SESSIONS = 1000


class Owners:
    """Peers whose sessions end in every way there is: whole, closed, broken, lost, before and after each answer."""

    service: StageService

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.open: dict[bytes, Open] = {}
        self.prompts: dict[bytes, list[int]] = {}
        self.finished = 0
        self.heard = trio.Event()

    def begin(self, number: int) -> None:
        prompt = [7] * self.dice.randrange(70) + [
            self.dice.randrange(3, 250) for _ in range(self.dice.randrange(1, 30))
        ]
        owner = f"owner-peer-{number % 5}"
        order = Open(
            number.to_bytes(16, "big"),
            "the-model",
            owner,
            [StageRef(ME, [], 0, 6)],
            0,
            len(prompt),
            self.dice.randrange(1, 12),
            [],
            Sampling(),
            [],
            keys("the-model", prompt),
        )
        self.open[order.session] = order
        self.prompts[order.session] = prompt
        self.service.on_frame(PeerId(owner), Frame(order))

    async def hear(self, count: int) -> None:
        """Wait for so many messages, as long as any can come."""
        for _ in range(count):
            if self.open:
                await self.heard.wait()

    def end_some(self) -> None:
        for session, order in list(self.open.items()):
            match self.dice.choice(["go on"] * 12 + ["close", "close", "break", "lose"]):
                case "close":
                    self.service.on_frame(PeerId(order.owner), Frame(Close(session)))
                    self.open.pop(session, None)
                case "break":
                    nonsense = Step(session, 3, TensorHeader("f32", [1, 64]))
                    self.service.on_frame(PeerId(order.owner), Frame(nonsense, bytes(256)))
                    self.open.pop(session, None)
                case "lose":
                    self.service.on_lost(PeerId(order.owner))
                    self.open = {name: each for name, each in self.open.items() if each.owner != order.owner}
                    return

    def post(self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: Any = b"") -> None:
        """What the stage sends; an owner sends the rest of its prompt when it is let in."""
        self.heard.set()
        self.heard = trio.Event()
        if isinstance(message, Ack) and message.session in self.open:
            prompt = self.prompts[message.session]
            start = min(message.position, (len(prompt) - 1) // 16 * 16)
            self.service.on_frame(peer, Frame(Tokens(message.session, start, prompt[start:])))
        elif isinstance(message, Tokens) and message.finish:
            self.open.pop(message.session, None)
            self.finished += 1


def test_a_thousand_sessions_leave_nothing_behind(checkpoint_of) -> None:
    """However sessions end, alone or many at once, waiting or running, every block and every byte comes back."""
    stage = Stage.load(checkpoint_of("llama"), dtype="f32")
    process = psutil.Process()

    async def main() -> None:
        runner = runners.choose(stage, max_tokens=400, max_bytes=1 << 30)
        assert isinstance(runner, Paged)
        owners = Owners(random.Random(5))
        service = StageService(ME, ModelId("the-model"), stage, runner, dtype="f32", outbox=owners)
        owners.service = service
        waited = 0
        resident = 0
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            for number in range(SESSIONS):
                owners.begin(number)
                waited = max(waited, service.engine.waiting)
                if number % 7 == 0:
                    await owners.hear(6)
                    owners.end_some()
                if number == SESSIONS // 4:
                    resident = process.memory_info().rss
            await service.drain(60)
            nursery.cancel_scope.cancel()
        assert owners.finished > SESSIONS // 20
        assert waited > 0
        assert service.engine.prefix_tokens > 0
        assert (service.engine.sessions, service.engine.waiting, runner.cached_tokens) == (0, 0, 0)
        assert (runner.blocks.held, runner.blocks.available) == (0, runner.blocks.count)
        assert process.memory_info().rss < resident + (32 << 20)

    trio.run(main)
