"""Sound: WAV, Ogg, MP3, FLAC. Pure. Their frames are followed and not decoded."""

import zlib

from p2pos.assets.formats.reader import FormatError, Reader
from p2pos.assets.formats.riff import chunks, form

MAX_PAGES = 1 << 20
"""Of an Ogg: twelve days of sound at the usual page a second."""
MAX_FRAMES = 1 << 22
"""Of an MP3: thirty hours of sound."""
MAX_METADATA = 1 << 10
"""Blocks of a FLAC; there are some five."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OGG = {b"OpusHead": "Opus", b"\x01vorbis": "Vorbis", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}
_KBITS = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # MPEG 1, layer I
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),  # MPEG 1, layer II
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, layer III
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),  # MPEG 2 and 2.5, layer I
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5, layers II and III
)
_RATES = (44100, 48000, 32000)


def wav(reader: Reader) -> str:
    """A RIFF whose length is the file's, with a format before the samples."""
    form(reader, b"WAVE")
    shape = None
    samples = False
    for kind, length in chunks(reader):
        if kind == b"fmt ":
            shape = _wav_shape(reader.exactly(length, "format"))
        elif kind == b"data":
            if shape is None:
                raise FormatError("its samples come before their format")
            samples = True
            reader.skip(length, "samples")
        else:
            reader.skip(length, "chunk")
    if shape is None or not samples:
        raise FormatError("it has no samples")
    return f"WAV, {shape}"


def _wav_shape(data: bytes) -> str:
    if len(data) < 16:
        raise FormatError("its format is too short")
    codec, channels = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    rate, align = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:14], "little")
    bits = int.from_bytes(data[14:16], "little")
    if not channels or not 0 < rate <= 1 << 20 or (codec in {1, 3} and align != channels * -(-bits // 8)):
        raise FormatError("its format says what no sound is")
    return f"{channels} channels, {rate} Hz"


def ogg(reader: Reader) -> str:
    """Every page: its mark, its checksum, and its place after the last of its stream; sound of a known kind in one."""
    expected: dict[int, int] = {}
    found = ""
    for number in range(MAX_PAGES):
        if not reader.left:
            break
        head = reader.exactly(27, f"page {number + 1}")
        if head[:5] != b"OggS\x00":
            raise FormatError(f"its page {number + 1} is none, at byte {reader.position - 27}")
        flags, serial, sequence = head[5], int.from_bytes(head[14:18], "little"), int.from_bytes(head[18:22], "little")
        table = reader.exactly(head[26], f"page {number + 1}")
        body = reader.exactly(sum(table), f"page {number + 1}")
        if _ogg_crc(head[:22] + bytes(4) + head[26:] + table + body) != int.from_bytes(head[22:26], "little"):
            raise FormatError(f"its page {number + 1} does not have the checksum that it says")
        if bool(flags & 2) == (serial in expected) or sequence != expected.get(serial, sequence):
            raise FormatError(f"its page {number + 1} does not follow the one before")
        if flags & 2:
            found = found or next((name for magic, name in _OGG.items() if body.startswith(magic)), "")
        expected[serial] = sequence + 1 & 0xFFFFFFFF
        if len(expected) > 64:
            raise FormatError("it has more than 64 streams")
    reader.end("last page")
    if not found:
        raise FormatError("it holds no sound of a kind that is known here")
    return f"Ogg {found}"


def _ogg_crc(page: bytes) -> int:
    """Ogg's CRC is zlib's, with the bits of each byte and of the result the other way round, begun and ended with 0."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(value.to_bytes(4, "little").translate(_REVERSED), "big")


def mp3(reader: Reader) -> str:
    """ID3 tags, and frame after frame up to the end; the last may be cut off, as encoders leave it."""
    head = reader.exactly(4, "header")
    while head[:3] == b"ID3":
        rest = reader.exactly(6, "ID3 tag")
        if max(rest[2:]) > 127:
            raise FormatError("its ID3 tag has no length")
        size = rest[2] << 21 | rest[3] << 14 | rest[4] << 7 | rest[5]
        reader.skip(size + (10 if rest[1] & 0x10 else 0), "ID3 tag")
        head = reader.exactly(4, "first frame")
    frames = rate = 0
    while True:
        length, rate = _mp3_frame(head, reader.position - 4)
        frames += 1
        if frames > MAX_FRAMES:
            raise FormatError(f"it has more than {MAX_FRAMES} frames")
        if length - 4 >= reader.left:
            reader.drain()
            break
        reader.skip(length - 4, "frame")
        if reader.left < 4:
            raise FormatError(f"{reader.left} bytes follow its last frame")
        head = reader.exactly(4, "frame")
        if (head[:3] == b"TAG" and reader.left == 124) or head == b"APET":
            reader.drain()
            break
    if frames < 2:
        raise FormatError("it has no two frames in sequence")
    return f"MP3, {rate} Hz, {frames} frames"


def _mp3_frame(head: bytes, at: int) -> tuple[int, int]:
    """Bytes and sampling rate of the frame with this header. Raises FormatError."""
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rates = head[2] >> 4, head[2] >> 2 & 3
    if head[0] != 0xFF or head[1] < 0xE0 or version == 1 or layer == 4 or bits in {0, 15} or rates == 3:
        raise FormatError(f"at byte {at} is no frame that can be followed")
    first = version == 3
    kbits = _KBITS[layer - 1 if first else (3 if layer == 1 else 4)][bits - 1]
    rate = _RATES[rates] >> (0 if first else 1 if version == 2 else 2)
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12_000 * kbits // rate + padding) * 4, rate
    return (72_000 if layer == 3 and not first else 144_000) * kbits // rate + padding, rate


def flac(reader: Reader) -> str:
    """Its mark, its metadata blocks one after the other, the first of which says what the sound is, and a frame."""
    if reader.exactly(4, "signature") != b"fLaC":
        raise FormatError("it doesn't begin as a FLAC does")
    rate = channels = 0
    number = 0
    last = False
    while not last:
        number += 1
        head = reader.exactly(4, "metadata")
        last, kind, length = bool(head[0] & 0x80), head[0] & 0x7F, int.from_bytes(head[1:], "big")
        if number > MAX_METADATA:
            raise FormatError(f"it has more than {MAX_METADATA} blocks of metadata")
        if (number == 1) != (kind == 0) or kind == 127 or (kind == 0 and length != 34):
            raise FormatError("its first metadata does not say what the sound is")
        if kind == 0:
            data = reader.exactly(length, "metadata")
            rate = int.from_bytes(data[10:13], "big") >> 4
            channels = (data[12] >> 1 & 7) + 1
            if not rate or int.from_bytes(data[:2], "big") < 16:
                raise FormatError("its first metadata says what no sound is")
        else:
            reader.skip(length, "metadata")
    if reader.exactly(2, "first frame") not in {b"\xff\xf8", b"\xff\xf9"}:
        raise FormatError("its metadata is followed by no frame")
    reader.drain()
    return f"FLAC, {channels} channels, {rate} Hz"
