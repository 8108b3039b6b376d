"""`python -m bench generate`: text through three processes, against the same checkpoint in one process.

The default model in fp32, one torch thread per process, greedy. Each repeat generates the same text twice, through
the swarm and in this process, one right after the other; `ratio` is the median of the pairs' ratios. A token of the
swarm passes three hops (head → middle → tail → head), so a hop's overhead is a third of the time that a token takes
longer than in one process.
"""

import itertools
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import torch
import trio

from bench.harness import Figures
from p2pos.devnet import plan
from p2pos.devnet.home import Home
from p2pos.devnet.processes import Process
from p2pos.errors import InternalError
from p2pos.models import DEFAULT
from p2pos.node.client import fetch_model_files
from p2pos.node.visitor import Visitor, visit
from p2pos.shard import sampling
from p2pos.shard.request import Request
from p2pos.shard.routing import route
from p2pos.shard.stage import Stage
from p2pos.types import PeerId
from p2pos.wire.messages import Sampling

STAGES = 3
PROMPT = "The traveller lifted the bronze lantern and"
GREEDY = Sampling()


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set `tok_s`, `single_process_tok_s`, `ratio`, `ttft_ms`, `hop_ms_p50`; return how often each was measured."""
    repeats, tokens = (3, 64) if quick else (9, 128)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        pairs = trio.run(_measure, Path(directory), device, repeats, tokens)
    swarm_s, single_s, first_s = (list(column) for column in zip(*pairs, strict=True))
    figures.median("tok_s", [1 / each for each in swarm_s])
    figures.median("single_process_tok_s", [1 / each for each in single_s])
    figures.median("ratio", [single / swarm for swarm, single in zip(swarm_s, single_s, strict=True)])
    figures.median("ttft_ms", [each * 1e3 for each in first_s])
    figures.median(
        "hop_ms_p50", [(swarm - single) / STAGES * 1e3 for swarm, single in zip(swarm_s, single_s, strict=True)]
    )
    return repeats


async def _measure(directory: Path, device: str, repeats: int, tokens: int) -> list[tuple[float, float, float]]:
    """Per repeat: seconds per token through the swarm, in one process, and to the swarm's first token."""
    stage = Stage.load(DEFAULT, dtype=plan.DTYPE, device=device)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        bootstrap = await _start_nodes(nursery, directory, device)
        swarm = await stack.enter_async_context(visit(bootstrap))
        pairs = []
        for number in range(repeats + 1):
            prompt, theirs, swarm_s, first_s = await _through_swarm(swarm, tokens)
            mine, single_s = await trio.to_thread.run_sync(_in_one_process, stage, prompt, tokens)
            if theirs != mine:
                raise InternalError(f"the texts differ: {theirs} and {mine}")
            print(f"{number}: {1 / swarm_s:.1f} tok/s, in one process {1 / single_s:.1f}", file=sys.stderr)
            pairs.append((swarm_s, single_s, first_s))
        return pairs[1:]  # the first warms caches and connections up


async def _start_nodes(nursery: trio.Nursery, directory: Path, device: str) -> list[str]:
    request = plan.Request(Home(directory), directory / "cache", STAGES, DEFAULT, "")
    spans = plan.split_layers(plan.layer_count(DEFAULT), STAGES)
    addresses: list[str] = []
    for name, span in zip(plan.node_names(STAGES), spans, strict=True):
        command = plan.node_command(request, name, span, port=0, api_port=0, bootstrap=addresses[:1])
        command = replace(command, argv=(*command.argv, "--device", device))
        process = Process(name, directory / f"{name}.log", lambda _: None)
        ready = await nursery.start(process.run, command)
        addresses += ready["addresses"][:1]
    return addresses


async def _through_swarm(swarm: Visitor, tokens: int) -> tuple[list[int], list[int], float, float]:
    """The prompt, the text, seconds per token after the first, seconds to the first."""
    model = swarm.choose_model("")
    stages = route(swarm.announcements, model)
    if len(stages) != STAGES:
        raise InternalError(f"the route has {len(stages)} stages in place of {STAGES}")
    head = PeerId(stages[0].peer)
    await swarm.host.connect(head, stages[0].addresses)
    files = await fetch_model_files(swarm.host, head, model)
    if files.tokenizer is None:
        raise InternalError("the default model has no tokenizer")
    prompt: list[int] = list(files.tokenizer.encode(PROMPT).ids)
    text = []
    began_s = trio.current_time()
    arrivals = []
    # no end-of-sequence token: the same number of tokens every time
    async with swarm.client.generate(model, stages, Request(tuple(prompt), tokens)) as generation:
        async for token in generation:
            arrivals.append(trio.current_time())
            text.append(token)
    return prompt, text, (arrivals[-1] - arrivals[0]) / (len(arrivals) - 1), arrivals[0] - began_s


def _in_one_process(stage: Stage, prompt: list[int], tokens: int) -> tuple[list[int], float]:
    """The text, and seconds per token after the first."""
    cache = stage.new_cache()
    text: list[int] = []
    inputs, arrivals = prompt, []
    for position in itertools.count(len(prompt)):
        logits = stage.run(torch.tensor(inputs), cache, want_logits=True)
        token = sampling.choose(logits, GREEDY, prompt=prompt, generated=text, position=position).token
        arrivals.append(time.perf_counter())
        text.append(token)
        inputs = [token]
        if len(text) == tokens:
            break
    return text, (arrivals[-1] - arrivals[0]) / (len(arrivals) - 1)
