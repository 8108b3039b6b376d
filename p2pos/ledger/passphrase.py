"""A passphrase from a file or a descriptor; never from an argument, which other users of the machine can list."""

import os
from pathlib import Path

from p2pos.errors import UserError
from p2pos.ledger import private_file

MAX_BYTES = 4096
"""Of a passphrase. Longer than anyone types, short enough to read in one piece."""

MAX_FILE = 64 << 10
"""Bytes of a passphrase's file, whose further lines are not read."""


def from_file(path: Path) -> str:
    """The first line of a file of mode 0600. Raises UserError where it can't be read, or others can read it."""
    try:
        data = private_file.read(path, MAX_FILE, "passphrase file")
    except FileNotFoundError as exc:
        raise UserError(f"passphrase file {path}: {exc.strerror}") from exc
    return _first_line(data, f"passphrase file {path}")


def from_descriptor(number: int) -> str:
    """The first line that an open file descriptor gives, read to its end. Raises UserError."""
    data = b""
    try:
        while len(data) <= MAX_BYTES and (chunk := os.read(number, MAX_BYTES)):
            data += chunk
    except OSError as exc:
        raise UserError(f"file descriptor {number}: {exc.strerror}") from exc
    return _first_line(data, f"file descriptor {number}")


def _first_line(data: bytes, what: str) -> str:
    line = data.partition(b"\n")[0].removesuffix(b"\r")
    if not line:
        raise UserError(f"{what} holds no passphrase")
    if len(line) > MAX_BYTES:
        raise UserError(f"{what}: the passphrase is longer than {MAX_BYTES} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError as exc:
        raise UserError(f"{what}: the passphrase is not UTF-8") from exc
