"""A recovery phrase between a person and this program: read without echo, shown once and on the terminal alone."""

import getpass
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from p2pos.cli.passphrases import ask, read_secret
from p2pos.errors import UserError
from p2pos.ledger import mnemonic, passphrase

TRIES = 3
"""For each word that is asked back."""
ASKED_BACK = 3
"""Words of a new phrase that its owner must type again, so that it is seen to be written down."""

_ALTERNATE_SCREEN, _NORMAL_SCREEN = b"\x1b[?1049h\x1b[2J\x1b[H", b"\x1b[2J\x1b[?1049l"
"""xterm's second screen, which has no scrollback: what was on it is gone with it."""


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that take a phrase: `path`, `index`, `extra`, `extra_fd`."""
    for option in (
        click.option(
            "--bip39-passphrase-fd", "extra_fd", type=click.IntRange(min=0), help="A descriptor with that passphrase."
        ),
        click.option(
            "--bip39-passphrase", "extra", is_flag=True, help="The phrase has a BIP-39 passphrase besides; ask for it."
        ),
        click.option("--index", type=click.IntRange(0, (1 << 31) - 1), help="Which account of the phrase. Default: 0."),
        click.option("--path", help=f"The account's derivation path. Default: {mnemonic.DEFAULT_PATH}."),
    ):
        command = option(command)
    return command


def path_of(path: str | None, index: int | None) -> str:
    """The derivation path that the options mean. Raises UserError where both are given."""
    if path is not None and index is not None:
        raise UserError("give --path or --index, not both", hint="a path ends with the account's number")
    return mnemonic.path_of(index or 0) if path is None else path


def read(file: Path | None) -> str:
    """A phrase, checked: of a file of mode 0600, of standard input for -, else asked for. Raises UserError."""
    if file is not None:
        return mnemonic.checked(read_secret(file, mnemonic.MAX_BYTES, "the phrase"))
    return mnemonic.checked(
        ask("Recovery phrase", "no recovery phrase", hint="run it on a terminal, or give a file of mode 0600 or -")
    )


def read_extra(descriptor: int | None, *, asked: bool) -> str:
    """BIP-39's passphrase, "" for none. Raises UserError."""
    if descriptor is not None:
        return passphrase.from_descriptor(descriptor)
    if not asked:
        return ""
    return ask(
        "BIP-39 passphrase",
        "no BIP-39 passphrase",
        hint="run it on a terminal, or give --bip39-passphrase-fd",
        confirm=True,
    )


def require_terminal() -> None:
    """Raise UserError where no person could see a phrase."""
    os.close(_open_terminal())


def show_once(phrase: str) -> None:
    """Show a new phrase and ask some of its words back.

    It is written to the terminal itself: a redirected standard output or error never gets it. Raises UserError where
    there is no terminal, or a word is wrong each time; then nothing may be kept under the phrase.
    """
    words = phrase.split()
    terminal = _open_terminal()
    try:
        lines = [f"{place:>4}. {word}" for place, word in enumerate(words, 1)]
        text = (
            f"Write these {len(words)} words down, in this order. They are shown this once.\r\n"
            "Who has them has all that the wallet holds. Without them a lost file is lost for good.\r\n\r\n"
            + "\r\n".join(lines)
            + "\r\n\r\nPress Enter when you have them: "
        )
        os.write(terminal, _ALTERNATE_SCREEN + text.encode())
        try:
            while not os.read(terminal, 1024).endswith((b"\n", b"\r", b"")):
                pass
        finally:
            os.write(terminal, _NORMAL_SCREEN)
    finally:
        os.close(terminal)
    for place in sorted(secrets.SystemRandom().sample(range(len(words)), ASKED_BACK)):
        _ask_back(place, words[place])


def _ask_back(place: int, word: str) -> None:
    for _ in range(TRIES):
        if getpass.getpass(f"Word {place + 1}: ").strip().lower() == word:
            return
        click.echo("that is another word", err=True)
    raise UserError(f"word {place + 1} was wrong {TRIES} times: no wallet was made", hint="begin again")


def _open_terminal() -> int:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as exc:
        raise UserError(
            "a new phrase is shown on a terminal alone, and there is none", hint="run it on a terminal"
        ) from exc
