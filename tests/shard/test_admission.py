from p2pos.shard.admission import MAX_WAITING, MAX_WAITING_PER_OWNER, WAIT_S, Admission


def session(number: int) -> bytes:
    return number.to_bytes(16, "big")


def queue(*owners: str) -> Admission:
    made = Admission()
    for number, owner in enumerate(owners):
        assert made.wait(session(number), owner, 10, 0.0)
    return made


def room(places: int):
    taken: list[bytes] = []

    def try_(wanted: bytes) -> bool:
        if len(taken) >= places:
            return False
        taken.append(wanted)
        return True

    return try_


def test_who_comes_first_is_let_in_first() -> None:
    """Sessions of owners that hold nothing enter in the order of their arrival."""
    made = queue("a", "b", "c")
    assert made.let_in(room(2)) == [session(0), session(1)]
    assert len(made) == 1


def test_owners_take_turns() -> None:
    """An owner with many sessions lets another with fewer in between."""
    made = queue("a", "a", "a", "b")
    assert made.let_in(room(3)) == [session(0), session(3), session(1)]


def test_who_asks_for_little_goes_before_who_asks_for_all() -> None:
    """A peer that asks for the whole cache again and again keeps nobody else out."""
    made = Admission()
    assert made.wait(session(0), "greedy", 1000, 0.0)
    assert made.wait(session(1), "modest", 10, 0.0)
    assert made.let_in(lambda wanted: wanted != session(0)) == [session(1)]


def test_who_leaves_counts_no_more() -> None:
    """Sessions that are over don't weigh on their owner."""
    made = queue("a", "a", "b")
    made.let_in(room(1))
    made.leave(session(0))
    assert made.let_in(room(1)) == [session(1)]


def test_a_large_session_is_not_overtaken() -> None:
    """Where the first in turn finds no room, those behind wait as well."""
    made = queue("a", "b")
    tried: list[bytes] = []

    def too_large(wanted: bytes) -> bool:
        tried.append(wanted)
        return False

    assert made.let_in(too_large) == []
    assert tried == [session(0)]


def test_one_owner_does_not_fill_the_line() -> None:
    """So many may wait, and of one owner fewer."""
    made = Admission()
    numbers = iter(range(1000))
    for _ in range(MAX_WAITING_PER_OWNER):
        assert made.wait(session(next(numbers)), "a", 10, 0.0)
    assert not made.wait(session(next(numbers)), "a", 10, 0.0)
    for index in range(MAX_WAITING - MAX_WAITING_PER_OWNER):
        assert made.wait(session(next(numbers)), f"b{index}", 10, 0.0)
    assert not made.wait(session(next(numbers)), "c", 10, 0.0)


def test_who_waits_too_long_is_named() -> None:
    """After the time to wait a session is overdue, until it leaves."""
    made = queue("a")
    assert made.overdue(WAIT_S - 0.1) == []
    assert made.overdue(WAIT_S) == [session(0)]
    made.leave(session(0))
    assert made.overdue(WAIT_S) == []
