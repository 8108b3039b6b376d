"""Finding out what an engine is and does, once at the start and again whenever it comes back.

Nothing is believed that can be tried: whether tokens pass both ways, whether a grammar holds, and how fast it writes
come from texts that it is asked to write; a field that an engine doesn't know it mostly leaves out without a word.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx
import trio
from pydantic import BaseModel, Field

from p2pos import log
from p2pos.content import strict_json
from p2pos.errors import UnavailableError, UserError
from p2pos.node.engine_api import Abilities, GrammarKind, Make, Piece, Wish
from p2pos.node.engine_client import EngineClient
from p2pos.node.engine_text import EngineText, Spelling
from p2pos.shard.session import MAX_SESSIONS
from p2pos.wire.messages import MAX_CONTEXT, Grammar, Sampling

TRY_S = 60.0
"""For each text that is tried. A model that is loaded, or compiled, for its first request takes tens of seconds."""
ALIVE_S = 5.0
"""For a sign of life. An engine answers in milliseconds, on a machine that is short of time in a second or two."""
SPEED_TOKENS = 24
"""Written to measure the speed."""
MAX_PIECES = 200
"""Of a text of a few tokens."""
LEAST_TOKENS = 4
"""Fewer than these say nothing of the speed."""
SAMPLE = "The traveller asked the way, and the"
"""What the tried texts go on from."""
_ODD = "(zq7){3}"
"""A regular expression that no model writes by itself."""
_ODD_SCHEMA = '{"type": "string", "enum": ["zq7zq7zq7"]}'

_log = log.get("engine")


@dataclass(frozen=True, slots=True)
class Found:
    """An engine, as it was found."""

    can: Abilities
    tokens_per_s: float
    """Of one text with nothing else to do; 0 where it wrote too little to tell."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of the model that the engine is to serve."""

    name: str
    vocabulary: int
    context: int
    """Positions."""
    spelling: Spelling | None
    """None where it has no tokenizer.json."""


async def find(client: EngineClient, model: Model, *, wanted: str, places: int) -> Found:
    """What engine this is, and what it can do.

    Args:
        client: speaks with it.
        model: that it is to serve.
        wanted: the name by which it serves it; "" to go by what it lists.
        places: texts that it is to write at a time; 0 as suits its make.

    Raises UnavailableError where it isn't there or fails, and UserError where it can't serve this model.

    """
    names, listed = await _models(client)
    make = await _make(client, listed.owned_by or "")
    can = Abilities(
        make=make,
        model=_name(client, make, names, wanted=wanted, model=model.name),
        tokens=make in {Make.VLLM, Make.SGLANG, Make.LLAMA},
        context=min(listed.max_model_len or model.context, model.context, MAX_CONTEXT),
        places=places or {Make.TRANSFORMERS: 1, Make.LLAMA: 1}.get(make, MAX_SESSIONS),
        adds_special=False,
    )
    if make is Make.LLAMA:
        can = await _llama(client, can, places)
    can = await _passing(client, can, model)
    found = Found(replace(can, logprobs=can.tokens and make is Make.VLLM), await _speed(client, can, model))
    kinds = frozenset([kind for kind in _kinds(found.can) if await _holds(client, found.can, model, kind)])
    found = replace(found, can=replace(found.can, grammars=kinds))
    _log.info(
        "engine found",
        url=client.url,
        make=make.value,
        serves=can.model or "its only model",
        tokens=can.tokens,
        context=can.context,
        places=can.places,
        grammars=sorted(kinds),
        tokens_per_s=round(found.tokens_per_s, 1),
    )
    return found


async def alive(client: EngineClient) -> None:
    """Whether it answers. Raises UnavailableError where it doesn't, or says that it is not ready."""
    status, _ = await client.ask("/v1/models", within_s=ALIVE_S)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise client.fault(f"answers {status}")


async def queue(client: EngineClient, make: Make) -> int:
    """How many texts wait in the engine itself, whoever sent them; 0 where it doesn't say."""
    name = {
        Make.VLLM: b"vllm:num_requests_waiting",
        Make.SGLANG: b"sglang:num_queue_reqs",
        Make.LLAMA: b"llamacpp:requests_deferred",
    }.get(make)
    if name is None:
        return 0
    status, body = await client.ask("/metrics")
    return waiting(body, name) if status == httpx.codes.OK else 0


