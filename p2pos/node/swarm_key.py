"""The key of a private swarm, in a file of libp2p's format (`/key/swarm/psk/1.0.0/`); `private` puts it to use."""

import os
import secrets
import stat
from pathlib import Path

from p2pos.errors import UserError

HEADER = "/key/swarm/psk/1.0.0/"
KEY_BYTES = 32
MAX_FILE = 1024
"""Bytes of a key file, which has 96."""


def make(path: Path) -> None:
    """Write a new key to a file that only its owner can read. Raises UserError where it exists or can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{HEADER}\n/base16/\n{secrets.token_hex(KEY_BYTES)}\n")
    except FileExistsError as exc:
        raise UserError(f"{path} exists", hint="choose another name; a swarm's key can't be made again") from exc
    except OSError as exc:
        raise UserError(f"{path} can't be written: {exc.strerror}") from exc


def read(path: Path) -> bytes:
    """The 32 bytes of a key file. Raises UserError where others can read it, or it is none."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"the swarm key {path} can be used by others (mode {mode:04o})", hint=f"chmod 600 {path}")
        with path.open("rb") as file:
            lines = file.read(MAX_FILE).decode("ascii", "replace").split()
    except OSError as exc:
        hint = "make one with `p2pos swarm key new FILE`"
        raise UserError(f"the swarm key {path} can't be read: {exc.strerror}", hint=hint) from exc
    try:
        if lines[:2] == [HEADER, "/base16/"] and len(lines) == 3 and len(key := bytes.fromhex(lines[2])) == KEY_BYTES:
            return key
    except ValueError:
        pass  # not hexadecimal: no key, as said below
    hint = f"it must hold {HEADER}, /base16/ and {2 * KEY_BYTES} hexadecimal digits, a line each"
    raise UserError(f"{path} holds no swarm key", hint=hint)
