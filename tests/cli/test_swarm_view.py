"""The picture of a swarm: what it shows, and that no node's words or numbers can spoil it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.cli.swarm_look import Left, Look, Model
from p2pos.cli.swarm_view import MIN_WIDTH, Picture, number, shown
from p2pos.errors import UnavailableError
from p2pos.shard.coverage import coverages
from p2pos.shard.routing import route
from p2pos.wire.messages import MAX_INT, Announcement
from tests.shard.test_routing import node


def look(*nodes: Announcement, **changes: object) -> Look:
    """What is seen of these nodes."""
    models = []
    for each in coverages(nodes):
        try:
            models.append(Model(each, tuple(route(each.nodes, each.kind.model)), ""))
        except UnavailableError as exc:
            models.append(Model(each, (), exc.message))
    return Look(tuple(models), **changes)  # type: ignore[arg-type]


def drawn(seen: Look, width: int = 100, **how: object) -> str:
    return "\n".join(line.plain for line in Picture(width, **how).draw(seen))  # type: ignore[arg-type]


THREE = (
    node("aaaaaaaa", 0, 2, round_trips=[("peer-cccccccc", 12.5)], tokens_per_s=40.0, layer_tokens_per_s=800.0),
    node("bbbbbbbb", 0, 2, layer_tokens_per_s=200.0),
    node("cccccccc", 2, 6, sessions=3, tokens_per_s=41.5, free_tokens=4096, layer_tokens_per_s=400.0),
)


def test_layers_peers_and_replicas_are_drawn_over_one_axis() -> None:
    """Each node's bar covers its layers, and the last line says how many nodes each layer has."""
    lines = drawn(look(*THREE), 80).splitlines()
    assert lines[3].startswith("            0    1    2    3    4    5  ")
    assert lines[4].startswith("● …aaaaaaaa ██████████····················")
    assert lines[5].startswith("  …bbbbbbbb ██████████····················")
    assert lines[6].startswith("● …cccccccc ··········████████████████████")
    assert lines[7] == "  replicas  2─────────1───────────────────"


def test_a_gap_is_crossed_out_and_named() -> None:
    """In the replicas' bar and in words."""
    text = drawn(look(THREE[0], node("dddddddd", 3, 6)), 60)
    assert "not whole: nobody takes texts for layers 2:3" in text
    assert "  replicas  1───────╳╳╳╳1───────────" in text


def test_a_gap_of_one_layer_of_many_is_still_seen() -> None:
    """Where a column stands for several layers, it is crossed out as soon as one of them is missing."""
    nodes = (node("a", 0, 200, layers=400), node("b", 201, 400, layers=400))
    assert "╳" in drawn(look(*nodes), 60)
    assert "layers 200:201" in drawn(look(*nodes), 60)


def test_speed_sessions_and_neighbours_are_told() -> None:
    """The model's figures, and the round trips along the route that a text would take."""
    text = drawn(look(*THREE, round_trips_ms={"peer-aaaaaaaa": 0.84}))
    assert "41.5 tok/s now · 0 sessions · slowest layers 2:6 at 100 tok/s\n" in text
    assert "route     you 0.84 ms → …aaaaaaaa (0:2) 12.5 ms → …cccccccc (2:6) → and round again" in text


def test_who_leaves_counts_no_more_and_is_marked() -> None:
    """A node that drains serves its layers still, and takes nothing new."""
    text = drawn(look(node("a", 0, 6, draining=True), node("b", 0, 6, engine=True)), 160)
    assert "  leaving" in text
    assert "  engine" in text
    assert "  replicas  1──" in text


def test_who_left_is_named() -> None:
    """With what it served, how it went, and when."""
    left = (Left(node("aaaaaaaa", 0, 2), 3.2, goodbye=True), Left(node("bbbbbbbb", 2, 6), 21.0, goodbye=False))
    text = drawn(look(node("c", 0, 6), left=left))
    assert "left: …aaaaaaaa, layers 0:2 of m, said goodbye 3 s ago" in text
    assert "left: …bbbbbbbb, layers 2:6 of m, fell silent 21 s ago" in text


