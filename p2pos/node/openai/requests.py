"""What a client may ask for: bodies of `/v1/completions` and `/v1/chat/completions`, checked as they are read.

Fields of OpenAI's that only a hosted service can mean (`user`, `store`, `metadata`, …) are passed over. Fields that
would change the text and aren't supported are refused, so that nobody takes the answer for what it isn't.
"""

import hashlib
from dataclasses import replace
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from p2pos.node.openai.errors import ApiError
from p2pos.shard.generation import Defaults
from p2pos.wire.messages import MAX_CONTEXT, MAX_INT, Grammar, Sampling

MAX_SEQUENCES = 16
"""Texts that one request may ask for, `n` times its prompts: a quarter of the sessions that one stage holds."""
MAX_STOPS = 4
"""OpenAI's."""
MAX_STOP = 256
"""Characters of a stop string. Each token that comes is compared with every beginning of each."""
MAX_MESSAGES = 4096
"""Of one chat: a context of a million tokens filled with messages of 256."""
MAX_TOOLS = 128
"""OpenAI's."""
DEFAULT_TOKENS = 16
"""Of a completion. OpenAI's."""
DEFAULT_CHAT_TOKENS = 4096
"""Of a chat's answer where the client sets no bound and the context has more room: a long answer, and a sixteenth of
what a node's caches hold by default."""

Stop = Annotated[str, Field(max_length=MAX_STOP)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Ids = Annotated[list[TokenId], Field(max_length=MAX_CONTEXT)]
Count = Annotated[int, Field(ge=1, le=MAX_CONTEXT)]


class StreamOptions(BaseModel):
    """How an answer is streamed."""

    include_usage: bool = False


class _Generation(BaseModel):
    """What both kinds of request have."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: Annotated[str, Field(min_length=1, max_length=512)]
    n: Annotated[int, Field(ge=1, le=MAX_SEQUENCES)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(ge=-MAX_INT - 1, le=MAX_INT)] | None = None
    # not OpenAI's, by the names that other servers give them
    top_k: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _tokens(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value and len(value) > 1024:  # what the wire takes
            raise ValueError("at most 1024 tokens")
        if value and not all(key.isascii() and key.isdecimal() and len(key) <= 10 for key in value):
            raise ValueError("its keys are token ids")
        if value and any(int(key) >= 1 << 31 for key in value):
            raise ValueError("its keys are token ids")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, defaults: Defaults, *, seed: int, logprobs: int, grammar: Grammar | None) -> Sampling:
        """How the tail is to choose.

        Args:
            defaults: the model author's; they count where the request says nothing. Where the author doesn't sample,
                OpenAI's count: a temperature of 1 and no filter.
            seed: of this one text.
            logprobs: as `Sampling.logprobs`.
            grammar: what the text is held to.

        """
        author = defaults if defaults.temperature else replace(defaults, temperature=1.0)
        top_p = author.top_p if self.top_p is None else self.top_p
        return Sampling(
            temperature=author.temperature if self.temperature is None else self.temperature,
            top_p=max(top_p, 1e-6),  # 0 keeps one token; the wire has no name for that but this
            top_k=author.top_k if self.top_k is None else self.top_k,
            repetition_penalty=self.repetition_penalty or author.repetition_penalty,
            seed=seed,
            min_p=author.min_p if self.min_p is None else self.min_p,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=[(int(token), value) for token, value in (self.logit_bias or {}).items()],
            logprobs=logprobs,
            grammar=grammar,
        )


class CompletionRequest(_Generation):
    """The body of `POST /v1/completions`."""

    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(max_length=MAX_SEQUENCES)]
        | Annotated[list[Ids], Field(max_length=MAX_SEQUENCES)]
    ) = ""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool = False
    best_of: int | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.suffix:
            raise ValueError("suffix is not supported")
        if self.best_of is not None and self.best_of != self.n:
            raise ValueError("best_of is not supported")
        if self.echo and self.logprobs is not None:
            raise ValueError("logprobs of an echoed prompt are not supported")
        if len(self.prompts) * self.n > MAX_SEQUENCES:
            raise ValueError(f"n times the prompts is at most {MAX_SEQUENCES}")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)  # type: ignore[arg-type]  # its third or fourth member


class Function(BaseModel):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool: of these there are functions alone."""

    type: Literal["function"]
    function: Function


class _Named(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=64)]


class NamedTool(BaseModel):
    """The tool that must be called."""

    type: Literal["function"]
    function: _Named


class JsonSchema(BaseModel):
    """A schema and its name."""

    model_config = ConfigDict(populate_by_name=True)

    name: Annotated[str, Field(min_length=1, max_length=64)]
    definition: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema, and that type to it")
        return self


class Part(BaseModel):
    """A piece of a message. Of these there is text alone."""

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """What was called, with which arguments, as JSON text."""

    name: Annotated[str, Field(max_length=64)]
    arguments: str


class ToolCall(BaseModel):
    """A call that the assistant made earlier in the chat."""

    id: Annotated[str, Field(max_length=128)]
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(BaseModel):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: Annotated[str, Field(max_length=128)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Annotated[str, Field(max_length=128)] | None = None

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(_Generation):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")], Any] | None = None
    """What the model's template reads besides, such as `enable_thinking`. Not OpenAI's, but other servers'."""
    functions: Any = None
    audio: Any = None
    modalities: list[str] | None = None

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.functions or self.audio or self.modalities not in (None, ["text"]):
            raise ValueError("functions, audio and modalities other than text are not supported; use tools")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice needs tools")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice names {self.tool_choice.function.name}, which is none of the tools")
        return self


Body = TypeVar("Body", bound=_Generation)


def read(kind: type[Body], body: bytes) -> Body:
    """The request in a body. Raises ApiError that names the field at fault."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"])[:200]
        text = str(first["msg"]).removeprefix("Value error, ")[:500]
        raise ApiError(400, f"{param}: {text}" if param else text, param=param) from exc


def seed_of(seed: int, index: int) -> int:
    """The seed of the text of this index among those of one request: the request's own for the first."""
    if index == 0:
        return seed & MAX_INT
    digest = hashlib.blake2b((seed & MAX_INT).to_bytes(8, "big") + index.to_bytes(4, "big"), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MAX_INT