def waiting(metrics: bytes, name: bytes) -> int:
    """The sum of a gauge over its labels, in Prometheus' text format; 0 where there's none."""
    found = re.findall(
        rb"^" + re.escape(name) + rb"(?:\{[^\n]*\})? ([0-9]{1,9})(?:\.0*)?(?: [0-9]+)?\r?$", metrics, re.MULTILINE
    )
    return sum(int(each) for each in found)


class _Entry(BaseModel):
    """A model that an engine lists."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = Field(default=None, ge=1)
    """vLLM's and SGLang's."""


class _Models(BaseModel):
    data: list[_Entry]


async def _models(client: EngineClient) -> tuple[list[str], _Entry]:
    """The names that it lists, and the first entry. Raises UserError where it's no such engine."""
    status, body = await client.ask("/v1/models")
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise UserError(f"the engine at {client.url} asks for a key", hint="give it by --engine-key-file")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise client.fault(f"answers {status} when asked for its models")
    try:
        entries = _Models.model_validate(strict_json.loads(body) if status == httpx.codes.OK else None).data
    except (ValueError, RecursionError):
        raise UserError(
            f"what answers at {client.url} is no OpenAI-compatible engine (GET /v1/models: {status})",
            hint="give the address of vLLM, SGLang, llama-server or transformers serve",
        ) from None
    first = entries[0] if entries else _Entry(id="")
    return [each.id for each in entries], first


async def _make(client: EngineClient, owner: str) -> Make:
    named = {"vllm": Make.VLLM, "sglang": Make.SGLANG, "llamacpp": Make.LLAMA}.get(owner)
    if named is not None:
        return named
    described = await client.ask_json("/openapi.json")
    paths = described.get("paths") if isinstance(described, dict) else None
    # both in one are transformers' alone
    if isinstance(paths, dict) and {"/load_model", "/v1/responses"} <= paths.keys():
        return Make.TRANSFORMERS
    return Make.OTHER


def _name(client: EngineClient, make: Make, names: Sequence[str], *, wanted: str, model: str) -> str:
    """By which name to ask for the model. Raises UserError where it isn't clear, or not there."""
    if make is Make.TRANSFORMERS:
        return (
            wanted  # it lists what lies in a cache, not what it serves, and needs no name of a model that it's bound to
        )
    if wanted:
        if wanted in names:
            return wanted
        listed = ", ".join(names[:5]) or "none"
        raise UserError(f"the engine at {client.url} serves no model “{wanted}”", hint=f"it lists: {listed}"[:300])
    alike = [name for name in names if name == model or name.rpartition("/")[2] == model.rpartition("/")[2]]
    if len(names) == 1 or len(alike) == 1:
        return names[0] if len(names) == 1 else alike[0]
    listed = ", ".join(names[:5]) or "none"
    raise UserError(
        f"the engine at {client.url} lists {len(names)} models, and none or several are “{model}”",
        hint=f"give --engine-model, one of: {listed}"[:300],
    )


async def _llama(client: EngineClient, can: Abilities, places: int) -> Abilities:
    """With what llama-server says of itself."""
    said = await client.ask_json("/props")
    if not isinstance(said, dict):
        return can
    slots, settings = said.get("total_slots"), said.get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    return replace(
        can,
        places=places or (min(slots, MAX_SESSIONS) if isinstance(slots, int) and slots > 0 else 1),
        context=min(context, can.context) if isinstance(context, int) and context > 0 else can.context,
    )


