"""Names that people type, and what they stand for: wallets, contacts, addresses, classes of items.

`Ledger` is what the asset commands share: the wallets, the index and the descriptors of one home, and the chain once
a command asks for it. Without a chain everything works from what the home already knows.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from p2pos.assets.bundle import MAX_BYTES, Bundle, Carried
from p2pos.assets.descriptor import Descriptor
from p2pos.config import Settings
from p2pos.content import cid
from p2pos.content.store import Store
from p2pos.errors import P2posError, UserError
from p2pos.ledger import naming, private_file
from p2pos.ledger.cautions import Known
from p2pos.ledger.chain import Chain
from p2pos.ledger.index import Index
from p2pos.ledger.index_open import open_index
from p2pos.ledger.indexer import Indexer
from p2pos.ledger.nonces import NonceBook
from p2pos.ledger.people import People
from p2pos.ledger.typed_data import MAX_UINT256, Domain, address
from p2pos.ledger.versions import Version, versions
from p2pos.types import Address

MAX_DIGITS = 78
"""Of a class's id in decimal: 2²⁵⁶ has as many."""
MIN_PREFIX = 4
"""Hex digits. Shorter ones would change their meaning with every new class."""
_SAID = frozenset(
    (
        *("and", "or", "both", "all", "none", "nothing", "neither", "gives", "give", "takes", "take", "lets", "let"),
        *("hold", "holds", "until", "world", "up", "to", "in", "place", "of", "anyone", "may", "for", "good"),
    )
)
"""Words of which sentences before signing are made. A class's name is its issuer's, and may be made to deceive."""
SHORT = 12
"""Hex digits of an id that are shown to people; --json has all."""


