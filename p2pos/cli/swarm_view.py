"""A look at a swarm, drawn: for each model its layers from left to right, who serves which, and where nobody does.

What nodes say of themselves is text and numbers of strangers: names lose what would steer the terminal, and numbers are
cut to a few characters. Where a width is given, no line is wider, and what a narrow terminal can't hold is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import groupby
from math import isfinite

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from p2pos.cli.swarm_look import Left, Look, Model
from p2pos.wire.messages import Announcement

MIN_WIDTH = 40
"""Columns; a terminal that has fewer breaks the lines."""
BAR_LEAST, BAR_SHARE, BAR_MOST = 20, 0.4, 96
"""Columns of the layer axis, in columns and as a share of all: what others leave it, and where more tell no more."""
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Between two layers whose numbers stand on the axis: announcements allow 4096."""
CELL_MOST = 8
"""Columns of one layer, where the model has few."""
UNITS = ((1e12, "T", 1e12), (1e9, "G", 1e9), (1e6, "M", 1e6), (1e4, "k", 1e3))
"""From where on, the letter, and what it stands for."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What the picture is made of."""

    full: str
    part: str
    none: str
    gap: str
    run: str
    dash: str
    arrow: str
    on_route: str
    dot: str
    more: str


UNICODE = Glyphs("█", "▒", "·", "╳", "─", "–", "→", "●", " · ", "…")
ASCII = Glyphs("#", "+", ".", "x", "-", "-", "->", "*", " | ", "~")


