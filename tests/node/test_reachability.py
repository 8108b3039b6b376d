"""What a node concludes from what others found, and what it does next about relays."""

from hypothesis import given
from hypothesis import strategies as st

from p2pos.node.reachability import (
    ASK_AGAIN_S,
    ASK_LATER_S,
    ASK_SOON_S,
    MAX_REFUSED,
    OPINIONS,
    REFUSED_MAX_S,
    REFUSED_S,
    RELAYS,
    SURE,
    Reachability,
    Verdict,
)
from p2pos.types import PeerId

HERE = "/ip4/5.2.0.1/tcp/4001"
PEERS = [PeerId(f"peer-{number}") for number in range(12)]


def private() -> Reachability:
    state = Reachability()
    state.found(PEERS[0], None, 0.0)
    return state


def test_unknown_at_first() -> None:
    """Before anybody has tried, nothing is known, no relay is asked, and whoever is there is asked at once."""
    state = Reachability()
    assert state.verdict is Verdict.UNKNOWN
    assert state.to_reserve(PEERS, 0.0) == []
    assert state.whom_to_ask(PEERS[:2], PEERS[2:], 0.0) == PEERS[:SURE]


def test_most_decide() -> None:
    """The verdict is what most found; as long as they are even it stays."""
    state = Reachability()
    state.found(PEERS[0], HERE, 0.0)
    assert state.verdict is Verdict.PUBLIC
    state.found(PEERS[1], None, 0.0)
    assert state.verdict is Verdict.PUBLIC
    state.found(PEERS[2], None, 0.0)
    assert state.verdict is Verdict.PRIVATE
    assert state.reached_at == {HERE}


def test_a_liar_is_outvoted() -> None:
    """One peer that says what is not so has one voice, however often it says it."""
    state = Reachability()
    for peer in PEERS[:2]:
        state.found(peer, None, 0.0)
    for _ in range(50):
        state.found(PEERS[5], HERE, 0.0)
    assert state.verdict is Verdict.PRIVATE


@given(st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=40))
def test_the_newest_opinions_count(said: list[tuple[int, bool]]) -> None:
    """The verdict is the majority of the last few peers' last words."""
    state = Reachability()
    last: dict[int, bool] = {}
    before = Verdict.UNKNOWN
    for number, reached in said:
        state.found(PEERS[number], HERE if reached else None, 0.0)
        last.pop(number, None)
        last[number] = reached
        newest = list(last.values())[-OPINIONS:]
        last = dict(list(last.items())[-OPINIONS:])
        if sum(newest) * 2 != len(newest):
            before = Verdict.PUBLIC if sum(newest) * 2 > len(newest) else Verdict.PRIVATE
        assert state.verdict is before


def test_when_to_ask() -> None:
    """With few opinions another is asked for soon, with enough of them seldom; new peers before old ones."""
    state = Reachability()
    state.nobody_said(0.0)
    assert state.next_s(0.0) == ASK_SOON_S
    state.try_soon()
    assert state.next_s(0.0) == 0.0
    state.found(PEERS[0], HERE, 0.0)
    assert state.whom_to_ask(PEERS[:1], [], 1.0) == []
    assert state.whom_to_ask(PEERS[:2], [], ASK_AGAIN_S) == [PEERS[1], PEERS[0]]
    for peer in PEERS[1:SURE]:
        state.found(peer, HERE, 0.0)
    assert state.whom_to_ask(PEERS, [], ASK_AGAIN_S) == []
    assert state.whom_to_ask(PEERS[:SURE], [], ASK_LATER_S) == PEERS[: SURE - 1]


def test_behind_a_router_it_takes_two_relays() -> None:
    """A node that nobody can dial asks relays in order until it has two places."""
    state = private()
    assert state.to_reserve(PEERS[1:], 0.0) == PEERS[1:]
    for number, relay in enumerate(PEERS[1 : RELAYS + 1], start=1):
        assert state.short
        state.holds(relay, (f"/{number}",), 3600.0, 0.0)
    assert not state.short
    assert state.to_reserve(PEERS, 0.0) == []
    assert state.relayed() == ("/1", "/2")


def test_a_lost_relay_is_replaced() -> None:
    """A relay that is gone is one too few, and the next one is asked."""
    state = private()
    for relay in PEERS[1 : RELAYS + 1]:
        state.holds(relay, ("/x",), 3600.0, 0.0)
    assert state.lost(PEERS[1])
    assert not state.lost(PEERS[1])
    assert PEERS[4] in state.to_reserve(PEERS, 0.0)


def test_a_place_is_renewed_in_time() -> None:
    """A place is asked for again at half of its time."""
    state = private()
    state.holds(PEERS[1], ("/x",), 3600.0, 100.0)
    assert state.to_renew(1899.0) == []
    assert state.to_renew(1900.0) == [PEERS[1]]
    assert state.next_s(500.0) <= 1900.0


def test_a_relay_that_refuses_is_left_alone_for_longer() -> None:
    """Each refusal doubles the pause, up to a bound; a place that is given ends that."""
    state = private()
    now_s, pauses = 0.0, []
    for _ in range(8):
        state.refused(PEERS[1], now_s)
        began_s = now_s
        while PEERS[1] not in state.to_reserve([PEERS[1]], now_s):
            now_s += REFUSED_S / 4
        pauses.append(now_s - began_s)
    assert pauses == [min(REFUSED_S * 2**times, REFUSED_MAX_S) for times in range(8)]
    state.holds(PEERS[1], (), 10.0, now_s)
    state.lost(PEERS[1])
    assert state.to_reserve([PEERS[1]], now_s) == [PEERS[1]]


def test_refusals_are_forgotten() -> None:
    """However many peers refuse, few are remembered."""
    state = private()
    for number in range(MAX_REFUSED + 10):
        state.refused(PeerId(str(number)), 0.0)
    assert len(state._refused) == MAX_REFUSED


def test_a_public_node_needs_no_relay() -> None:
    """Once others can dial it, places are spare, but for those that its operator named."""
    state = Reachability(always=frozenset({PEERS[3]}))
    assert state.to_reserve(PEERS, 0.0) == [PEERS[3]]
    state.found(PEERS[0], None, 0.0)
    for relay in (PEERS[3], PEERS[4]):
        state.holds(relay, (), 3600.0, 0.0)
    assert state.spare() == []
    for peer in PEERS[:2]:
        state.found(peer, HERE, 0.0)
    assert state.spare() == [PEERS[4]]
