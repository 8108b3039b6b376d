"""The messages of `/p2pos/stage/1.0.0`, `/p2pos/status/1.0.0`, `/p2pos/gossip/1.0.0` and `/p2pos/content/1.0.0`.

Each is a frozen struct. Bounds stand in the types, and the decoder enforces them before a line of ours sees
the message. A message that carries a tensor or a block has it as the frame's payload, outside msgpack.
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, structs

STAGE_PROTOCOL = "/p2pos/stage/1.0.0"
STATUS_PROTOCOL = "/p2pos/status/1.0.0"
GOSSIP_PROTOCOL = "/p2pos/gossip/1.0.0"
CONTENT_PROTOCOL = "/p2pos/content/1.0.0"

MAX_CONTEXT = 1 << 20
"""Tokens. The longest context that any published model claims today is one million."""
MAX_STAGES = 256
"""More stages than the deepest published model has layers would be useless."""
MAX_ANNOUNCEMENTS = 4096
"""Announcements in one status answer; 4,096 × ≤ 5 KiB stays under a frame."""
MAX_NEWS = 64
"""Announcements in one piece of gossip, ≤ 5 KiB each: some 20 KiB as they usually are."""
MAX_MARKS = 1024
"""Marks in one piece of gossip, some 20 bytes each."""

BLOCK_TOKENS = 16
"""Tokens of one block of a KV cache. All stages count in the same blocks, so that they can agree on a prefix."""

MAX_INT = (1 << 63) - 1
"""The largest integer that every msgpack reader takes as signed."""

Session: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Peer: TypeAlias = Annotated[str, Meta(min_length=8, max_length=128)]
Multiaddr: TypeAlias = Annotated[str, Meta(min_length=1, max_length=512)]
Position: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_CONTEXT)]
Layer: TypeAlias = Annotated[int, Meta(ge=0, le=4096)]
Token: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 31)]
TokenList: TypeAlias = Annotated[list[Token], Meta(max_length=MAX_CONTEXT)]
ChunkNumber: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 20)]
"""Of a chunk of a model's weights; see `content.chunks`."""
CidText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Line: TypeAlias = Annotated[str, Meta(max_length=1000)]
Key: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""Names a block by all tokens up to its end; see `shard.blocks`."""
Epoch: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INT)]
"""How often a session's route has been repaired."""


