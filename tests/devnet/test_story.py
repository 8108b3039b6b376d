"""The story of a broken route, from log lines as nodes write them."""

import json
from typing import Any

from p2pos.devnet.story import read, tell

ALICE, BOB, CAROL = "12D3KooWaaaaaaaa", "12D3KooWbbbbbbbb", "12D3KooWcccccccc"
NAMES = {ALICE: "node-1", BOB: "node-2"}
SESSION = "7ba7657b284966c598366aed"


def line(event: str, second: float, component: str = "failover", life: int = 0, **fields: Any) -> str:
    when = f"2026-11-24T13:31:{second:09.6f}Z"
    session = {"session": f"{SESSION}{life:08x}"} if component == "failover" else {}
    return json.dumps({"component": component, "event": event, "timestamp": when, "level": "info", **session, **fields})


LOG = [
    line("listening", 1, "node", peer=ALICE),
    line("lost", 18.5, peer=BOB, layers="layers 2:6", cause="hung", why=f"no answer in time from {BOB}"),
    line("rerouted", 18.501, route={ALICE: "0:2", CAROL: "2:6"}, stay=1, new=1),
    line("replaying", 18.56, peer=ALICE, to=CAROL, begin=0, end=63),
    line("beginning anew", 18.6, life=1, position=63),
    line("resumed", 19.0, life=1, position=63, pause_ms=585, cause="hung"),
]


def test_a_repair_is_told_in_order_with_names() -> None:
    """From the loss to the next token, new beginnings included, with the time between steps."""
    peer, events = read("node-1", LOG)
    assert peer == ALICE
    assert tell(reversed(events), NAMES) == [
        "text 7ba7657b, asked of node-1",
        "  13:31:18.500  lost node-2, layers 2:6 (hung): no answer in time from node-2",
        "         +1 ms  rerouted over node-1 0:2, …cccccccc 2:6: 1 stay, 1 new",
        "        +59 ms  node-1 sends …cccccccc positions 0 to 63 again",
        "        +40 ms  begins anew from its 63 tokens",
        "       +400 ms  goes on at position 63 after a pause of 585 ms",
    ]


def test_a_text_given_up_and_a_node_that_leaves_are_told() -> None:
    """The end that no repair could prevent, and the change of route that nobody noticed."""
    _, events = read(
        "node-1", [line("leaving", 1, peer=BOB, layers="layers 2:6"), line("gave up", 2, why=f"lost the node {BOB}")]
    )
    assert [each.strip() for each in tell(events, NAMES)[1:]] == [
        "13:31:01.000  node-2, layers 2:6, is to leave",
        "+1000 ms  given up: lost node-2",
    ]


def test_what_is_no_such_line_is_passed_over() -> None:
    """Half a line, a word that looks alike, fields of other types: nothing of it ends the story."""
    odd = ['{"component": "failover", "eve', '"failover"', '{"component": "failover", "event": 1}', "[]", LOG[2]]
    _, events = read("node-1", [*odd, line("rerouted", 2, route=[1], stay=None), line("something new", 3)])
    assert len(events) == 3
    assert any(each.endswith("something new") for each in tell(events, {}))
