import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.content import car, cid
from p2pos.content.car import Car, CarError

BLOCKS = [b"lantern", b"", b"x" * 1000]
NAMED = [(cid.of(data), data) for data in BLOCKS]


def made(roots=None, blocks=NAMED):
    file = io.BytesIO()
    assert car.write(file, [cid.of(BLOCKS[0])] if roots is None else roots, blocks) == len(file.getvalue())
    return file.getvalue()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=40), st.sampled_from(["raw", "dag-pb"]))
def test_a_car_reads_back(blocks, codec):
    """What is written is read: roots, names and blocks, each once."""
    named = [(cid.of(data, codec), data) for data in blocks]
    found = Car(io.BytesIO(made([name for name, _ in named], named)))
    assert found.roots == [name for name, _ in named]
    assert {name: found.get(name) for name, _ in named} == dict(named)
    assert len(found) == len(set(blocks))
    assert found.get(cid.of(b"not there")) is None


def test_a_car_that_is_cut_off_is_refused_wherever():
    """Of every beginning but those that end with a whole block the fault is told, and where it is."""
    data = made()
    whole = {len(made(blocks=NAMED[:count])) for count in range(len(NAMED) + 1)}
    for end in set(range(len(data))) - whole:
        with pytest.raises(CarError, match="at byte|header"):
            Car(io.BytesIO(data[:end]))


def test_every_flipped_bit_is_found():
    """A CAR with any bit changed is refused, or it names other roots and all its blocks are still what they were."""
    data = made()
    roots = Car(io.BytesIO(data)).roots
    for bit in range(8 * len(data)):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        try:
            found = Car(io.BytesIO(bytes(spoilt)))
        except CarError:
            continue
        # a root's digest is only a name; and of raw bytes and a node that hash alike either is true
        assert found.roots != roots or bit // 8 >= len(car.header(roots))
        assert all(found.get(name) in BLOCKS for name, _ in NAMED if name in found)


def test_a_block_under_anothers_name_is_refused():
    """A lying CAR is refused with the place of the lie."""
    lie = [NAMED[0], (cid.of(b"gold"), b"brass")]
    with pytest.raises(CarError, match=r"block 2, at byte \d+, does not hash to its name"):
        Car(io.BytesIO(made(blocks=lie)))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "its header has no length"),
        (b"\xff" * 20, "has no length"),
        (b"\x00", "header of 0 bytes"),
        (b"\xff\xff\xff\xff\x0f", "header of 4294967295 bytes"),
        (bytes.fromhex("0aa16776657273696f6e02") + bytes(40), "not a CAR of version 1"),  # how version 2 begins
        (made() + b"\xff\xff\xff\x7f" + bytes(100), "is said to have 268435455 bytes"),
        (made() + b"\x05hello", "is said to have 5 bytes"),
        (made() + b"\x24" + bytes(36), "has a CID that is not a CIDv1"),
    ],
)
def test_what_is_no_car_is_refused(data, fault):
    """Each fault is one line."""
    with pytest.raises(CarError, match=fault) as caught:
        Car(io.BytesIO(data))
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    """A stranger's file raises nothing but CarError."""
    with pytest.raises(CarError):
        Car(io.BytesIO(data))


def test_a_file_that_changes_is_noticed():
    """What was verified once is verified again when it is taken."""
    file = io.BytesIO(made())
    found = Car(file)
    file.seek(-1, io.SEEK_END)
    file.write(b"y")
    with pytest.raises(CarError, match="has changed"):
        found.get(NAMED[2][0])