def test_an_empty_swarm_is_one_line() -> None:
    """It says what to do."""
    assert drawn(look()) == "nobody in this swarm serves a model: start one with `p2pos node run`"


def test_silence_is_told() -> None:
    """What is shown then is old."""
    assert drawn(look(*THREE, unheard_s=12.0)).startswith("nobody has answered for 12 s")


def test_a_picture_fits_the_terminals_height() -> None:
    """Of five hundred nodes as many as fit, and how many more there are."""
    nodes = [node(f"{number:08}", 0, 6) for number in range(500)]
    lines = drawn(look(*nodes), height=24).splitlines()
    assert len(lines) <= 24
    assert "  … and 485 more nodes" in lines
    two = drawn(look(*nodes, node("other", 0, 6, model="n", model_name="n")), height=30).splitlines()
    assert len(two) <= 30
    assert "n · 6 layers · bf16 · 1 node  n" in two
    assert len(drawn(look(*nodes)).splitlines()) > 500


hostile = st.builds(
    lambda start, span, name, speed, count, flags: node(
        name[:8] or "x",
        start,
        start + span,
        layers=4096 if flags[2] else start + span + 3,
        model_name=name,
        tokens_per_s=speed,
        layer_tokens_per_s=speed,
        sessions=count,
        free_tokens=count,
        resident_bytes=count,
        draining=flags[0],
        engine=flags[1],
        round_trips=[("peer-x", speed)],
    ),
    st.integers(0, 300),
    st.integers(1, 300),
    st.text(max_size=200),
    st.floats(0, allow_infinity=False),
    st.integers(0, MAX_INT),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)


@given(st.lists(hostile, max_size=6), st.integers(MIN_WIDTH, 200), st.sampled_from(["utf-8", "ascii"]))
def test_no_line_is_wider_than_the_terminal(nodes: list[Announcement], width: int, encoding: str) -> None:
    """Whatever nodes call their models and themselves, whatever they count, and nothing in it steers the terminal."""
    seen = look(*nodes, left=tuple(Left(each, 1.0, goodbye=True) for each in nodes))
    for line in Picture(width, encoding=encoding).draw(seen):
        assert line.cell_len <= width
        assert line.plain.isprintable()
        line.plain.encode(encoding)


@given(st.floats(0) | st.integers(0, 1 << 80))
def test_a_number_is_short(value: float) -> None:
    """Six characters at most."""
    assert len(number(value)) <= 6


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (8.25, "8.25"), (41.52, "41.5"), (310.4, "310"), (12_345, "12.3k"), (4.5e6, "4.5M")]
)
def test_numbers_keep_what_matters(value: float, text: str) -> None:
    """Three digits or so."""
    assert number(value) == text


def test_a_strangers_name_does_not_steer_the_terminal() -> None:
    """Escape characters in a model's name, which its node chooses, are replaced."""
    assert shown("a\x1b[2Jb\n旅") == "a�[2Jb�旅"
    assert shown("a\x1b旅", "ascii") == "a??"


def test_json_says_what_the_picture_shows() -> None:
    """Replicas as runs of layers, gaps, the slowest layers, and the route with its round trips."""
    seen = look(*THREE, round_trips_ms={"peer-aaaaaaaa": 0.84}, left=(Left(THREE[1], 2.0, goodbye=True),)).as_dict(0)
    (model,) = seen["models"]
    assert model["replicas"] == [{"layers": "0:2", "nodes": 2}, {"layers": "2:6", "nodes": 1}]
    assert (model["gaps"], model["stages"], model["tokens_per_s"], model["free_tokens"]) == ([], 2, 41.5, 0)
    assert model["slowest_layer"] == {"layers": "2:6", "tokens_per_s": 100.0}
    assert [hop["to_next_ms"] for hop in model["route"]] == [12.5, None]
    assert seen["nodes"][0]["round_trips"] == {"peer-cccccccc": 12.5}
    assert seen["nodes"][0]["round_trip_ms"] == 0.84
    assert seen["left"][0]["goodbye"] is True
    assert msgspec.json.decode(msgspec.json.encode(seen)) == seen
