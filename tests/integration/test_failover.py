"""Real nodes that fail in mid-sentence: the text is the one that would have come anyway."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from bench import netns
from bench.faults import TOKEN, Node
from bench.trial import Trial
from p2pos.shard.request import Request
from tests import checkpoints
from tests.failing import AFTER, GREEDY, HEAD, LONG, MIDDLE, SAMPLED, TAIL, Swarm, failing_swarm, when_under_way
from tests.hostile import STEPS
from tests.hostile import TOKENS as TAIL_LIES
from tests.swarms import P2POS

PLACES = pytest.mark.parametrize("place", [HEAD, MIDDLE, TAIL], ids=["head", "middle", "tail"])
needs_networks = pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not() or "there can be networks")
SILENT = pytest.param("silent", marks=pytest.mark.soak)
"""A stage that answers, and sends nothing on, is given a minute: it could be computing."""
LIE_FROM = len(GREEDY.prompt) + 20
"""Position: in mid-sentence."""
PROMPT = " ".join(map(str, GREEDY.prompt))
CLI_TOKENS = 120
"""Enough for a fault to come in time, whatever the machine does meanwhile."""
GONE_S = 120.0
"""For a command to end on a busy machine; one that can't go on waits half a minute for somebody to come."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """Six nodes of a small chat model whose context holds long prompts."""
    directory = tmp_path_factory.mktemp("failing")
    # no token ends a text, so that a fault always comes in time
    model = checkpoints.save_chat(directory / "model", max_position_embeddings=16384, eos_token_id=None)
    with failing_swarm(directory, model) as made:
        yield made


@pytest.fixture
def swarm(running: Swarm) -> Iterator[Swarm]:
    """The six nodes; what a test does to them is undone. Those that were killed may be on their way back still."""
    yield running
    running.recover()


def same(swarm: Swarm, request: Request, trial: Trial) -> None:
    """The text went on through a fault that came in time, and is what was due."""
    assert trial.error is None
    assert trial.failed_s is not None
    assert trial.unhurt < request.max_tokens
    swarm.recover()
    assert trial.tokens == swarm.due(request)
    assert trial.finish_reason == "length"


def kill(*nodes: Node) -> Callable[[], None]:
    """What kills them one right after the other."""

    def them() -> None:
        for node in nodes:
            node.kill()

    return them


@pytest.mark.parametrize(
    ("place", "request_"),
    [(HEAD, GREEDY), (MIDDLE, SAMPLED), (TAIL, SAMPLED)],
    ids=["head", "middle, sampled", "tail, sampled"],
)
def test_a_stage_is_killed(swarm: Swarm, place: int, request_: Request) -> None:
    """SIGKILL in mid-sentence: greedy or by a seed, with a penalty on all tokens so far, the text is the same."""
    victim, _ = swarm.pair(place)
    same(swarm, request_, swarm.text(request_, victim.kill))


@PLACES
def test_a_stage_hangs(swarm: Swarm, place: int) -> None:
    """SIGSTOP: the connections stay open and nothing comes; the text goes on without it, and is the same."""
    victim, _ = swarm.pair(place)
    same(swarm, GREEDY, swarm.text(GREEDY, victim.hang))


@pytest.mark.parametrize("kind", [kind if kind != "silent" else SILENT for kind in TAIL_LIES])
def test_the_tail_sends_nonsense(swarm: Swarm, kind: str) -> None:
    """Tokens that aren't the model's, out of turn or too many, garbage, or silence: the text is the same."""
    _, liar = swarm.pair(TAIL)
    swarm.lie(TAIL, kind, LIE_FROM)
    trial = swarm.text(GREEDY, route=(*swarm.route()[:TAIL], liar))
    assert trial.error is None
    assert trial.tokens == swarm.due(GREEDY)


@pytest.mark.parametrize(
    "places", [(HEAD, MIDDLE), (HEAD, TAIL), (MIDDLE, TAIL)], ids=["head and middle", "both ends", "middle and tail"]
)
def test_two_stages_are_killed_at_once(swarm: Swarm, places: tuple[int, int]) -> None:
    """Neighbours, or with a survivor between them: the text is the same."""
    victims = [swarm.pair(place)[0] for place in places]
    same(swarm, GREEDY, swarm.text(GREEDY, kill(*victims)))


@needs_networks
@PLACES
def test_a_stage_is_cut_off(swarm: Swarm, place: int) -> None:
    """Every packet to and from it is dropped: the text is the same."""
    victim, _ = swarm.pair(place)
    same(swarm, GREEDY, swarm.text(GREEDY, victim.cut))


@pytest.mark.parametrize("kind", [kind if kind != "silent" else SILENT for kind in STEPS])
def test_a_stage_sends_nonsense(swarm: Swarm, kind: str) -> None:
    """Numbers that are none, shapes that don't fit, cut or garbled bytes, or nothing at all: the text is the same."""
    _, liar = swarm.pair(MIDDLE)
    swarm.lie(MIDDLE, kind, LIE_FROM)
    head, _, tail = swarm.route()
    trial = swarm.text(GREEDY, route=(head, liar, tail))
    assert trial.error is None
    assert trial.tokens == swarm.due(GREEDY)


