import random
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.assets import files
from p2pos.assets.formats import images
from p2pos.assets.formats.reader import FormatError
from tests.assets.items import glb

SAMPLES = sorted(path for path in (Path(__file__).parent / "samples").iterdir() if path.suffix != ".md")
BY_NAME = {path.name: path.read_bytes() for path in SAMPLES}


def check(data, media_type, *, size=None, piece=1 << 16):
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    return files.check(pieces, len(data) if size is None else size, media_type)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_what_other_encoders_wrote_is_read(name, piece):
    """Files of real encoders are what they are said to be, in whatever pieces they come."""
    look = check(BY_NAME[name], files.media_type(name), piece=piece)
    assert look.checked
    assert look.text


@pytest.mark.parametrize("name", BY_NAME)
def test_a_file_cut_short_is_refused(name):
    """Of a file that ends too soon no beginning passes, neither under its whole size nor under its own."""
    data = BY_NAME[name]
    for end in {0, 1, 7, len(data) // 3, len(data) // 2, len(data) - 1}:
        with pytest.raises(FormatError):
            check(data[:end], files.media_type(name), size=len(data))
    cut_off = len(data) // 2
    if name not in {"bell.mp3", "bell.flac"}:  # whose frames say nothing of how many there are
        with pytest.raises(FormatError):
            check(data[:cut_off], files.media_type(name))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_file_larger_than_it_says_is_refused_before_it_is_read(name):
    """No more than a piece beyond its size is taken."""
    data = BY_NAME[name]
    taken = 0

    def endless():
        nonlocal taken
        yield data
        while True:
            taken += 1
            yield bytes(1000)

    with pytest.raises(FormatError):
        files.check(endless(), len(data), files.media_type(name))
    assert taken <= 1


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("claimed", [each for each in files.CHECKS if not each.startswith("text/")])
def test_one_type_is_not_another(name, claimed):
    """A file passes as the type that it is, and as no other."""
    if claimed == files.media_type(name) or (name, claimed) == ("lantern.gltf", "application/json"):
        return
    with pytest.raises(FormatError):
        check(BY_NAME[name], claimed)


@settings(deadline=None)
@given(data=st.binary(max_size=300), media_type=st.sampled_from(sorted(files.CHECKS)))
def test_any_bytes_are_looked_at_or_refused(data, media_type):
    """A stranger's bytes raise nothing but FormatError."""
    with suppress(FormatError):
        check(data, media_type, piece=17)


@pytest.mark.parametrize("name", BY_NAME)
def test_spoilt_files_are_read_or_refused(name):
    """Real files with a few bytes changed, dropped or doubled raise nothing but FormatError."""
    chance = random.Random(name)
    data = BY_NAME[name]
    for _ in range(150):
        spoilt = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(min(len(spoilt), chance.choice((16, 64, len(spoilt)))))
            match chance.randrange(3):
                case 0:
                    spoilt[at] = chance.randrange(256)
                case 1:
                    del spoilt[at : at + chance.randrange(1, 9)]
                case 2:
                    spoilt[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
        with suppress(FormatError):
            check(bytes(spoilt), files.media_type(name))


@pytest.mark.parametrize("name", ["lantern.png", "bell.ogg", "bell.opus"])
def test_formats_with_checksums_show_every_flipped_bit(name):
    """In a PNG and an Ogg any changed bit is found."""
    data = BY_NAME[name]
    for at in range(0, len(data), 7):
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << at % 8
        with pytest.raises(FormatError):
            check(bytes(spoilt), files.media_type(name))


SCENE = {"asset": {"version": "2.0"}}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (glb(SCENE | {"images": [{"uri": "http://203.0.113.1/track.png"}]}), "image 0 lies outside it"),
        (glb(SCENE | {"buffers": [{"byteLength": 4}]}), "buffer 0 is nowhere"),
        (glb(SCENE | {"buffers": [{"byteLength": 4}]}, bytes(16)), "said to have 4 bytes, and has 16"),
        (glb({"asset": {"version": "1.0"}}), "not one of glTF 2"),
        (glb([]), "not one of glTF 2"),
        (glb(SCENE)[:4] + b"\1" + glb(SCENE)[5:], "version 1"),
        (glb(SCENE) + b"\0" * 4, "header says"),
        (glb(SCENE | {"meshes": [1]}), "meshes are not a list of objects"),
    ],
)
def test_scenes_that_are_not_whole_are_refused(data, fault):
    """A GLB holds all that it shows, and nothing beside it."""
    with pytest.raises(FormatError, match=fault):
        check(data, "model/gltf-binary")


def png(*chunks):
    body = b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def ihdr(width, height, depth=8, colour=2):
    return b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, colour, 0, 0, 0))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (png(ihdr(1 << 30, 1 << 30), (b"IDAT", b"x"), (b"IEND", b"")), "pixels; 1 to 32768 a side"),
        (png(ihdr(0, 1), (b"IDAT", b"x"), (b"IEND", b"")), "pixels; 1 to 32768 a side"),
        (png(ihdr(1, 1, 3), (b"IDAT", b"x"), (b"IEND", b"")), "says what no PNG is"),
        (png(ihdr(1, 1, 8, 3), (b"IDAT", b"x"), (b"IEND", b"")), "lacks its pixels, or its palette"),
        (png(ihdr(1, 1), (b"IEND", b"")), "lacks its pixels"),
        (png((b"IDAT", b"x"), ihdr(1, 1), (b"IEND", b"")), "not its first chunk"),
        (png(ihdr(1, 1), (b"IDAT", b"x"), (b"IEND", b"")) + b"#!/bin/sh", "9 bytes follow its last chunk"),
    ],
)
def test_pictures_that_are_none_are_refused(data, fault):
    """A PNG is exactly one, with nothing hidden behind it, and no larger than a screen can want."""
    with pytest.raises(FormatError, match=fault):
        check(data, "image/png")


def test_crumbs_are_no_endless_work():
    """A file of nothing but empty pieces is refused after so many."""
    empty = (0).to_bytes(4, "big") + b"teXt" + zlib.crc32(b"teXt").to_bytes(4, "big")
    crumbs = png(ihdr(1, 1)) + empty * (images.MAX_CHUNKS + 1)
    with pytest.raises(FormatError, match="is none"):
        check(crumbs, "image/png")


def test_an_unknown_type_is_said_to_be_unchecked():
    """Nothing but its size is looked at, and that is said; another size is refused all the same."""
    look = check(b"anything", "video/mp4")
    assert not look.checked
    assert "not looked at" in look.text
    with pytest.raises(FormatError, match="more than the 3 bytes"):
        check(b"anything", "video/mp4", size=3)


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_text_is_utf_8(text):
    """Any text passes as such, cut wherever it is; bytes that are none don't."""
    assert check(text.encode(), "text/plain", piece=1).checked
    with pytest.raises(FormatError, match="not text"):
        check(text.encode() + b"\xff", "text/plain", piece=1)
