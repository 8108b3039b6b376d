from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UnavailableError
from p2pos.shard.events import EventReader

LINES = st.lists(st.binary(min_size=1, max_size=20).filter(lambda line: b"\n" not in line and b"\r" not in line))


def read(data: bytes, cuts: list[int], most: int = 1 << 20) -> list[bytes]:
    reader = EventReader(most)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [event for start, end in pairwise(edges) for event in reader.feed(data[start:end])]


@given(LINES, st.lists(st.integers(0)), st.sampled_from([b"\n", b"\r\n"]))
def test_every_event_comes_whole_however_the_bytes_are_cut(payloads: list[bytes], cuts: list[int], end: bytes) -> None:
    """What a server sends as events is read as these, in whatever pieces it arrives."""
    data = b"".join(b"data: " + payload + end + end for payload in payloads)
    assert read(data, cuts) == payloads


def test_comments_and_other_fields_are_no_data() -> None:
    """Pings, ids and names of events are passed over, and an event without data is none."""
    assert read(b": ping\n\nevent: x\nid: 7\n\nretry: 9\ndata:a\ndata: b\n\n", [3]) == [b"a\nb"]


def test_an_error_line_of_an_older_server_is_data() -> None:
    """What stands behind `error:` is read, so that it can be told."""
    assert read(b'error: {"message": "no"}\n\n', []) == [b'{"message": "no"}']


def test_an_event_that_never_ends_is_refused() -> None:
    """No more is held of an event than it may have, whether in one line or in many."""
    with pytest.raises(UnavailableError, match="more than 100 bytes"):
        read(b"data: " + b"x" * 200, list(range(0, 200, 7)), most=100)
    with pytest.raises(UnavailableError, match="more than 100 bytes"):
        read(b"data: x\n" * 100, [], most=100)


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(data: bytes) -> None:
    """Whatever comes is read, or refused as too long."""
    with suppress(UnavailableError):
        read(data, [50, 100], most=64)
