"""`p2pos wallet new`, `import`, `watch` and `add-external`: the four ways that a wallet comes to be."""

from pathlib import Path

import click

from p2pos.cli import phrases
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option, get_passphrase, read_secret
from p2pos.cli.warnings import warn_of
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import keystore, mnemonic
from p2pos.ledger.external_signer import ExternalSigner, end_point_of
from p2pos.ledger.people import People
from p2pos.ledger.typed_data import address


@click.command()
@click.argument("name")
@click.option(
    "--mnemonic", "phrase", is_flag=True, help="Of a new recovery phrase, which is shown once, on the terminal."
)
@click.option(
    "--words", type=click.Choice([str(count) for count in mnemonic.WORDS]), help="Words of the phrase. Default: 12."
)
@fd_option
@json_option
@with_settings("passphrase_file")
def new(
    settings: Settings, name: str, phrase: bool, words: str | None, passphrase_fd: int | None, as_json: bool
) -> None:
    """Make a wallet with a new key."""
    people = _free(settings, name)
    if words is not None and not phrase:
        raise UserError("--words goes with --mnemonic")
    if phrase:
        phrases.require_terminal()
    secret = get_passphrase(settings, passphrase_fd, f"the new wallet {name}", confirm=True)
    if phrase:
        made = mnemonic.new_phrase(int(words or 12))
        phrases.show_once(made)
        found = people.wallets.import_phrase(name, made, secret)
    else:
        found = people.wallets.create(name, secret)
    _show(people, name, found, as_json=as_json)


@click.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), required=False)
@click.option("--mnemonic", "phrase", is_flag=True, help="FILE has a recovery phrase; without FILE, ask for it.")
@phrases.options
@fd_option
@json_option
@with_settings("passphrase_file")
def import_(
    settings: Settings,
    name: str,
    file: Path | None,
    phrase: bool,
    path: str | None,
    index: int | None,
    extra: bool,
    extra_fd: int | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Make a wallet of FILE (- for standard input): a private key in hex, a V3 keystore, or a recovery phrase.

    A file with a key or a phrase must have mode 0600.
    """
    people = _free(settings, name)
    if not phrase and (path is not None or index is not None or extra or extra_fd is not None):
        raise UserError("--path, --index and --bip39-passphrase go with --mnemonic")
    if phrase:
        where = phrases.path_of(path, index)
        mnemonic.require_path(where)
        words = phrases.read(file)
        more = phrases.read_extra(extra_fd, asked=extra)
        secret = get_passphrase(settings, passphrase_fd, f"the new wallet {name}", confirm=True)
        found = people.wallets.import_phrase(name, words, secret, extra=more, path=where)
    elif file is None:
        raise UserError("give FILE, or - for standard input, or --mnemonic")
    else:
        text = _key_or_keystore(file)
        if text.startswith("{"):
            secret = get_passphrase(settings, passphrase_fd, f"the keystore for {name}")
            found = people.wallets.import_keystore(name, text, secret)
        else:
            secret = get_passphrase(settings, passphrase_fd, f"the new wallet {name}", confirm=True)
            found = people.wallets.import_key(name, text, secret)
    _show(people, name, found, as_json=as_json)


@click.command()
@click.argument("name")
@click.argument("of", metavar="ADDRESS")
@json_option
@with_settings()
def watch(settings: Settings, name: str, of: str, as_json: bool) -> None:
    """Remember an address whose key is elsewhere: to look at and to give to, not to sign."""
    people = _free(settings, name)
    found = address(of, "ADDRESS")
    warn_of(people, found)
    people.wallets.watch(name, found)
    _show(people, name, found, as_json=as_json, kept="watch-only: its key is not here, so nothing can be signed")


@click.command("add-external")
@click.argument("name")
@click.option("--url", help="Its JSON-RPC end point over HTTP, on this machine: http://127.0.0.1:8550.")
@click.option("--ipc", type=click.Path(path_type=Path), help="Its unix socket.")
@click.option("--address", "of", required=True, help="The account with which it shall sign.")
@json_option
@with_settings()
def add_external(settings: Settings, name: str, url: str | None, ipc: Path | None, of: str, as_json: bool) -> None:
    """Sign with a program or device that speaks Clef's JSON-RPC, such as a hardware wallet behind Clef."""
    people = _free(settings, name)
    found = address(of, "--address")
    end_point = end_point_of(url, ipc)
    signer = ExternalSigner(name, found, end_point, tell=lambda line: click.echo(line, err=True))
    version = signer.check()
    people.wallets.add_external(name, found, end_point)
    _show(people, name, found, as_json=as_json, kept=f"signed for by {end_point}, version {version}")


def _free(settings: Settings, name: str) -> People:
    """The home. Raises UserError where the name can't be a new wallet's, before anything is asked for."""
    people = People.of_home(settings.home)
    people.wallets.require_free(name)
    people.require_free(name, "wallet's name")
    return people


def _key_or_keystore(file: Path) -> str:
    """A keystore may lie about, it is encrypted; a key must not. Raises UserError."""
    if str(file) != "-":
        try:
            with file.open("rb") as opened:
                data = opened.read(keystore.MAX_BYTES + 1)
        except OSError as exc:
            raise UserError(f"{file}: {exc.strerror}") from exc
        if data.lstrip().startswith(b"{") and len(data) <= keystore.MAX_BYTES:
            return data.decode(errors="replace").strip()
    return read_secret(file, keystore.MAX_BYTES, "the key")


def _show(people: People, name: str, address_: str, *, as_json: bool, kept: str = "") -> None:
    path = people.wallets.path(name)
    if as_json:
        print_json({"name": name, "address": address_, "path": str(path)})
    else:
        click.echo(f"{name} is {address_}\nkept in {path}; {kept or 'without its passphrase nobody can open it'}")