class Ledger:
    """One home's view of one asset contract."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.book = People.of_home(settings.home)
        self.wallets = self.book.wallets
        self.contacts = self.book.contacts
        self.store = Store(settings.content)
        self.nonces = NonceBook(settings.home / "nonces")

    @functools.cached_property
    def chain(self) -> Chain:
        """The chain with the contract. Raises as `Chain.connect`, and UserError where no contract is set."""
        chain = Chain.connect(self.settings.rpc_url, chain_id=self.settings.chain_id, contract=self.settings.contract)
        chain.contract  # noqa: B018 - raises where none is set
        return chain

    @property
    def domain(self) -> Domain:
        """What is signed for, from the settings alone. Raises UserError where they lack it."""
        if not self.settings.chain_id:
            raise UserError("no chain id is set", hint="give --chain-id, or --home of a devnet")
        if not self.settings.contract:
            raise UserError("no asset contract is set", hint="give --contract, or --home of a devnet")
        return Domain(self.settings.chain_id, address(self.settings.contract, "contract"))

    @functools.cached_property
    def index(self) -> Index:
        """The index as it is, in a file or a database."""
        domain = self.domain if self.settings.chain_id else self.chain.domain
        return open_index(self.settings.home, domain, self.settings.index_url.get_secret_value())

    @functools.cached_property
    def indexer(self) -> Indexer:
        """The index in step with the chain."""
        return Indexer(self.index, self.chain)

    @functools.cached_property
    def carried(self) -> Bundle:
        """What `p2pos asset bundle import` brought. Raises UserError where the file is damaged."""
        path, domain = self._carried_path()
        try:
            return Bundle.parse(private_file.read(path, MAX_BYTES, "carried names"), str(path))
        except FileNotFoundError:
            return Bundle(domain, {})

    def carry(self, bundle: Bundle) -> None:
        """Remember the classes of a bundle. Raises UserError where it is another contract's."""
        path, _ = self._carried_path()
        private_file.replace(path, self.carried.with_more(bundle).dumps())
        del self.carried

    def _carried_path(self) -> tuple[Path, Domain]:
        domain = self.domain if self.settings.chain_id else self.chain.domain
        return self.settings.home / "carried" / f"{domain.chain_id}-{domain.contract}.json", domain

    def versions(self, id_: int) -> list[Version]:
        """Every descriptor that a class had, oldest first, from the chain. Raises as `versions.versions`."""
        return versions(id_, self.chain.class_events(id_))

    def version(self, id_: int, number: int) -> Version:
        """One of them. Raises UserError where the class has no such version."""
        every = self.versions(id_)
        if not 0 < number <= len(every):
            raise UserError(f"{self.item(id_)} has {len(every)} versions, so none numbered {number}")
        return every[number - 1]

    # ---- people

    def who(self, text: str) -> Address:
        """An address, a wallet's or a contact's. Raises UserError for an unknown name."""
        return self.book.who(text)

    def name(self, of: str) -> str:
        """What to call an address: its name here, or the address whole."""
        return self.people().get(Address(of), of)

    def people(self) -> dict[Address, str]:
        """Names by address, of the wallets and contacts that can be read."""
        return self.book.names()

    def owners(self) -> dict[Address, str]:
        """Names by address, of the wallets alone."""
        return {one.address: one.name for one in self.wallets.look()[0]}

    def known(self, items: Mapping[int, str]) -> Known:
        """What to compare with before something is signed; `items` as `items` gives them."""
        domain = self.domain if self.settings.chain_id and self.settings.contract else None
        soulbound = {id_ for id_, one in self._carried().items() if one.soulbound}
        soulbound |= {one.id for one in self.index.classes() if one.soulbound}
        return Known(self.people(), self.book.given(), items, frozenset(soulbound), domain)

    # ---- items

    def describe(self, digest: bytes) -> Descriptor | None:
        """A class's descriptor where this home has it, whole and sound."""
        try:
            data = self.store.get(cid.from_digest(digest))
            return Descriptor.parse(data) if data is not None else None
        except P2posError:
            return None

    def items(self) -> dict[int, str]:
        """Names of classes by id, from the index as it is, the descriptors that are here, and what was carried here."""
        found = {id_: one.descriptor.name for id_, one in self._carried().items()}
        for one in self.index.classes():
            descriptor = self.describe(one.digest)
            if descriptor is not None:
                found[one.id] = descriptor.name
        return found

    def spoken_items(self, items: Mapping[int, str]) -> dict[int, str]:
        """`items`, for sentences before signing.

        The id stands beside a name that the chain did not vouch for here, or that looks like another class's. A name
        that could pass for part of a sentence stands in quotes, too.
        """
        vouched = {one.id for one in self.index.classes()}
        looks = Counter(look for name in items.values() for look in naming.skeletons(name))
        spoken = {}
        for id_, name in items.items():
            plain = all(char.isalpha() or char in " -'’·" for char in name)
            odd = not plain or not _SAID.isdisjoint(name.casefold().split())
            alike = any(looks[look] > 1 for look in naming.skeletons(name))
            called = f"“{name}”" if odd else name
            spoken[id_] = f"{called} ({short(id_)})" if odd or alike or id_ not in vouched else name
        return spoken

    def _carried(self) -> Mapping[int, Carried]:
        return self.carried.classes if self.settings.contract else {}

    def item(self, id_: int) -> str:
        """What to call a class."""
        return self.items().get(id_) or f"item {short(id_)}"

    def class_id(self, text: str) -> int:
        """The class that a name, an id in hex or decimal, or the unique beginning of a hex id stands for.

        Raises UserError where none or several fit.
        """
        if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and int(text) <= MAX_UINT256:
            return int(text)
        if text.lower().startswith("0x"):
            return self._by_prefix(text, {one.id for one in self.index.classes()} | set(self._carried()))
        fitting = [id_ for id_, name in self.items().items() if name == text]
        if not fitting:
            names = ", ".join(sorted(set(self.items().values()))[:10]) or "none yet"
            raise UserError(f"there is no class of items called “{text}”", hint=f"known here: {names}")
        if len(fitting) > 1:
            ids = ", ".join(short(id_) for id_ in fitting[:5])
            raise UserError(f"{len(fitting)} classes are called “{text}”", hint=f"give the id: {ids}")
        return fitting[0]

    @staticmethod
    def _by_prefix(text: str, known: set[int]) -> int:
        digits = text[2:].lower()
        if len(digits) > 64 or not digits or set(digits) - set("0123456789abcdef"):
            raise UserError(f"“{text}” is not a class's id", hint="write 0x and up to 64 hex digits")
        if len(digits) == 64:
            return int(digits, 16)
        if len(digits) < MIN_PREFIX:
            raise UserError(f"“{text}” is too short for a class's id", hint=f"give at least {MIN_PREFIX} hex digits")
        fitting = [id_ for id_ in known if f"{id_:064x}".startswith(digits)]
        if not fitting:
            raise UserError(
                f"no class known here has an id that begins with {text}", hint="give all 64 digits, or see asset list"
            )
        if len(fitting) > 1:
            raise UserError(f"{len(fitting)} classes have an id that begins with {text}", hint="give more digits of it")
        return fitting[0]


def short(id_: int) -> str:
    """The beginning of a class's id, which `class_id` takes while it is unique."""
    return f"0x{id_:064x}"[: 2 + SHORT]
