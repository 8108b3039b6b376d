"""Contacts are kept and forgotten as Kademlia says, and a look-up finds the nearest that live."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.node.kademlia import ALPHA, BITS, MAX_QUESTIONS, Contact, K, Lookup, RoutingTable, position
from p2pos.types import PeerId


def contact(number: int) -> Contact:
    return Contact(PeerId(f"peer-{number}"), position(number.to_bytes(8, "big")), ())


def at(where: int) -> Contact:
    return Contact(PeerId(f"at-{where}"), where, ())


def table_of(number: int, others: list[Contact]) -> RoutingTable:
    table = RoutingTable(contact(number).position)
    for each in others:
        table.heard(each)
    return table


def look_up(lookup: Lookup, tables: dict[PeerId, RoutingTable], target: int, dead: frozenset[PeerId]) -> Lookup:
    """Run a look-up to its end over tables that stand for nodes."""
    while not lookup.done:
        for each in lookup.ask():
            if each.peer in dead:
                lookup.failed(each.peer)
            else:
                lookup.answered(each.peer, tables[each.peer].closest(target))
    return lookup


def test_a_full_bucket_keeps_who_was_there_first() -> None:
    """A newcomer to a full bucket waits as a spare, and steps in when a contact fails."""
    table = RoutingTable(0, k=2)
    far = [at((1 << 255) + number) for number in range(3)]
    for each in far:
        table.heard(each)
    assert {each.peer for each in table.closest(0)} == {far[0].peer, far[1].peer}
    table.failed(far[0])
    assert {each.peer for each in table.closest(0)} == {far[1].peer, far[2].peer}


def test_one_failure_is_forgiven() -> None:
    """A contact without a spare behind it is forgotten after two failures in a row."""
    table = RoutingTable(0)
    table.heard(at(7))
    table.failed(at(7))
    table.heard(at(7))
    table.failed(at(7))
    assert len(table) == 1
    table.failed(at(7))
    assert len(table) == 0


def test_a_node_does_not_keep_itself() -> None:
    """A node's own position stays out of its table and of its look-ups."""
    table = RoutingTable(5)
    table.heard(at(5))
    assert len(table) == 0
    assert Lookup(5, [at(5)], own=5).done


def test_bounded() -> None:
    """Whatever it hears of, a table holds k contacts per distance."""
    table = RoutingTable(0)
    for number in range(5000):
        table.heard(contact(number))
    assert len(table) <= K * 13  # 5,000 nodes lie at some 13 distances


def test_refresh_keys() -> None:
    """The keys that keep a table filled lie one at each distance, up to that of the nearest contact."""
    table = RoutingTable(0)
    assert table.refresh_keys(b"x") == []
    table.heard(at(1 << 245))
    keys = table.refresh_keys(b"x")
    assert sorted(position(key).bit_length() for key in keys) == list(range(246, BITS + 1))


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(30, 150))
def test_a_look_up_finds_the_nearest_that_live(seed: int, count: int) -> None:
    """With a fifth of the nodes dead, a look-up ends with just the k nearest of the others."""
    dice = random.Random(seed)
    everyone = [contact(number) for number in range(count)]
    tables = {each.peer: table_of(number, dice.sample(everyone, count)) for number, each in enumerate(everyone)}
    dead = frozenset(each.peer for each in dice.sample(everyone[1:], count // 5))
    target = dice.getrandbits(BITS)
    start = tables[everyone[0].peer].closest(target)
    found = look_up(Lookup(target, start, own=everyone[0].position), tables, target, dead).closest()
    living = [each for each in everyone[1:] if each.peer not in dead]
    nearest = sorted(living, key=lambda each: each.position ^ target)[:K]
    assert [each.peer for each in found[:5]] == [each.peer for each in nearest[:5]]


def test_questions_are_bounded() -> None:
    """Liars who always name somebody nearer keep a look-up busy for so many questions and no longer."""
    lookup = Lookup(0, [at(1 << 255)])
    lowest = 1 << 254
    while not lookup.done:
        for each in lookup.ask():
            names = [at(lowest - number) for number in range(1000)]
            lowest -= 1000
            lookup.answered(each.peer, names)
    assert lookup.questions <= MAX_QUESTIONS + ALPHA
    assert len(lookup.closest()) == K


def test_hops_count_questions_in_a_row() -> None:
    """Who is known is one hop away, whom it names two."""
    lookup = Lookup(0, [at(8)])
    assert [each.position for each in lookup.ask()] == [8]
    lookup.answered(at(8).peer, [at(4)])
    assert lookup.hops == 1
    assert [each.position for each in lookup.ask()] == [4]
    lookup.answered(at(4).peer, [])
    assert lookup.done
    assert lookup.hops == 2


def test_an_answer_that_was_not_asked_for() -> None:
    """Who was not asked has nothing to say."""
    lookup = Lookup(0, [at(8)])
    lookup.answered(at(8).peer, [at(1)])
    assert [each.position for each in lookup.ask()] == [8]
