"""The table believes the newest word of each peer about itself, for as long as it is good, and nothing else."""

import math
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import PeerError
from p2pos.node.identity import Identity, verify
from p2pos.node.metrics import Refusal
from p2pos.node.table import DOMAIN, LIFETIME_MS, MAX_AHEAD_MS, Table
from p2pos.wire import codec
from p2pos.wire.messages import Announcement, Signed

ALICE, BOB, CAROL = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
NOW = 1_700_000_000_000


def announcement(of: Identity, sequence: int = NOW, **changed: Any) -> Announcement:
    fields = {
        "peer": of.peer,
        "addresses": ["/ip4/127.0.0.1/tcp/4001"],
        "sequence": sequence,
        "expires": sequence + LIFETIME_MS,
        "model": "m",
        "model_name": "tiny",
        "layers": 8,
        "start": 0,
        "end": 4,
        "dtype": "f32",
        "tokens_per_s": 1.5,
        "sessions": 0,
        "cached_tokens": 0,
        "resident_bytes": 1,
        "weight_bytes": 1,
    }
    return Announcement(**{**fields, **changed})


def sign(by: Identity, told: Announcement) -> Signed:
    body = codec.encode(told)
    return Signed(body, by.public_key, by.sign(DOMAIN + body))


def said(by: Identity, sequence: int = NOW, **changed: Any) -> Signed:
    return sign(by, announcement(by, sequence, **changed))


def test_believed() -> None:
    """What a peer signed of itself is believed, and handed on as it came."""
    table = Table(verify)
    signed = said(ALICE)
    assert table.accept(signed, NOW) == announcement(ALICE)
    assert table.live(NOW) == [announcement(ALICE)]
    assert table.signed(NOW) == [signed]


def test_known_already() -> None:
    """The same announcement again is no news and no fault: it comes by many ways."""
    table = Table(verify)
    table.accept(said(ALICE), NOW)
    assert table.accept(said(ALICE), NOW) is None


def test_newer() -> None:
    """A newer announcement takes the older one's place."""
    table = Table(verify)
    table.accept(said(ALICE), NOW)
    table.accept(said(ALICE, NOW + 1, sessions=7), NOW)
    assert [each.sessions for each in table.live(NOW)] == [7]


def test_replayed() -> None:
    """An older announcement that comes after a newer one is refused."""
    table = Table(verify)
    table.accept(said(ALICE, NOW + 1), NOW)
    with pytest.raises(PeerError, match="older"):
        table.accept(said(ALICE), NOW)
    assert [each.sequence for each in table.live(NOW)] == [NOW + 1]


def test_two_stories_at_once() -> None:
    """A peer that says two things with one sequence is believed the first."""
    table = Table(verify)
    table.accept(said(ALICE, sessions=1), NOW)
    with pytest.raises(PeerError, match="older"):
        table.accept(said(ALICE, sessions=2), NOW)


def test_forged() -> None:
    """What another peer signed is refused, whatever key comes with it."""
    table = Table(verify)
    with pytest.raises(PeerError, match="another peer signed"):
        table.accept(sign(BOB, announcement(ALICE)), NOW)
    body = codec.encode(announcement(ALICE))
    with pytest.raises(PeerError, match="did not make"):
        table.accept(Signed(body, ALICE.public_key, BOB.sign(DOMAIN + body)), NOW)
    assert table.live(NOW) == []


def test_signed_for_something_else() -> None:
    """A signature over the same bytes, made for another purpose, is none."""
    body = codec.encode(announcement(ALICE))
    with pytest.raises(PeerError, match="did not make"):
        Table(verify).accept(Signed(body, ALICE.public_key, ALICE.sign(body)), NOW)


def test_expires() -> None:
    """An announcement is believed until the millisecond in which it expires."""
    table = Table(verify)
    table.accept(said(ALICE), NOW)
    assert len(table.live(NOW + LIFETIME_MS - 1)) == 1
    assert table.live(NOW + LIFETIME_MS) == []
    assert table.signed(NOW + LIFETIME_MS) == []
    with pytest.raises(PeerError, match="expired"):
        table.accept(said(ALICE), NOW + LIFETIME_MS)


def test_goodbye() -> None:
    """Who says goodbye is gone at once, is told of to others, and does not come back by an older word."""
    table = Table(verify)
    table.accept(said(ALICE), NOW)
    table.accept(said(ALICE, NOW + 2, goodbye=True), NOW + 2)
    assert table.live(NOW + 2) == []
    assert len(table.signed(NOW + 2)) == 1
    with pytest.raises(PeerError, match="older"):
        table.accept(said(ALICE, NOW + 1), NOW + 2)