async def _passing(client: EngineClient, can: Abilities, model: Model) -> Abilities:
    """Whether tokens pass both ways, and if not what it makes of a text. Raises UserError where nothing passes."""
    if can.tokens:
        prompt = _prompt(model)
        pieces = await _write(client, can, Wish(prompt, 2, (), Sampling()), tolerant=True)
        came = [token for piece in pieces for token in piece.tokens]
        if came and all(token < model.vocabulary for token in came):
            _check_tokenizer(client, can, model, pieces, prompt)
            return can
        _log.warning("the engine gives no token ids, so text passes", url=client.url, make=can.make.value)
        can = replace(can, make=Make.OTHER, tokens=False, places=can.places)
    if model.spelling is None:
        raise UserError(
            f"the engine at {client.url} takes text, and the model has no tokenizer.json", hint="add one to --model"
        )
    try:
        pieces = await _write(client, can, Wish(SAMPLE, 2, (), Sampling()), tolerant=False)
    except UnavailableError as exc:
        if exc.fields.get("status") in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}:
            # a chat endpoint puts its own template around what it is sent, so no prompt would pass as it is
            raise UserError(
                f"the engine at {client.url} has no /v1/completions for the model", hint="chat alone won't do"
            ) from exc
        raise
    count = next((piece.prompt_count for piece in reversed(pieces) if piece.prompt_count is not None), None)
    bare, first = (len(_encode(model.spelling, special=special)) for special in (False, True))
    if count is not None and count not in {bare, first}:
        raise UserError(
            f"the engine at {client.url} serves another model: it makes {count} tokens of a text that has {first}",
            hint="give --model the checkpoint that the engine serves",
        )
    return replace(can, adds_special=count is None or count == first)


def _check_tokenizer(
    client: EngineClient, can: Abilities, model: Model, pieces: Sequence[Piece], prompt: tuple[int, ...]
) -> None:
    said = next((piece.prompt for piece in pieces if piece.prompt is not None), None)
    if said is not None and said != prompt:
        raise UserError(
            f"the engine at {client.url} takes token ids for others", hint=f"see whether {can.model} is {model.name}"
        )


def _encode(spelling: Spelling, *, special: bool) -> tuple[int, ...]:
    return tuple(spelling.tokenizer.encode(SAMPLE, add_special_tokens=special).ids)


def _prompt(model: Model) -> tuple[int, ...]:
    if model.spelling is None:
        return tuple(range(1, min(9, model.vocabulary)))
    return _encode(model.spelling, special=True)


async def _speed(client: EngineClient, can: Abilities, model: Model) -> float:
    """Tokens per second between the first and the last of a text."""
    text = EngineText(
        can,
        sampling=Sampling(),
        eos=(),
        prompt=_prompt(model),
        given=0,
        wanted=SPEED_TOKENS,
        vocabulary=model.vocabulary,
        spelling=model.spelling,
    )
    times: list[float] = []
    with trio.move_on_after(TRY_S):
        async with client.stream(can, text.wish()) as stream:
            while not text.over and not text.asking and (piece := await stream.next()) is not None:
                # where text passes, tokens are held back, but its pieces come as they are written
                times += [trio.current_time()] * (len(piece.tokens) if can.tokens else bool(piece.text))
                if piece.finish:
                    break  # engines that end a text by themselves may do so here
                text.take(piece)
    if len(times) < LEAST_TOKENS or times[-1] <= times[0]:
        return 0.0
    return (len(times) - 1) / (times[-1] - times[0])


def _kinds(can: Abilities) -> tuple[GrammarKind, ...]:
    """The grammars that this make has a field for."""
    match can.make:
        case Make.VLLM | Make.SGLANG:
            return ("json_schema", "regex")
        case Make.LLAMA:
            return ("json_schema",)
        case _:
            return ()


async def _holds(client: EngineClient, can: Abilities, model: Model, kind: GrammarKind) -> bool:
    """Whether a text that no model would write comes of the grammar that asks for it."""
    eos = () if can.make is Make.VLLM else (0,)
    sampling = Sampling(grammar=Grammar(kind, _ODD_SCHEMA if kind == "json_schema" else _ODD))
    pieces = await _write(client, can, Wish(_prompt(model), 24, eos, sampling), tolerant=True)
    text = "".join(piece.text for piece in pieces).strip().strip('"')
    return re.match(_ODD, text) is not None


async def _write(client: EngineClient, can: Abilities, wish: Wish, *, tolerant: bool) -> list[Piece]:
    """A short text's pieces. A `tolerant` one that is refused has none. Raises UnavailableError."""
    pieces: list[Piece] = []
    try:
        with trio.fail_after(TRY_S):
            async with client.stream(can, wish) as stream:
                while len(pieces) < MAX_PIECES and (piece := await stream.next()) is not None:
                    pieces.append(piece)
    except trio.TooSlowError:
        raise client.fault(f"wrote no {wish.max_tokens} tokens in {TRY_S:.0f} s") from None
    except UnavailableError:
        if not tolerant:
            raise
        return []
    return pieces
