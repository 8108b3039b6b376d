"""RIFF, in which WAV and WebP lie: a form whose length is the file's, full of chunks. Pure."""

from collections.abc import Iterator

from p2pos.assets.formats.reader import FormatError, Reader

MAX_CHUNKS = 1 << 16
"""Of one file: an animated WebP has one for each picture."""


def form(reader: Reader, kind: bytes) -> None:
    """Read the head of a form of this kind. Raises FormatError where it is another, or of another length."""
    head = reader.exactly(12, "header")
    if head[:4] != b"RIFF" or head[8:] != kind:
        raise FormatError(f"it doesn't begin as a RIFF of {kind.decode().strip()} does")
    length = int.from_bytes(head[4:8], "little") + 8
    if length not in {reader.size, reader.size - 1}:  # some writers leave the last pad byte out of it
        raise FormatError(f"its header says {length} bytes, and it has {reader.size}")


def chunks(reader: Reader) -> Iterator[tuple[bytes, int]]:
    """Each chunk's name and bytes; whoever asks reads just these before the next. Raises FormatError."""
    count = 0
    while reader.left:
        count += 1
        if count > MAX_CHUNKS:
            raise FormatError(f"it has more than {MAX_CHUNKS} chunks")
        head = reader.exactly(8, "chunk's header")
        length = int.from_bytes(head[4:], "little")
        if length > reader.left:
            raise FormatError(f"it ends within its chunk {count}")
        end = reader.position + length
        yield head[:4], length
        if reader.position != end:
            raise FormatError(f"its chunk {count} is not whole")
        if length % 2 and reader.left:
            reader.skip(1, "padding")