class Message(Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """The base of all messages: on the wire an array whose first element is the type's name."""


class StageRef(Struct, frozen=True, array_like=True):
    """One stage of a route: a peer, where to dial it, and the layers `start … end-1` it is to run."""

    peer: Peer
    addresses: Annotated[list[Multiaddr], Meta(max_length=16)]
    start: Layer
    end: Layer


class Grammar(Struct, frozen=True, array_like=True):
    """What the text must match, for the tail, which masks every token that could not go on to match."""

    kind: Literal["json_schema", "regex", "lark"]
    text: Annotated[str, Meta(max_length=65_536)]
    """64 Ki characters: several times the largest schemas in use."""


class Sampling(Struct, frozen=True, array_like=True):
    """How the tail chooses a token. The defaults are greedy."""

    temperature: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    """Smallest set of tokens whose probabilities reach this sum; 1 keeps all."""
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    """Most likely tokens kept; 0 keeps all."""
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0
    """Divides the logits of tokens that were seen (CTRL, arXiv:1909.05858 §4.1); 1 is off."""
    seed: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    """With the position it fixes the random draw, so that any stage can take the session over."""
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    """Tokens kept have at least this share of the likeliest one's probability; 0 keeps all."""
    presence_penalty: Annotated[float, Meta(ge=-2.0, le=2.0)] = 0.0
    """Taken from the logits of tokens that the text has already; the prompt doesn't count. OpenAI's."""
    frequency_penalty: Annotated[float, Meta(ge=-2.0, le=2.0)] = 0.0
    """Taken from a token's logits once for each time that the text has it. OpenAI's."""
    logit_bias: Annotated[list[tuple[Token, Annotated[float, Meta(ge=-100.0, le=100.0)]]], Meta(max_length=1024)] = []
    """Added to the logits of these tokens."""
    logprobs: Annotated[int, Meta(ge=0, le=21)] = 0
    """0: none. n: of the chosen token and of the n-1 likeliest ones. OpenAI allows 20 of these."""
    grammar: Grammar | None = None


class Open(Message, frozen=True):
    """Owner → every stage: hold a place for this session. Answered by `Ack` once there is room, or `Fault`."""

    session: Session
    model: CidText
    owner: Peer
    stages: Annotated[list[StageRef], Meta(min_length=1, max_length=MAX_STAGES)]
    index: Annotated[int, Meta(ge=0, lt=MAX_STAGES)]
    """Which of `stages` the receiver is."""
    prompt_length: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)]
    """The tail samples from here on."""
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_CONTEXT)]
    eos: Annotated[list[Token], Meta(max_length=64)]
    sampling: Sampling
    history: TokenList
    """The prompt, for the tail alone and only where the repetition penalty needs it; else empty."""
    prefix: Annotated[list[Key], Meta(max_length=MAX_CONTEXT // BLOCK_TOKENS)] = []
    """Keys of the prompt's whole blocks. A stage's `Ack` says how many positions of them it holds already."""
    given: TokenList = []
    """Tokens of the text that the owner has already; the tail samples after them. Only the tail is told them."""
    resume: Annotated[int, Meta(ge=0, le=MAX_CONTEXT)] = 0
    """Positions whose tokens are known: the prompt's and those of `given`; 0 where the text only begins."""
    forward_from: Position = 0
    """The next stage has the positions before this one in its cache: compute them, don't send them on."""
    epoch: Epoch = 0
    """Grows with each repair of the route; one that is higher than what a stage knows replaces the session there."""


def rerouted(order: Open, stages: list[StageRef], index: int, epoch: int) -> Open:
    """The order again, for another route."""
    return structs.replace(order, stages=stages, index=index, epoch=epoch)


class Logprobs(Struct, frozen=True, array_like=True):
    """Natural logarithms of probabilities at one position, before temperature and filters."""

    chosen: float
    top: Annotated[list[tuple[Token, float]], Meta(max_length=20)]
    """The likeliest tokens, likeliest first."""


class Tokens(Message, frozen=True):
    """Owner → head: the prompt from `position` on, what lies before being cached at every stage.

    Tail → head and owner: the token sampled for `position`; one message where these two are one peer.
    """

    session: Session
    position: Position
    tokens: Annotated[list[Token], Meta(min_length=1, max_length=MAX_CONTEXT)]
    finish: Literal["", "stop", "length"] = ""
    """Why the tail ended here: an end-of-sequence token or `max_tokens`; "" where it goes on."""
    logprobs: Annotated[list[Logprobs], Meta(max_length=1)] = []
    """To the owner, where `Sampling.logprobs` asks: of the one token."""


class TensorHeader(Struct, frozen=True, array_like=True):
    """What the payload's raw little-endian bytes are: row-major, of this shape and dtype."""

    dtype: Literal["bf16", "f32", "f16"]
    shape: Annotated[list[Annotated[int, Meta(ge=1, le=1 << 24)]], Meta(min_length=1, max_length=4)]


class Step(Message, frozen=True):
    """Stage → next stage: hidden states of positions `position … position+rows-1`; the payload holds them."""

    session: Session
    position: Position
    tensor: TensorHeader
    """Shape (rows, hidden size)."""
    keys: Annotated[list[Key], Meta(max_length=64)] = []
    """Of the blocks that end in these rows, in order; the head makes them from the tokens that it sees."""


class Ack(Message, frozen=True):
    """Stage → upstream neighbour (and owner, for `Open`): all positions before `position` are in my cache.

    To the owner, at opening, that is how much of the prefix it holds already, a whole number of blocks.
    """

    session: Session
    position: Position
    epoch: Epoch | None = None
    """Of the `Open` that it answers; None between stages."""


class Close(Message, frozen=True):
    """Owner → every stage: the session is over, free its cache."""

    session: Session
    reason: Line = ""


FaultCode: TypeAlias = Literal[
    "busy",
    "bad_request",
    "wrong_model",
    "next_stage",
    "deadline",
    "internal",
    "bad_peer",
    "leaving",
    "unknown",
    "forgot",
]
"""After `next_stage`, `bad_peer`, `leaving` and `forgot` the stage keeps the session; else it is gone there."""


class Fault(Message, frozen=True):
    """Stage → owner: this session can't go on here, or not as it is."""

    session: Session
    code: FaultCode
    text: Line
    peer: Annotated[str, Meta(max_length=128)] = ""
    """Whom it lost (`next_stage`) or who sent nonsense (`bad_peer`)."""


class Repair(Message, frozen=True):
    """Owner → stage that stays: this is the route now. Answered by `Progress`.

    Nothing more goes to a neighbour that is new before `Replay`.
    """

    session: Session
    epoch: Epoch
    stages: Annotated[list[StageRef], Meta(min_length=1, max_length=MAX_STAGES)]
    index: Annotated[int, Meta(ge=0, lt=MAX_STAGES)]
    resume: Position
    """Positions whose tokens the owner knows."""
    hold: bool = False
    """The next stage begins anew, even where it is the same peer."""


class Probe(Message, frozen=True):
    """Owner → stage: how far are you? Answered at once by `Progress`, whatever the stage computes meanwhile."""

    session: Session
    number: Annotated[int, Meta(ge=0, le=MAX_INT)]


class Progress(Message, frozen=True):
    """Stage → owner: how far this session is here."""

    session: Session
    number: Annotated[int, Meta(ge=0, le=MAX_INT)]
    """The epoch of the `Repair`, or the number of the `Probe`, that this answers."""
    received: Position
    """Positions that were given to it."""
    computed: Position
    """Positions in its cache."""
    kept_from: Position = 0
    """It has kept what it sent on from this position to `computed`."""
    tokens: TokenList = []
    """Of the head, in answer to `Repair`: the tokens from `resume` on that it was given."""


class Replay(Message, frozen=True):
    """Owner → stage before one that is new: send the next stage what you kept from `position` on, and go on."""

    session: Session
    epoch: Epoch
    position: Position


StageMessage: TypeAlias = Open | Tokens | Step | Ack | Close | Fault | Repair | Probe | Progress | Replay


Quantization: TypeAlias = Literal["none", "int8", "int4"]
"""How a stage holds the weights of its linear layers: as it computes, or in fewer bits."""


class Announcement(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a node says of itself. Signed as encoded; `sequence` grows, so that an old one is never believed again."""

    peer: Peer
    addresses: Annotated[list[Multiaddr], Meta(max_length=16)]
    sequence: Annotated[int, Meta(ge=0, le=MAX_INT)]
    """Milliseconds since the epoch at the time of signing."""
    expires: Annotated[int, Meta(ge=0, le=MAX_INT)]
    """Milliseconds since the epoch."""
    model: CidText
    model_name: Annotated[str, Meta(max_length=200)]
    layers: Annotated[int, Meta(ge=1, le=4096)]
    """How many the whole model has."""
    start: Layer
    end: Layer
    dtype: Literal["bf16", "f32", "f16"]
    tokens_per_s: Annotated[float, Meta(ge=0.0)]
    """Tokens that left this stage in the last ten seconds, per second."""
    sessions: Annotated[int, Meta(ge=0)]
    cached_tokens: Annotated[int, Meta(ge=0)]
    """Positions held in this stage's KV caches."""
    resident_bytes: Annotated[int, Meta(ge=0)]
    """Resident memory of the process."""
    weight_bytes: Annotated[int, Meta(ge=0)]
    """Bytes of weights that the process read from disk."""
    goodbye: bool = False
    """The last one of a node that leaves."""
    quantize: Quantization = "none"
    """How its weights are held. It decides which numbers come out, so all stages of a route have the same."""
    layer_tokens_per_s: Annotated[float, Meta(ge=0.0)] = 0.0
    """One token at a time through one layer, measured with nothing else to do; 0 where it was not measured."""
    free_tokens: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    """Positions that its KV caches have room for still."""
    waiting: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0
    """Sessions that wait for room there."""
    round_trips: Annotated[list[tuple[Peer, Annotated[float, Meta(ge=0.0)]]], Meta(max_length=16)] = []
    """Milliseconds to those whom it passes activations to, or would, as it measured them last."""
    draining: bool = False
    """It is about to leave or to serve other layers: nothing new is to be begun there."""
    engine: bool = False
    """The whole model runs in somebody else's engine behind this node, which takes and gives tokens alone."""


def farewell(last: Announcement, sequence: int, expires: int) -> Announcement:
    """The last announcement again, as a goodbye."""
    return structs.replace(last, sequence=sequence, expires=expires, goodbye=True)


class Signed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An announcement as its bytes, with the signature that its peer's key made over them."""

    body: Annotated[bytes, Meta(max_length=4096)]
    """16 addresses and 16 round trips of usual length are some 2 KiB."""
    public_key: Annotated[bytes, Meta(max_length=512)]
    """libp2p's protobuf encoding of the key; its hash must be the peer id."""
    signature: Annotated[bytes, Meta(max_length=512)]


class StatusRequest(Message, frozen=True):
    """Peer → node: tell me whom you know. Carries the asker's own announcement where it serves layers."""

    mine: Signed | None = None
    model: Annotated[str, Meta(max_length=128)] = ""
    """Of this model alone; "" for all."""


class StatusAnswer(Message, frozen=True):
    """Node → peer: every announcement it believes, its own first; a random choice where they are too many."""

    known: Annotated[list[Signed], Meta(max_length=MAX_ANNOUNCEMENTS)]


StatusMessage: TypeAlias = StatusRequest | StatusAnswer


Fingerprint: TypeAlias = Annotated[bytes, Meta(min_length=8, max_length=8)]
"""The first bytes of the sha2-256 of a peer id's text."""
Mark: TypeAlias = tuple[Fingerprint, Annotated[int, Meta(ge=0, le=MAX_INT)]]
"""Of which peer there is an announcement, and its sequence."""


class Marks(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which announcements of one model somebody has."""

    model: CidText
    marks: Annotated[list[Mark], Meta(max_length=MAX_MARKS)]


class News(Message, frozen=True):
    """Neighbour ↔ neighbour, unasked: what the other does not know yet, as far as the sender can tell."""

    known: Annotated[list[Signed], Meta(max_length=MAX_NEWS)] = []
    """What the other wanted, and what can't wait: a newcomer's first word, a goodbye, the sender's own."""
    have: Annotated[list[Marks], Meta(max_length=MAX_MARKS)] = []
    """What the other may want."""
    want: Annotated[list[Fingerprint], Meta(max_length=MAX_MARKS)] = []
    """Whose announcements, of those that the other has, the sender wants."""


class Want(Message, frozen=True):
    """Peer → node: send me the block with this CID."""

    cid: CidText


class Block(Message, frozen=True):
    """Node → peer: the block is the payload. `found` is false, and the payload empty, where it hasn't got it."""

    cid: CidText
    found: bool


class WantDigests(Message, frozen=True):
    """Peer → node: send me the digests of a model's chunks; see `content.chunks.Leaves`."""

    model: CidText


class Digests(Message, frozen=True):
    """Node → peer: they are the payload. `found` is false, and the payload empty, where it has no such model."""

    model: CidText
    found: bool


class WantHave(Message, frozen=True):
    """Peer → node: tell me which chunks of a model you have."""

    model: CidText


class Have(Message, frozen=True):
    """Node → peer: those in the bitmap that is the payload; where `found` is false, none, and there is no payload."""

    model: CidText
    found: bool


class WantChunk(Message, frozen=True):
    """Peer → node: send me this chunk. Several may be asked for before the first has come."""

    model: CidText
    chunk: ChunkNumber


class Chunk(Message, frozen=True):
    """Node → peer: the chunk is the payload. `found` is false, and the payload empty, where it hasn't got it."""

    model: CidText
    chunk: ChunkNumber
    found: bool


ContentMessage: TypeAlias = Want | Block | WantDigests | Digests | WantHave | Have | WantChunk | Chunk

WireMessage: TypeAlias = StageMessage | StatusMessage | News | ContentMessage
"""Every message that can stand at the head of a frame."""
