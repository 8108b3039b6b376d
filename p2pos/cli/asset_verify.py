"""`p2pos asset verify`: an item proven from the chain to its last byte, link by link."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import click

from p2pos.assets import library
from p2pos.assets.descriptor import MAX_BYTES, Descriptor
from p2pos.assets.plain_text import warnings
from p2pos.cli.asset_content import gather, most_option, version_option
from p2pos.cli.names import Ledger, short
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.warnings import printable
from p2pos.config import Settings
from p2pos.content import cid
from p2pos.content.store import DamagedError
from p2pos.errors import ChainError, P2posError, PeerError, UnavailableError

State: TypeAlias = Literal["proven", "broken", "unknown", "beware"]
"""`unknown`: it couldn't be looked at. `beware`: it is as it says, and a person should know something of it."""

MARKS: dict[State, str] = {"proven": "✓", "broken": "✗", "unknown": "?", "beware": "!"}


class _Stop(Exception):  # noqa: N818 - as trio.Cancelled: a fact, and the reason is in the links
    """What comes next hangs on a link that doesn't hold."""


@dataclass
class Proof:
    """The links of one item, in the order in which each hangs on the one before."""

    links: list[tuple[str, State, str]] = field(default_factory=list)
    """Of each its name, whether it holds, and what was found."""

    def add(self, name: str, said: str, state: State = "proven") -> None:
        """Note what was found of a link."""
        self.links.append((name, state, said))

    @contextmanager
    def link(self, name: str, *, needed: bool = True) -> Iterator[None]:
        """Look at a link: an error within is what is wrong with it. Where it is needed for the rest, raises _Stop."""
        try:
            yield
        except (UnavailableError, PeerError) as exc:
            damaged = isinstance(exc, DamagedError)
            self.add(name, str(exc), "broken" if damaged else "unknown")
        except P2posError as exc:
            self.add(name, str(exc), "broken")
        else:
            return
        if needed:
            raise _Stop

    @property
    def exit_code(self) -> int:
        """1 where a link is broken, 3 where one couldn't be looked at, else 0."""
        states = {state for _, state, _ in self.links}
        if "broken" in states:
            return ChainError.exit_code
        return UnavailableError.exit_code if "unknown" in states else 0


@click.command()
@click.argument("item", metavar="CLASS")
@click.option("--wallet", "holder", help="Also prove that this wallet, or address, holds one.")
@version_option
@most_option
@json_option
@with_settings("rpc_url", "contract", "bootstrap", "swarm_key_file")
def verify(settings: Settings, item: str, holder: str | None, version: int | None, most_mib: int, as_json: bool) -> int:
    """Prove an item from the chain to its last byte, and say which link is broken where one is.

    What isn't here is fetched from peers, where --bootstrap or the home leads to some. Exits 1 where a link is broken,
    3 where one couldn't be looked at.
    """
    ledger = Ledger(settings)
    proof = Proof()
    try:
        _prove(ledger, proof, item, version, holder, most=most_mib << 20)
    except _Stop:
        proof.add("the rest", "was not looked at, because it hangs on this", "unknown")
    if as_json:
        print_json(
            {
                "proven": proof.exit_code == 0,
                "links": [{"link": name, "state": state, "found": said} for name, state, said in proof.links],
            }
        )
    else:
        for name, state, said in proof.links:
            click.echo(printable(f"{MARKS[state]} {name:<16} {said}"))  # some of the words may be a stranger's
    return proof.exit_code


def _prove(ledger: Ledger, proof: Proof, item: str, version: int | None, holder: str | None, *, most: int) -> None:
    """Look at every link. Raises _Stop where the rest hangs on one that doesn't hold."""
    with proof.link("contract"):
        chain = ledger.chain
        head = chain.head()
        said = f"{chain.contract} on chain {chain.chain_id} has this version's code; seen at block {head.number}"
        proof.add("contract", said)
    with proof.link("class"):
        ledger.indexer.sync()
        id_ = ledger.class_id(item)
        found = chain.item_class(id_)
        if found is None:
            raise ChainError(f"there is no class 0x{id_:064x} on this contract")
        proof.add("class", f"0x{id_:064x}, issued by {ledger.name(found.issuer)}")
    with proof.link("version"):
        every = ledger.versions(id_)
        if not every or (every[-1].number, every[-1].digest) != (found.version, found.digest):
            raise ChainError("the updates that the chain tells don't lead to the digest that the contract has")
        chosen = every[-1] if version is None else ledger.version(id_, version)
        proof.add("version", f"{chosen.number} of {len(every)}, since block {chosen.block}")
    name = cid.from_digest(chosen.digest)
    proof.add("digest", f"{chosen.digest.hex()} is the CID {name}")
    _fetch_missing(ledger, proof, chosen.digest, most)
    with proof.link("descriptor"):
        data = ledger.store.get(name)
        if data is None:
            raise UnavailableError(f"{name} is not here, and no peer gave it")
        if len(data) > MAX_BYTES:
            raise ChainError(f"{name} has {len(data)} bytes, more than a descriptor's {MAX_BYTES}")
        proof.add("descriptor", f"{len(data)} bytes that have this digest")
    with proof.link("canonical"):
        descriptor = Descriptor.parse(data, chosen.digest)
        proof.add("canonical", f"“{descriptor.name}”, in the one form of RFC 8785")
    _warn(ledger, proof, descriptor, id_)
    left = most
    for file in descriptor.files:
        with proof.link(f"file {file.role}", needed=False):
            if file.size > left:
                raise UnavailableError(
                    f"with its {file.size:,} bytes the files have more than {most:,}", hint="give --most-mib"
                )
            left -= file.size
            look = library.look(file, ledger.store.get)
            said = f"{file.size:,} bytes of {file.cid}: {look.text}"
            proof.add(f"file {file.role}", said, "proven" if look.checked else "beware")
    if holder is not None:
        with proof.link("holder", needed=False):
            who = ledger.who(holder)
            held, locked = chain.balance(who, id_), chain.locked(who, id_)
            if not held:
                raise ChainError(f"{ledger.name(who)} holds none of {short(id_)}")
            proof.add("holder", f"{ledger.name(who)} holds {held}" + (f", {locked} of them locked" if locked else ""))


def _fetch_missing(ledger: Ledger, proof: Proof, digest: bytes, most: int) -> None:
    """Ask peers for what isn't here, where there is a way to them; what still lacks shows at its own link."""
    if not ledger.settings.bootstrap or _is_whole(ledger, digest, most):
        return
    with proof.link("peers", needed=False):
        done = gather(ledger.settings, ledger.store, digest, most=most)
        came = sum(done.nbytes.values())
        lacking = f"; nobody has these files whole: {', '.join(done.lacking)}" if done.lacking else ""
        proof.add("peers", f"{came:,} bytes came from {len(done.nbytes)} peers{lacking}")


def _is_whole(ledger: Ledger, digest: bytes, most: int) -> bool:
    """Whether all of an item is here and sound, or has more bytes than are to be read."""
    data = ledger.store.sound(cid.from_digest(digest))
    if data is None:
        return False
    try:
        descriptor = Descriptor.parse(data, digest)
        for file in descriptor.files if descriptor.total_bytes <= most else ():
            library.look(file, ledger.store.get)
    except UnavailableError:
        return False
    except P2posError:
        return True  # nothing that peers could mend
    return True


def _warn(ledger: Ledger, proof: Proof, descriptor: Descriptor, id_: int) -> None:
    others = {known: f"class {short(other)}" for other, known in ledger.items().items() if other != id_ and known}
    for warning in warnings(descriptor.name, others):
        proof.add("name", warning, "beware")