def test_back_after_a_goodbye() -> None:
    """A node that starts again is believed again."""
    table = Table(verify)
    table.accept(said(ALICE, goodbye=True), NOW)
    table.accept(said(ALICE, NOW + 1), NOW + 1)
    assert len(table.live(NOW + 1)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"expires": NOW + LIFETIME_MS + 1},
        {"expires": NOW - 1},
        {"start": 4, "end": 4},
        {"start": 5, "end": 4},
        {"end": 9},
        {"tokens_per_s": math.inf},
        {"model_name": "\x1b[31mred"},
        {"model": "a\nb"},
        {"addresses": ["/ip4/127.0.0.1/tcp/1\x07"]},
    ],
    ids=str,
)
def test_what_cannot_be_so(changed: dict[str, Any]) -> None:
    """A signed announcement of what can't be, or can't be shown, is refused."""
    table = Table(verify)
    with pytest.raises(PeerError):
        table.accept(said(ALICE, **changed), NOW)
    assert table.signed(NOW) == []


def test_from_the_future() -> None:
    """A clock may run a little ahead, and no more."""
    table = Table(verify)
    table.accept(said(ALICE, NOW + MAX_AHEAD_MS), NOW)
    with pytest.raises(PeerError, match="future"):
        table.accept(said(BOB, NOW + MAX_AHEAD_MS + 1), NOW)


def test_full() -> None:
    """A full table refuses newcomers, keeps those that it has current, and has room again when one expires."""
    table = Table(verify, capacity=2)
    table.accept(said(ALICE), NOW)
    table.accept(said(BOB, NOW + 5), NOW + 5)
    with pytest.raises(PeerError, match="one too many"):
        table.accept(said(CAROL, NOW + 6), NOW + 6)
    table.accept(said(BOB, NOW + 7), NOW + 7)
    later = NOW + LIFETIME_MS
    table.accept(said(CAROL, later), later)
    assert {each.peer for each in table.live(later)} == {BOB.peer, CAROL.peer}


@given(st.binary(max_size=300), st.binary(max_size=60), st.binary(max_size=80))
def test_noise(body: bytes, key: bytes, signature: bytes) -> None:
    """Arbitrary bytes are a PeerError and leave the table as it was."""
    table = Table(verify)
    with pytest.raises(PeerError):
        table.accept(Signed(body, key, signature), NOW)
    assert table.signed(NOW) == []


@given(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.integers(0, 30), st.booleans()), max_size=12))
def test_the_newest_wins_in_any_order(told: list[tuple[Identity, int, bool]]) -> None:
    """Whatever the order in which words arrive, the table ends up with the newest of each peer."""
    table = Table(verify)
    newest: dict[str, tuple[int, bool]] = {}
    for who, offset, goodbye in told:
        if offset > newest.get(who.peer, (-1, False))[0]:
            newest[who.peer] = (offset, goodbye)
            table.accept(said(who, NOW + offset, goodbye=goodbye), NOW)
        else:
            with suppress(PeerError):
                assert table.accept(said(who, NOW + offset, goodbye=goodbye), NOW) is None
    assert {each.peer for each in table.live(NOW)} == {peer for peer, (_, left) in newest.items() if not left}
    for peer, (offset, _) in newest.items():
        assert table.sequence_of(peer) == NOW + offset  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (Signed(b"nonsense", ALICE.public_key, ALICE.sign(DOMAIN + b"nonsense")), "malformed"),
        (sign(BOB, announcement(ALICE)), "forged"),
        (Signed(codec.encode(announcement(ALICE)), ALICE.public_key, bytes(64)), "forged"),
        (said(ALICE, NOW - 1), "replayed"),
        (said(ALICE, NOW - LIFETIME_MS), "expired"),
        (said(ALICE, NOW + MAX_AHEAD_MS + 1), "future"),
        (said(ALICE, NOW + 1, end=9), "impossible"),
        (said(BOB), "full"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_refusal_has_its_reason(signed: Signed, reason: str) -> None:
    """A word for whoever counts them, one of those that the metrics know."""
    table = Table(verify, capacity=1)
    table.accept(said(ALICE), NOW)
    with pytest.raises(PeerError) as caught:
        table.accept(signed, NOW)
    assert caught.value.fields["reason"] == reason
    assert reason in get_args(Refusal)
