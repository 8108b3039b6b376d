"""Plain `transformers` in a process of its own, with one torch thread: what a person would run without a swarm.

Run as a program, `python -m bench.reference CHECKPOINT DEVICE`, it loads the checkpoint as it is stored, says
`{"ready": true}`, and answers each line of standard input, `{"prompt": [ids], "tokens": n}`, with a line of JSON:
the token ids and the time of each, in seconds since the question.
"""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bench.swarm import Text
from p2pos.errors import UnavailableError

ANSWER_S = 600.0
"""For one text, or for loading."""


class Reference:
    """The other end of that program."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def text(self, prompt: Sequence[int], tokens: int) -> Text:
        """Generate so many tokens greedily."""
        question = json.dumps({"prompt": list(prompt), "tokens": tokens}).encode() + b"\n"
        if self._process.stdin is None:
            raise UnavailableError("transformers has no standard input")
        began_s = trio.current_time()
        await self._process.stdin.send_all(question)
        answer = await self.line()
        arrivals_s = tuple(began_s + each for each in answer["seconds"])
        return Text(tuple(answer["tokens"]), began_s, arrivals_s)

    async def line(self) -> dict[str, Any]:
        """The next line of JSON that it says. Raises UnavailableError where it ends or stays silent."""
        with trio.move_on_after(ANSWER_S):
            while self._process.stdout is not None and b"\n" not in self._buffer:
                chunk = await self._process.stdout.receive_some()
                if not chunk:
                    raise UnavailableError("the process that runs transformers has ended; see above why")
                self._buffer += chunk
            line, _, self._buffer = self._buffer.partition(b"\n")
            return dict(json.loads(line))
        raise UnavailableError(f"transformers did not answer in {ANSWER_S:g} s")


@asynccontextmanager
async def reference(model: Path, *, device: str) -> AsyncIterator[Reference]:
    """Run it for as long as the context lasts."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bench.reference", str(model), device], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        one = Reference(process)
        await one.line()
        yield one
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def _serve(model: Path, device: str) -> None:
    import torch  # noqa: PLC0415 - the client's side needs neither
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from transformers.generation.streamers import BaseStreamer  # noqa: PLC0415

    class Clock(BaseStreamer):  # type: ignore[misc]  # transformers ships no types
        """Notes when each token comes."""

        def __init__(self) -> None:
            self.arrivals: list[float] = []

        def put(self, _value: Any) -> None:
            self.arrivals.append(time.perf_counter())

        def end(self) -> None: ...

    torch.set_num_threads(1)
    network = AutoModelForCausalLM.from_pretrained(model, dtype="auto").to(device).eval()
    network.generation_config.eos_token_id = None  # the same number of tokens every time
    network.generation_config.pad_token_id = 0
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        question, began_s = json.loads(line), time.perf_counter()
        prompt = torch.tensor([question["prompt"]], device=device)
        clock = Clock()
        output = network.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=question["tokens"],
            streamer=clock,
        )
        # the first thing that a streamer is given is the prompt
        seconds = [arrival_s - began_s for arrival_s in clock.arrivals[1:]]
        print(json.dumps({"tokens": output[0, prompt.shape[1] :].tolist(), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
