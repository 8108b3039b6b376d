"""Pictures: PNG, JPEG, WebP, GIF. Pure. Their structure is looked at and their pixels are not unpacked."""

import zlib

from p2pos.assets.formats.reader import PIECE, FormatError, Reader
from p2pos.assets.formats.riff import chunks, form

MAX_SIDE = 1 << 15
"""Pixels. Larger ones are made to exhaust whoever opens them."""
MAX_CHUNKS = 1 << 18
"""Of a PNG, segments of a JPEG: with 8 KiB each, as many writers have them, 2 GiB. Else small ones are endless work."""
_PNG = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
"""PNG: bits per channel that each kind of colour may have."""
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGBA"}


def png(reader: Reader) -> str:
    """Signature, IHDR first, the CRC of each chunk, a palette where one is needed, IDAT, and IEND at the very end."""
    if reader.exactly(8, "signature") != _PNG:
        raise FormatError("it doesn't begin as a PNG does")
    width = height = colour = -1
    palette = data = False
    number = 0
    while True:
        number += 1
        head = reader.exactly(8, f"chunk {number}'s header")
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if number > MAX_CHUNKS or length >= 1 << 31 or not kind.isalpha():
            raise FormatError(f"its chunk {number} is none")
        crc = zlib.crc32(kind)
        first = b""
        for piece in reader.pieces(length, f"chunk {number}"):
            first = first or piece
            crc = zlib.crc32(piece, crc)
        if reader.exactly(4, f"chunk {number}'s checksum") != crc.to_bytes(4, "big"):
            raise FormatError(f"its chunk {number}, {kind.decode()}, does not have the checksum that it says")
        if (number == 1) != (kind == b"IHDR"):
            raise FormatError("its IHDR is not its first chunk alone")
        if kind == b"IHDR":
            width, height, colour = _header(first, length)
        palette |= kind == b"PLTE"
        data |= kind == b"IDAT"
        if kind == b"IEND":
            break
    if length or not data or (colour == 3 and not palette):
        raise FormatError("it lacks its pixels, or its palette, or ends oddly")
    reader.end("last chunk")
    return f"PNG, {width} × {height}, {_COLOURS[colour]}"


def _header(data: bytes, length: int) -> tuple[int, int, int]:
    if length != 13:
        raise FormatError("its IHDR has not 13 bytes")
    width, height = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    depth, colour, compression, filtering, interlace = data[8:13]
    if depth not in _DEPTHS.get(colour, set()) or compression or filtering or interlace > 1:
        raise FormatError("its IHDR says what no PNG is")
    return *_sides(width, height), colour


def jpeg(reader: Reader) -> str:
    """The marker segments up to the pixels, which say how large it is, and the mark of the end at the very end."""
    if reader.exactly(2, "signature") != b"\xff\xd8":
        raise FormatError("it doesn't begin as a JPEG does")
    width = height = 0
    for _ in range(MAX_CHUNKS):
        mark = reader.exactly(2, "marker")
        while mark == b"\xff\xff":  # padding
            mark = mark[1:] + reader.exactly(1, "marker")
        if mark[0] != 0xFF or mark[1] in {0x00, 0x01, 0xD8, 0xD9} or 0xD0 <= mark[1] <= 0xD7:
            raise FormatError(f"at byte {reader.position - 2} is no marker of a segment")
        length = int.from_bytes(reader.exactly(2, "segment"), "big") - 2
        if length < 0:
            raise FormatError(f"its segment at byte {reader.position - 2} has no length")
        data = reader.exactly(length, "segment")
        if 0xC0 <= mark[1] <= 0xCF and mark[1] not in {0xC4, 0xC8, 0xCC}:
            if length < 6:
                raise FormatError("its frame header is too short")
            height, width = int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big")
        if mark[1] == 0xDA:
            break
    else:
        raise FormatError(f"it has more than {MAX_CHUNKS} segments")
    _sides(width, height)
    tail = b""
    while piece := reader.some(PIECE):
        tail = (tail + piece)[-2:]
    if tail != b"\xff\xd9":
        raise FormatError("it does not end as a JPEG does")
    return f"JPEG, {width} × {height}"


def webp(reader: Reader) -> str:
    """A RIFF whose length is the file's, and whose first chunk says how large the picture is."""
    form(reader, b"WEBP")
    sides: tuple[int, int] | None = None
    pixels = False
    for kind, length in chunks(reader):
        first = reader.exactly(min(length, 10), "chunk")
        reader.skip(length - len(first), "chunk")
        if sides is None:
            sides = _webp_sides(kind, first)
        pixels |= kind in {b"VP8 ", b"VP8L", b"ANMF"}
    if sides is None or not pixels:
        raise FormatError("it has no picture")
    width, height = _sides(*sides)
    return f"WebP, {width} × {height}"


def _webp_sides(kind: bytes, first: bytes) -> tuple[int, int]:
    if kind == b"VP8X" and len(first) == 10:
        return int.from_bytes(first[4:7], "little") + 1, int.from_bytes(first[7:10], "little") + 1
    if kind == b"VP8L" and len(first) >= 5 and first[0] == 0x2F:
        bits = int.from_bytes(first[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(first) == 10 and first[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(first[6:8], "little") & 0x3FFF, int.from_bytes(first[8:10], "little") & 0x3FFF
    raise FormatError("its first chunk is not a picture's")


def gif(reader: Reader) -> str:
    """Its signature and size, and the trailer at the very end."""
    head = reader.exactly(13, "header")
    if head[:6] not in {b"GIF87a", b"GIF89a"}:
        raise FormatError("it doesn't begin as a GIF does")
    width, height = _sides(int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little"))
    tail = b""
    while piece := reader.some(PIECE):
        tail = piece[-1:]
    if tail != b"\x3b":
        raise FormatError("it does not end as a GIF does")
    return f"GIF, {width} × {height}"


def _sides(width: int, height: int) -> tuple[int, int]:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise FormatError(f"it is {width} × {height} pixels; 1 to {MAX_SIDE} a side are good")
    return width, height
