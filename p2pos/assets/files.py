"""An item's files: what type one is, and whether its bytes are what the descriptor says of them. Pure.

A check reads a file forward once, as it comes from disk or block by block from the store, in bounded memory, and stops
where there is more of it than there should be. Its hash is not looked at here: its blocks were, one by one. A media
type that nobody here knows is no fault; that nothing but size and hash was looked at is said.
"""

from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import NamedTuple

from p2pos.assets.formats import images, models, sound
from p2pos.assets.formats.reader import FormatError, Reader
from p2pos.assets.formats.text import text

CHECKS: dict[str, Callable[[Reader], str]] = {
    "model/gltf-binary": models.glb,
    "model/gltf+json": models.gltf,
    "image/png": images.png,
    "image/jpeg": images.jpeg,
    "image/webp": images.webp,
    "image/gif": images.gif,
    "audio/wav": sound.wav,
    "audio/ogg": sound.ogg,
    "audio/mpeg": sound.mp3,
    "audio/flac": sound.flac,
    "application/json": models.document,
    "text/plain": text,
    "text/markdown": text,
    "text/csv": text,
}
"""By media type. Those of https://www.iana.org/assignments/media-types, WAV aside, which has none there but this."""
UNKNOWN = "application/octet-stream"
_BY_ENDING = {
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".json": "application/json",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".vrm": "model/gltf-binary",
}


class Look(NamedTuple):
    """What was found in a file."""

    checked: bool
    """Whether its inside was looked at; else size and hash are all that is known."""
    text: str
    """In a few words what it is."""


def media_type(name: str) -> str:
    """The media type that a file's name claims; `UNKNOWN` where it claims none. `check` says whether it is that."""
    return _BY_ENDING.get(PurePath(name).suffix.lower(), UNKNOWN)


def check(pieces: Iterable[bytes], size: int, media_type: str) -> Look:
    """Read a file and say what it is.

    Args:
        pieces: its bytes, in pieces of any length; no more are taken than it should have, and one piece.
        size: bytes that it should have.
        media_type: what it should be.

    Raises:
        FormatError: it has more or fewer bytes, or is something else. Its text goes on from the file's name.

    """
    reader = Reader(pieces, size)
    look = CHECKS.get(media_type)
    if look is None:
        reader.drain()
        return Look(checked=False, text=f"{media_type}: its inside is not looked at")
    try:
        found = look(reader)
    except FormatError as exc:
        raise FormatError(f"is not {media_type}: {exc.message}") from exc
    reader.end("content")
    return Look(checked=True, text=found)
