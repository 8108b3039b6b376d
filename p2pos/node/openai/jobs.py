"""What a request means for the model that it names: prompts as tokens, a grammar, room, the shape of the answer."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio
from tokenizers import Tokenizer

from p2pos.errors import UserError
from p2pos.node.client import ModelFiles, prepare
from p2pos.node.openai.answers import ChatShape, CompletionShape, Shape
from p2pos.node.openai.catalogue import Catalogue, Known
from p2pos.node.openai.errors import ApiError
from p2pos.node.openai.requests import (
    DEFAULT_CHAT_TOKENS,
    DEFAULT_TOKENS,
    ChatRequest,
    CompletionRequest,
    NamedTool,
    Tool,
    read,
)
from p2pos.node.openai.templates import Renderer, template_of
from p2pos.node.openai.texts import Spelling
from p2pos.node.openai.tools import Form, form_of
from p2pos.shard import grammar as grammars
from p2pos.shard.text import guarded
from p2pos.types import ModelId
from p2pos.wire.messages import Grammar, Sampling

MAX_GRAMMAR = 65_536
"""Characters, on the wire."""
THREADS = 2
"""For tokenizing and compiling: a request of megabytes leaves one for the others."""

T = TypeVar("T")

_NO_TOKENIZER = ApiError(400, "this model has no tokenizer, so it can't be used with text", param="model")


@dataclass(frozen=True, slots=True)
class Job:
    """A request, ready to be written."""

    request: CompletionRequest | ChatRequest
    model: ModelId
    files: ModelFiles
    tokenizer: Tokenizer
    spelling: Spelling
    prompts: list[list[int]]
    wanted: int | None
    """Tokens asked for."""
    default: int
    """Tokens where the request doesn't say."""
    logprobs: int
    """As `Sampling.logprobs`."""
    seed: int
    shape: Shape
    prefix: str
    """Of the answer's id."""
    grammar: Grammar | None = None
    grammar_param: str = ""
    """The request's field that asks for the grammar."""
    form: Form | None = None
    """How the model writes tool calls, where it may make some."""
    one_call: bool = False
    """Whether a text ends with its first tool call."""

    @property
    def count(self) -> int:
        """How many texts."""
        return len(self.prompts) * self.request.n

    def room(self, prompt: list[int]) -> int:
        """Tokens that may follow a prompt. Raises ApiError where it leaves less than was asked for."""
        size = self.files.max_positions
        room = size - len(prompt)
        if room < (self.wanted or 1):
            more = f" and {self.wanted} more" if self.wanted else ""
            raise ApiError(
                400,
                f"the model's context holds {size} tokens; this asks for {len(prompt)} of prompt{more}",
                param="messages" if isinstance(self.request, ChatRequest) else "prompt",
                code="context_length_exceeded",
            )
        return self.wanted or min(room, self.default)

    def sampling(self, seed: int) -> Sampling:
        """How to choose the tokens of the text with this seed."""
        return self.request.sampling(self.files.defaults, seed=seed, logprobs=self.logprobs, grammar=self.grammar)