@PLACES
def test_a_stage_is_killed_while_the_prompt_goes_through(swarm: Swarm, place: int) -> None:
    """Nobody has seen a token yet; the text begins late and is the same."""
    victim, _ = swarm.pair(place)
    same(swarm, LONG, swarm.text(LONG, when_under_way(victim, victim.kill), after=0))


def test_a_stage_hangs_while_the_prompt_goes_through(swarm: Swarm) -> None:
    """A chunk that takes long is not a stage that hangs, and one that hangs is found all the same."""
    victim, _ = swarm.pair(MIDDLE)
    same(swarm, LONG, swarm.text(LONG, when_under_way(victim, victim.hang), after=0))


def test_a_stage_runs_out_of_memory(swarm: Swarm) -> None:
    """Its next large allocation fails: whether it says so or dies of it, the text is the same."""
    victim, _ = swarm.pair(TAIL)
    same(swarm, LONG, swarm.text(LONG, when_under_way(victim, victim.starve), after=0))


def test_a_node_that_returns_in_time_is_waited_for(swarm: Swarm) -> None:
    """Where nobody can take the place, the text waits; when a peer is back, it goes on and is the same."""
    both = swarm.pair(MIDDLE)

    def both_die_and_one_returns() -> None:
        kill(*both)()
        swarm.restart(both[0])

    same(swarm, GREEDY, swarm.text(GREEDY, both_die_and_one_returns))


class Typing:
    """A person's command that prints token ids as they come."""

    def __init__(self, swarm: Swarm, home: Path, *options: str) -> None:
        words = ["generate", PROMPT, "--ids", "--max-tokens", str(CLI_TOKENS), *options]
        for address in swarm.addresses():
            words += ["--bootstrap", address]
        self.process = subprocess.Popen(
            [*P2POS, "--home", str(home), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "P2POS_CACHE": str(home / "cache")},
        )

    def begin(self) -> str:
        """What comes first."""
        assert self.process.stdout
        return self.process.stdout.read(24)

    def finish(self) -> tuple[str, str]:
        """The rest, and what it says on standard error: less than a pipe holds, so it can end before it is read."""
        assert self.process.stdout
        assert self.process.stderr
        try:
            self.process.wait(GONE_S)
            return self.process.stdout.read(), self.process.stderr.read()
        finally:
            self.process.kill()


def busy(pair: tuple[Node, Node]) -> Node:
    """The one of two nodes that a text goes through now."""
    return next(node for node in pair if node.serves and node.status()["sessions"])


def test_a_command_goes_on(swarm: Swarm, tmp_path: Path) -> None:
    """What `p2pos generate` prints is the same, and it says nothing of what happened."""
    undisturbed = Typing(swarm, tmp_path).finish()[0]
    pair = swarm.pair(TAIL)
    typing = Typing(swarm, tmp_path)
    begun = typing.begin()
    busy(pair).kill()
    rest, errors = typing.finish()
    assert begun + rest == undisturbed
    assert (typing.process.returncode, errors) == (0, "")


def test_a_stream_of_the_http_interface_goes_on(swarm: Swarm) -> None:
    """Server-sent events of a node that owns the session: one stream, the same text, no error in it."""
    node, _ = swarm.pair(HEAD)
    middle = swarm.pair(MIDDLE)
    with openai.OpenAI(base_url=f"{node.ready['api']}/v1", api_key=TOKEN, max_retries=0, timeout=GONE_S) as client:

        def text(*, fail: bool) -> str:
            pieces = []
            stream = client.completions.create(
                model="model", prompt="The lantern", max_tokens=CLI_TOKENS, temperature=0, stream=True
            )
            for count, chunk in enumerate(stream):
                if fail and count == AFTER:
                    busy(middle).kill()
                pieces.append(chunk.choices[0].text)
            return "".join(pieces)

        undisturbed = text(fail=False)
        assert text(fail=True) == undisturbed


def test_nobody_holds_anything_afterwards(swarm: Swarm) -> None:
    """When all are back, those that were hung or cut too, no node holds a session or a position of these texts."""
    swarm.whole()
    assert all(node.status()["cached_tokens"] == 0 for pair in swarm.pairs for node in pair)


def test_without_a_replacement_the_error_is_clear(swarm: Swarm, tmp_path: Path) -> None:
    """Nobody comes: in bounded time the command ends 3 with one line that names the layers, and survivors are free."""
    both = swarm.pair(MIDDLE)
    typing = Typing(swarm, tmp_path, "--patience", "3")
    typing.begin()
    kill(*both)()
    _, errors = typing.finish()
    assert typing.process.returncode == 3
    assert errors.count("\n") == 1
    assert "2:4" in errors
    survivors = [*swarm.pair(HEAD), *swarm.pair(TAIL)]
    assert all(any(node.status()["sessions"] == 0 for _ in range(500)) for node in survivors)
