"""Text: UTF-8 without what doesn't belong into one. Pure."""

import codecs

from p2pos.assets.formats.reader import PIECE, FormatError, Reader

_CONTROL = frozenset(map(chr, range(32))) - set("\t\n\r\f")


def text(reader: Reader) -> str:
    """UTF-8, without control characters."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while piece := reader.some(PIECE):
            if not _CONTROL.isdisjoint(decoder.decode(piece)):
                raise FormatError("it is not text: it holds control characters")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        raise FormatError("it is not text in UTF-8") from exc
    return "text"
