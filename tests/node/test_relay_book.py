"""A relay's books: who has a place, what runs, and what it may still carry."""

from hypothesis import given
from hypothesis import strategies as st

from p2pos.node.relay_book import BURST_S, Limits, Refusal, RelayBook, Running
from p2pos.types import PeerId

ALICE, BOB, CAROL = (PeerId(name) for name in ("alice", "bob", "carol"))
SMALL = Limits(
    reservations=3,
    reservations_per_ip=2,
    reservation_s=100.0,
    circuits=4,
    circuits_per_peer=2,
    circuit_s=50.0,
    circuit_bytes=1000,
    bytes_per_s=100,
)


def opened(found: Running | Refusal) -> Running:
    assert isinstance(found, Running)
    return found


def test_a_place_ends_with_its_time() -> None:
    """A circuit leads to whoever has a place, and to nobody whose place has ended."""
    book = RelayBook(SMALL)
    assert book.open(ALICE, BOB, 0.0) is Refusal.NO_RESERVATION
    assert book.reserve(BOB, "5.0.0.1", 0.0) == 100.0
    opened(book.open(ALICE, BOB, 99.0))
    assert book.open(ALICE, BOB, 100.0) is Refusal.NO_RESERVATION


def test_a_place_is_kept_on() -> None:
    """Whoever asks again before the end keeps the place, even at a relay that is full."""
    book = RelayBook(SMALL)
    for number, peer in enumerate((ALICE, BOB, CAROL)):
        book.reserve(peer, f"5.0.0.{number}", 0.0)
    assert book.reserve(PeerId("dave"), "5.0.0.9", 1.0) is Refusal.FULL
    assert book.reserve(BOB, "5.0.0.1", 60.0) == 160.0
    opened(book.open(ALICE, BOB, 120.0))


def test_a_place_ends_with_its_connection() -> None:
    """A peer that is gone has no place, and leaves room for another."""
    book = RelayBook(SMALL)
    for number, peer in enumerate((ALICE, BOB, CAROL)):
        book.reserve(peer, f"5.0.0.{number}", 0.0)
    book.left(ALICE)
    assert book.open(BOB, ALICE, 1.0) is Refusal.NO_RESERVATION
    assert book.reserve(PeerId("dave"), "5.0.0.9", 1.0) == 101.0


def test_one_address_has_few_places() -> None:
    """Identities cost nothing, so peers of one IP address share a few places."""
    book = RelayBook(SMALL)
    book.reserve(ALICE, "5.0.0.1", 0.0)
    book.reserve(BOB, "5.0.0.1", 0.0)
    assert book.reserve(CAROL, "5.0.0.1", 0.0) is Refusal.FULL
    assert book.reserve(CAROL, "5.0.0.2", 0.0) == 100.0


def test_circuits_are_bounded() -> None:
    """One peer has few circuits, from it or to it, and a place comes back when one ends."""
    book = RelayBook(SMALL)
    book.reserve(BOB, "5.0.0.1", 0.0)
    first = opened(book.open(ALICE, BOB, 0.0))
    opened(book.open(CAROL, BOB, 0.0))
    assert book.open(PeerId("dave"), BOB, 0.0) is Refusal.FULL
    book.close(first)
    book.close(first)
    opened(book.open(PeerId("dave"), BOB, 0.0))


def test_a_circuit_has_its_share() -> None:
    """A circuit carries so many bytes, for so long, and no more."""
    book = RelayBook(SMALL)
    book.reserve(BOB, "5.0.0.1", 0.0)
    running = opened(book.open(ALICE, BOB, 0.0))
    assert book.carry(running, 600, 0.0) is not None
    assert book.carry(running, 401, 10.0) is None
    assert book.carry(running, 400, 10.0) is not None
    late = opened(book.open(ALICE, BOB, 0.0))
    assert book.carry(late, 1, 50.0) is None


@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.integers(1, 300), st.integers(0, 1)),
        max_size=60,
    )
)
def test_the_line_is_never_overrun(sent: list[tuple[float, int, int]]) -> None:
    """However circuits send, what leaves by any time is the rate times that time, and the burst."""
    limits = Limits(circuit_bytes=10**9, circuit_s=10**9, bytes_per_s=1000)
    book = RelayBook(limits)
    book.reserve(BOB, "5.0.0.1", 0.0)
    circuits = [opened(book.open(peer, BOB, 0.0)) for peer in (ALICE, CAROL)]
    now_s = total = 0.0
    for pause_s, size, which in sent:
        now_s += pause_s
        wait_s = book.carry(circuits[which], size, now_s)
        assert wait_s is not None
        total += size
        assert total <= 1000 * (now_s + wait_s + BURST_S) + 1e-6


@given(st.lists(st.tuples(st.sampled_from(["reserve", "open", "close", "left"]), st.integers(0, 5), st.integers(0, 5))))
def test_the_books_stay_small(steps: list[tuple[str, int, int]]) -> None:
    """Whatever strangers do, a relay holds no more than its limits, and counts nobody who has nothing."""
    book = RelayBook(SMALL)
    running: list[Running] = []
    for step, one, other in steps:
        peer = PeerId(str(one))
        if step == "reserve":
            book.reserve(peer, f"5.0.0.{one % 3}", 0.0)
        elif step == "left":
            book.left(peer)
        elif step == "open" and isinstance(found := book.open(PeerId(str(other)), peer, 0.0), Running):
            running.append(found)
        elif step == "close" and running:
            book.close(running.pop())
        assert book.reservations <= 3
        assert book.circuits == len(running) <= 4
    for each in running:
        book.close(each)
    assert not book._of_peer