def glyphs_for(encoding: str) -> Glyphs:
    """Those that an output with this encoding can show."""
    try:
        "".join(astuple(UNICODE)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def shown(name: str, encoding: str = "utf-8") -> str:
    """A stranger's name for something, without what would steer the terminal or can't be shown there."""
    safe = "".join(each if each.isprintable() else "\ufffd" for each in name)
    return safe.encode(encoding, "replace").decode(encoding)


def number(value: float) -> str:
    """Six characters at most, whatever a node says: 8.25, 310, 12.3k, 4.5M."""
    if not isfinite(value) or value >= 1e15:
        return ">999T"
    for least, unit, size in UNITS:
        if value >= least:
            return f"{value / size:.{0 if value >= 100 * size else 1}f}{unit}"
    if value >= 100 or value == round(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    cell: Callable[[Announcement], str]
    width: int = 0
    """Of the widest cell, the head included."""

    def fitted(self, nodes: Sequence[Announcement]) -> "_Column":
        """The same, as wide as these nodes need it."""
        return replace(self, width=max(len(self.head), *(len(self.cell(each)) for each in nodes)))


class Picture:
    """Draws looks.

    Args:
        width: columns.
        encoding: of the output.
        height: lines at most, for a picture that is drawn over the one before; None for all of them.

    """

    def __init__(self, width: int, *, encoding: str = "utf-8", height: int | None = None) -> None:
        self._width = max(width, MIN_WIDTH)
        self._encoding = encoding
        self._height = height
        self._glyphs = glyphs_for(encoding)

    def draw(self, look: Look) -> list[Text]:
        """The lines."""
        lines: list[Text] = []
        if look.unheard_s:
            text = f"nobody has answered for {look.unheard_s:.0f} s; this is what was known then"
            lines += [*self._wrapped(Text(text, "bold red")), Text()]
        if not look.models:
            lines += self._wrapped(Text("nobody in this swarm serves a model: start one with `p2pos node run`"))
        for index, model in enumerate(look.models):
            height = None
            if self._height is not None:  # what is left, in equal parts
                height = (self._height - len(lines) - len(look.left)) // (len(look.models) - index)
            lines += [*self._model(model, look, height), Text()]
        lines += [self._left(each) for each in look.left]
        while lines and not lines[-1].plain:
            lines.pop()
        return lines

    def _model(self, model: Model, look: Look, height: int | None) -> list[Text]:
        around = [*self._title(model), *self._figures(model)]
        route = self._route(model, look)
        columns, bar = self._columns(model, look)
        # the title, the axis, the replicas and the route are always there
        rows = len(model.coverage.nodes)
        most = rows if height is None else max(1, min(rows, height - len(around) - len(route) - 4))
        nodes = model.coverage.nodes[: most if most == rows else most - 1 or 1]
        on_route = {stage.peer for stage in model.stages}
        body = [self._node(each, model.coverage.kind.layers, columns, bar, each.peer in on_route) for each in nodes]
        if len(nodes) < rows:
            body.append(Text(f"  {self._glyphs.more} and {rows - len(nodes)} more nodes", "dim"))
        return [*around, self._head(model, columns, bar), *body, self._replicas(model, bar), *route]

    def _title(self, model: Model) -> list[Text]:
        coverage, dot = model.coverage, self._glyphs.dot
        kind = coverage.kind
        how = kind.dtype if kind.quantize == "none" else f"{kind.dtype}, {kind.quantize}"
        nodes = f"{len(coverage.nodes)} node{'s' * (len(coverage.nodes) != 1)}"
        text = Text(self._name(coverage.model_name, 40), "bold")
        text.append(f"{dot}{kind.layers} layers{dot}{how}{dot}{nodes}", "not bold")
        lines = self._wrapped(text)
        name = self._name(kind.model, self._width - 2)
        if lines[-1].cell_len + cell_len(name) + 2 <= self._width:
            lines[-1].append(f"  {name}", "not bold dim")
        if model.stages:
            hops = len(model.stages)
            lines += self._wrapped(Text(f"whole, through {hops} node{'s' * (hops != 1)}", "green"))
        else:
            gaps = ", ".join(map(str, coverage.gaps))
            why = f"not whole: nobody takes texts for layers {gaps}" if gaps else f"not whole: {model.why}"
            lines += self._wrapped(Text(shown(why, self._encoding), "bold red"))
        return lines

    def _figures(self, model: Model) -> list[Text]:
        coverage = model.coverage
        waiting = f", {number(coverage.waiting)} waiting" if coverage.waiting else ""
        parts = [
            f"{number(coverage.tokens_per_s)} tok/s now",
            f"{number(coverage.sessions)} session{'s' * (coverage.sessions != 1)}{waiting}",
        ]
        if coverage.slowest is not None:
            span, speed = coverage.slowest
            parts.append(f"slowest layers {span} at {number(speed)} tok/s")
        if coverage.free_tokens:
            parts.append(f"room for {number(coverage.free_tokens)} tokens")
        return self._wrapped(Text(self._glyphs.dot.join(parts)))

    def _columns(self, model: Model, look: Look) -> tuple[list[_Column], int]:
        """Those that there is room for, and the columns of the layer axis."""
        nodes = model.coverage.nodes
        dash = self._glyphs.dash

        def trip(each: Announcement) -> str:
            milliseconds = look.round_trips_ms.get(each.peer)
            return dash if milliseconds is None else number(milliseconds)

        def measured(value: float) -> str:
            return number(value) if value else dash

        wanted = [  # those that matter most first
            _Column("layers", lambda each: f"{each.start}:{each.end}"),
            _Column("tok/s", lambda each: number(each.tokens_per_s)),
            _Column("RTT ms", trip),
            _Column("sess", lambda each: number(each.sessions)),
            _Column("wait", lambda each: number(each.waiting)),
            _Column("free", lambda each: measured(each.free_tokens)),
            _Column("layer tok/s", lambda each: measured(each.layer_tokens_per_s)),
            _Column("cached", lambda each: number(each.cached_tokens)),
            _Column("MiB", lambda each: number(each.resident_bytes / 2**20)),
        ]
        state = _Column("", lambda each: "leaving" if each.draining else "engine" if each.engine else "")
        taken = [state] if any(each.draining or each.engine for each in nodes) else []
        left = self._width - len(self._label("")) - max(BAR_LEAST, round(BAR_SHARE * self._width))
        taken = [each.fitted(nodes) for each in taken]
        left -= sum(each.width + 2 for each in taken)
        before = len(taken)
        for each in wanted:
            column = each.fitted(nodes)
            left -= column.width + 2
            if left < 0:
                break
            taken.insert(len(taken) - before, column)
        taken_width = sum(each.width + 2 for each in taken)
        bar = min(self._width - len(self._label("")) - taken_width, BAR_MOST)
        layers = model.coverage.kind.layers
        return taken, min(bar // layers, CELL_MOST) * layers if layers <= bar else bar

    def _label(self, text: str) -> str:
        """What stands before the axis: as wide as a mark and the end of a peer id."""
        return set_cell_size(text, 12)

    def _head(self, model: Model, columns: Sequence[_Column], bar: int) -> Text:
        """The axis, with the numbers of layers where they have room, and the heads of the columns."""
        layers = model.coverage.kind.layers
        step = next(each for each in STEPS if each * bar // layers > len(str(layers)))
        axis = [" "] * (bar + 4)
        for layer in range(0, layers, step):
            name = str(layer)
            at = layer * bar // layers
            axis[at : at + len(name)] = name
        text = Text(self._label("") + "".join(axis)[:bar], "dim")
        for each in columns:
            text.append("  " + each.head.rjust(each.width))
        text.rstrip()
        return text

    def _node(self, node: Announcement, layers: int, columns: Sequence[_Column], bar: int, on_route: bool) -> Text:
        mark = self._glyphs.on_route if on_route else " "
        text = Text(self._label(f"{mark} {self._peer(node.peer)}"), "bold" if on_route else "")
        style = "yellow" if node.draining else "magenta" if node.engine else "cyan"
        for covered, run in groupby(_share(node, layers, column, bar) for column in range(bar)):
            glyph = self._glyphs.full if covered == 1 else self._glyphs.part if covered else self._glyphs.none
            text.append(glyph * len(list(run)), style if covered else "not bold dim")
        for each in columns:
            text.append("  " + each.cell(node).rjust(each.width), "not bold")
        text.rstrip()
        return text

    def _replicas(self, model: Model, bar: int) -> Text:
        """How many serve each layer: the number where a run begins, and crosses where nobody does."""
        layers = model.coverage.kind.layers
        counts = [run.nodes for run in model.coverage.replicas for _ in range(run.start, run.end)]
        text = Text(self._label("  replicas"))
        fewest = (min(counts[slice(*_layers(column, bar, layers))]) for column in range(bar))
        for count, run in groupby(fewest):
            width = len(list(run))
            digits = str(count) if len(str(count)) <= width else "+"
            bare = self._glyphs.gap * width
            text.append(
                bare if not count else digits.ljust(width, self._glyphs.run),
                "bold red" if not count else "yellow" if count == 1 else "green",
            )
        return text

    def _route(self, model: Model, look: Look) -> list[Text]:
        """Through whom a text would go now, with the round trips between neighbours."""
        if not model.stages:
            return []
        head = look.round_trips_ms.get(model.stages[0].peer)
        parts = [f"you {self._arrow(head)}"]
        for index, stage in enumerate(model.stages):
            last = index == len(model.stages) - 1
            after = "" if last and not index else f" {self._arrow(model.hop_ms(index))}"
            parts.append(f"{self._peer(stage.peer)} ({stage.start}:{stage.end}){after}")
        if len(model.stages) > 1:
            parts.append("and round again")
        return self._joined("  route     ", parts)

    def _arrow(self, milliseconds: float | None) -> str:
        return self._glyphs.arrow if milliseconds is None else f"{number(milliseconds)} ms {self._glyphs.arrow}"

    def _left(self, each: Left) -> Text:
        how = "said goodbye" if each.goodbye else "fell silent"
        what = f"layers {each.node.start}:{each.node.end} of {self._name(each.node.model_name, 24)}"
        text = f"left: {self._peer(each.node.peer)}, {what}, {how} {each.ago_s:.0f} s ago"
        return Text(self._cut(text, self._width), "yellow")

    def _joined(self, label: str, parts: Sequence[str]) -> list[Text]:
        """Parts one after another; those that don't fit go on below."""
        lines: list[str] = []
        line = label
        for part in parts:
            if line.strip() and cell_len(line) + 1 + cell_len(part) > self._width and len(line) > len(label):
                lines.append(line)
                line = " " * len(label)
            line += part + " "
        return [Text(each.rstrip(), "dim") for each in (*lines, line)]

    def _wrapped(self, text: Text) -> list[Text]:
        """Lines that fit."""
        words, lines = text.split(" "), [Text()]
        for word in words:
            if lines[-1].cell_len and lines[-1].cell_len + 1 + word.cell_len > self._width:
                lines.append(Text())
            if lines[-1].cell_len:
                lines[-1].append(" ")
            lines[-1].append_text(word)
        return lines

    def _peer(self, peer: str) -> str:
        return self._glyphs.more + shown(peer[-8:], self._encoding)  # all ed25519 peer ids begin alike

    def _name(self, name: str, width: int) -> str:
        return self._cut(shown(name, self._encoding), width)

    def _cut(self, text: str, width: int) -> str:
        if cell_len(text) <= width:
            return text
        return set_cell_size(text, width - len(self._glyphs.more)) + self._glyphs.more


def _layers(column: int, bar: int, layers: int) -> tuple[int, int]:
    """The layers that a column stands for: one, or several where the model has more than there are columns."""
    start = column * layers // bar
    return start, max(start + 1, (column + 1) * layers // bar)


def _share(node: Announcement, layers: int, column: int, bar: int) -> float:
    """How much of a column's layers a node serves, 0 … 1."""
    start, end = _layers(column, bar, layers)
    return max(0, min(end, node.end) - max(start, node.start)) / (end - start)