class Planner:
    """Makes jobs of requests' bodies."""

    def __init__(self, catalogue: Catalogue, renderer: Renderer) -> None:
        self._catalogue = catalogue
        self._renderer = renderer
        self._threads = trio.CapacityLimiter(THREADS)

    async def completion(self, body: bytes) -> Job:
        """Of `/v1/completions`. Raises ApiError."""
        request = await self._in_thread(lambda: read(CompletionRequest, body))
        model, known, spelling, tokenizer = await self._model(request.model)
        prompts = await self._in_thread(lambda: [_ids(tokenizer, prompt) for prompt in request.prompts])
        echoes = [_echo(tokenizer, prompt) for prompt in request.prompts for _ in range(request.n)]
        job = Job(
            request=request,
            model=model,
            files=known.files,
            tokenizer=tokenizer,
            spelling=spelling,
            prompts=prompts,
            wanted=request.max_tokens,
            default=DEFAULT_TOKENS,
            logprobs=0 if request.logprobs is None else request.logprobs + 1,
            seed=_seed(request.seed),
            shape=CompletionShape(echoes if request.echo else ()),
            prefix="cmpl",
        )
        return _checked(job, "prompt")

    async def chat(self, body: bytes) -> Job:
        """Of `/v1/chat/completions`. Raises ApiError."""
        request = await self._in_thread(lambda: read(ChatRequest, body))
        model, known, spelling, tokenizer = await self._model(request.model)
        choice = request.tool_choice or "auto"
        tools = [] if choice == "none" else request.tools or []
        form = _form(known.files, tools)
        grammar, param = _grammar(request, choice, tools, form)
        if grammar is not None:
            await self._check(grammar, param)
        prompt = await self._renderer.render(known.files, request.messages, tools, request.chat_template_kwargs)
        ids = await self._in_thread(
            lambda: guarded(lambda: list(tokenizer.encode(prompt, add_special_tokens=False).ids))
        )
        job = Job(
            request=request,
            model=model,
            files=known.files,
            tokenizer=tokenizer,
            spelling=spelling,
            prompts=[ids],
            wanted=request.max_completion_tokens or request.max_tokens,
            default=DEFAULT_CHAT_TOKENS,
            logprobs=1 + (request.top_logprobs or 0) if request.logprobs else 0,
            seed=_seed(request.seed),
            shape=ChatShape(),
            prefix="chatcmpl",
            grammar=grammar,
            grammar_param=param,
            form=form,
            one_call=request.parallel_tool_calls is False,
        )
        return _checked(job, "messages")

    async def _model(self, name: str) -> tuple[ModelId, Known, Spelling, Tokenizer]:
        served = self._catalogue.find(name)
        known = await self._catalogue.known(served.model)
        if known.files.tokenizer is None or known.spelling is None:
            raise _NO_TOKENIZER
        return served.model, known, known.spelling, known.files.tokenizer

    async def _check(self, grammar: Grammar, param: str) -> None:
        """Have a grammar's faults told before anything is opened."""
        if len(grammar.text) > MAX_GRAMMAR:
            raise ApiError(400, f"the schema is larger than {MAX_GRAMMAR} characters", param=param)
        if not grammar.text:
            raise ApiError(400, "the schema is empty", param=param)
        try:
            await self._in_thread(lambda: grammars.check(grammar))
        except UserError as exc:
            raise ApiError(400, f"the schema can't be used: {exc}", param=param, code="invalid_schema") from exc

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._threads)


def _checked(job: Job, param: str) -> Job:
    """Raises ApiError where a prompt is none, or leaves no room."""
    for prompt in job.prompts:
        job.room(prompt)
        try:
            prepare(job.files, prompt, 1)
        except UserError as exc:
            raise ApiError(400, str(exc), param=param) from exc
    return job


def _seed(seed: int | None) -> int:
    return secrets.randbits(63) if seed is None else seed


def _ids(tokenizer: Tokenizer, prompt: str | list[int]) -> list[int]:
    return guarded(lambda: list(tokenizer.encode(prompt).ids)) if isinstance(prompt, str) else prompt


def _echo(tokenizer: Tokenizer, prompt: str | list[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    return guarded(lambda: str(tokenizer.decode(prompt)))


def _form(files: ModelFiles, tools: list[Tool]) -> Form | None:
    if not tools:
        return None
    form = form_of(template_of(files, tools=True))
    if form is None:
        raise ApiError(
            400, "this model's chat template knows no tools, or writes calls in a form not known here", param="tools"
        )
    return form


def _grammar(
    request: ChatRequest, choice: str | NamedTool, tools: list[Tool], form: Form | None
) -> tuple[Grammar | None, str]:
    """What the answer is held to, and which field of the request asks for that."""
    wanted = request.response_format
    schema = wanted is not None and wanted.type != "text"
    if form is not None and schema:
        raise ApiError(
            400, "response_format and tools exclude each other; set tool_choice to none", param="response_format"
        )
    if form is not None and isinstance(choice, NamedTool):
        return form.grammar([tool for tool in tools if tool.function.name == choice.function.name]), "tools"
    if form is not None and choice == "required":
        return form.grammar(tools), "tools"
    if wanted is None or not schema:
        return None, ""
    return grammars.schema(
        wanted.json_schema.definition if wanted.json_schema else {"type": "object"}
    ), "response_format"
