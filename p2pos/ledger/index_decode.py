"""JSON-RPC logs made into what the index folds: small tuples, with every address and class numbered. Pure.

`events` makes a dataclass with checksummed addresses of every log, for whoever deals with some of them. The index reads
millions: a log costs it about 4 µs, because a topic that was seen before is one look into a dictionary. The numbers of
addresses and classes are local to one `Batch`; the index maps them to its own, once for each and not per event.

What comes from an end point is checked here: form, order, contract. What the contract can't have said (a balance
below zero) shows in the fold.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eth_hash.auto import keccak

from p2pos.errors import ChainError

BALANCES, SUPPLIES, CLASSES, DESCRIPTORS, MINTERS, LOCKS, ALLOWANCES, NONCES, APPROVALS = range(9)
"""The tables of state, in the order of `index_state.TABLES`."""

MOVE, NONCE, CLASS, MINTER, PROPOSED, WITHDRAWN, UPDATED, CANCELLED, FAILED, CALL_FAILED = range(10)
LOCKED, UNLOCKED, ALLOWED, SPENT, SWAPPED, APPROVED = range(10, 16)
"""What an event is: its tuple's first member."""

ZERO = 0
"""The local number of the zero address: whom items come from when they are made, and go to when they are burned."""
MAX_INT = (1 << 63) - 1
"""Block numbers, log indices and seconds must fit a database's integer."""
MAX_REASON = 256
"""Bytes kept of why an intent failed; the contract passes on no more."""
MAX_ITEMS = 1024
"""In one TransferBatch. The contract allows 32 in an intent; a block's gas allows an account's own batch some 1,000."""

_ADDRESS_PAD = "0x" + "0" * 24


class BlockSeen(NamedTuple):
    """A block with events, as its logs state it."""

    number: int
    hash: bytes
    timestamp: int | None
    """Seconds since the epoch; None where the end point's logs don't have it."""


class Batch:
    """Logs of one contract, in order, numbered. Feed it with `add`."""

    def __init__(self, contract: str) -> None:
        self._contract = contract.lower()
        self.names: list[bytes] = [bytes(20)]
        """Address (20 bytes) or class id (32) by its local number."""
        self.blocks: list[BlockSeen] = []
        self.transactions: list[tuple[int, bytes]] = []
        """(index into blocks, hash)."""
        self.events: list[tuple[Any, ...]] = []
        """(kind, index into blocks, index into transactions, log, what the kind has)."""
        self.touched: list[set[tuple[Any, ...]]] = [set() for _ in range(9)]
        """Keys of each table of state that these events may change or ask for, in local numbers."""
        self.logs = 0
        self._addresses: dict[str, int] = {_ADDRESS_PAD + "0" * 40: ZERO}
        self._items: dict[str, int] = {}
        self._number = self._log = -1
        self._block = self._transaction = -1
        """Indices into blocks and transactions of what is being read."""
        self._block_text = self._hash_text = self._transaction_text = ""
        self._swap: tuple[Any, ...] | None = None
        self._spent: tuple[Any, ...] | None = None
        self._plain = True
        """Whether neither of the two is under way."""

    def add(self, logs: Sequence[Mapping[str, Any]], first: int, last: int) -> None:
        """Take in the logs of blocks `first … last`.

        Raises ChainError where one is not of the form its topic states, not the contract's, out of order, or out of
        these blocks. What was taken until then makes no sense any more: drop the batch.
        """
        addresses, items, balances, events = self._addresses, self._items, self.touched[BALANCES], self.events
        for log in logs:
            try:
                topics, index = log["topics"], int(log["logIndex"], 16)
                if log["blockNumber"] != self._block_text or log["blockHash"] != self._hash_text:
                    self._begin_block(log, first, last)
                if log["transactionHash"] != self._transaction_text:
                    self._begin_transaction(log["transactionHash"])
                if not self._log < index <= MAX_INT or log["address"].lower() != self._contract:
                    raise ValueError("out of order, or another contract's")  # noqa: TRY301 - one complaint for all
                self._log = index
                if not topics:
                    continue
                data = log["data"]
                if topics[0] == _TRANSFER and self._plain and len(data) == 130:
                    # nearly all events are these and the nonces before them, so no call is made for one
                    source, target = addresses.get(topics[2], 0), addresses.get(topics[3], 0)
                    operator, item = addresses.get(topics[1]), items.get(data[2:66])
                    if source and target and operator and item:
                        amount = _number(data[66:])
                        balances.add((source, item))
                        balances.add((target, item))
                        place = (self._block, self._transaction, index)
                        events.append((MOVE, *place, 0, "moved", operator, source, target, item, amount))
                        continue
                read = _READERS.get(topics[0])
                if read is not None:
                    read(self, topics, data)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
                where = log.get("blockNumber") if isinstance(log, Mapping) else None
                raise ChainError(
                    f"the chain sent a log that is none, or not of the form its topic states (block {where!s:.20})",
                    hint="use another end point",
                ) from exc
        self.logs += len(logs)

    # ---- where an event stands

    def _begin_block(self, log: Mapping[str, Any], first: int, last: int) -> None:
        number = int(log["blockNumber"], 16)
        if not max(first, self._number + 1) <= number <= min(last, MAX_INT):
            raise ValueError("a block that was not asked for, or twice, with two hashes")
        stated = log.get("blockTimestamp")
        timestamp = None if stated is None else int(stated, 16)
        if timestamp is not None and timestamp > MAX_INT:
            raise ValueError("a time that is none")
        self.blocks.append(BlockSeen(number, _hash(log["blockHash"]), timestamp))
        self._block_text, self._hash_text, self._transaction_text = log["blockNumber"], log["blockHash"], ""
        self._number, self._log = number, -1
        self._block += 1

    def _begin_transaction(self, text: str) -> None:
        self.transactions.append((self._block, _hash(text)))
        self._transaction += 1
        self._transaction_text = text
        self._swap = self._spent = None
        self._plain = True

    # ---- numbering

    def _address(self, topic: str) -> int:
        found = self._addresses.get(topic)
        if found is None:
            if len(topic) != 66 or not topic.startswith(_ADDRESS_PAD):
                raise ValueError("not an address")
            found = self._addresses[topic] = len(self.names)
            self.names.append(bytes.fromhex(topic[26:]))
        return found

    def _item(self, text: str) -> int:
        """A class by its id: a topic, or the 64 digits of a word of data."""
        digits = text[2:] if len(text) == 66 else text
        found = self._items.get(digits)
        if found is None:
            found = self._items[digits] = len(self.names)
            self.names.append(_hash("0x" + digits))
        return found

    def _put(self, kind: int, *members: Any) -> None:
        self.events.append((kind, self._block, self._transaction, self._log, *members))

    # ---- each event

    def _transfer_single(self, topics: list[str], data: str) -> None:
        if len(data) != 130:
            raise ValueError("not two words")
        operator, source, target = map(self._address, topics[1:4])
        self._move(0, operator, source, target, self._item(data[2:66]), _number(data[66:]))
        self._settle_sides()

    def _transfer_batch(self, topics: list[str], data: str) -> None:
        operator, source, target = map(self._address, topics[1:4])
        ids, amounts = _array(data, 0), _array(data, 1)
        for position, (id_, amount) in enumerate(zip(ids, amounts, strict=True)):
            self._move(position, operator, source, target, self._item(id_), _number(amount))
        self._settle_sides()

    def _move(self, position: int, operator: int, source: int, target: int, item: int, amount: int) -> None:
        kind: str | None = "moved" if source and target else "made" if target else "burned"
        if self._swap is not None:
            log, first, second, gives, gets = self._swap
            if self._log - log in {1, 2} and (source, target) in {(first, second), (second, first)}:
                (gives if source == first else gets).append((item, amount))
                kind = None  # the swap's own line tells it
        elif self._spent is not None:
            if self._spent == (self._log - 1, operator, source, target, item, amount):
                kind = "spent"
            self._spent, self._plain = None, True
        balances = self.touched[BALANCES]
        if source:
            balances.add((source, item))
        if target:
            balances.add((target, item))
        if not (source and target):
            self.touched[SUPPLIES].add((item,))
            if target:
                self.touched[CLASSES].add((item,))
                self.touched[MINTERS].add((item, operator))
        self._put(MOVE, position, kind, operator, source, target, item, amount)

    def _settle_sides(self) -> None:
        if self._swap is not None and self._log - self._swap[0] >= 2:
            self._swap, self._plain = None, True

    def _nonce_used(self, topics: list[str], _data: str) -> None:
        owner, nonce = self._address(topics[1]), _hash(topics[2])
        self.touched[NONCES].add((owner, nonce[:31]))
        self.events.append((NONCE, self._block, self._transaction, self._log, owner, nonce))

    def _nonce_cancelled(self, topics: list[str], _data: str) -> None:
        owner, nonce = self._address(topics[1]), _hash(topics[2])
        self.touched[NONCES].add((owner, nonce[:31]))
        self._put(CANCELLED, owner, nonce)

    def _class_created(self, topics: list[str], data: str) -> None:
        item, issuer = self._item(topics[1]), self._address(topics[2])
        cap, digest, soulbound, policy, delay, receiver, bps = _words(data, 7)
        for table in (CLASSES, DESCRIPTORS, SUPPLIES):
            self.touched[table].add((item,))
        terms = (_small(soulbound), _small(policy), _small(delay), self._address("0x" + receiver), _small(bps))
        self._put(CLASS, item, issuer, _number(cap), bytes.fromhex(digest), *terms)

    def _minter_set(self, topics: list[str], data: str) -> None:
        item, minter = self._item(topics[1]), self._address(topics[2])
        self.touched[MINTERS].add((item, minter))
        self.touched[CLASSES].add((item,))
        self._put(MINTER, item, minter, _number(_words(data, 1)[0]))

    def _update_proposed(self, topics: list[str], data: str) -> None:
        item, (digest, start) = self._item(topics[1]), _words(data, 2)
        self._update(item)
        self._put(PROPOSED, item, _small(topics[2]), bytes.fromhex(digest), _number(start))

    def _update_withdrawn(self, topics: list[str], _data: str) -> None:
        item = self._item(topics[1])
        self._update(item)
        self._put(WITHDRAWN, item, _small(topics[2]))

    def _class_updated(self, topics: list[str], data: str) -> None:
        item, (digest, previous) = self._item(topics[1]), _words(data, 2)
        self._update(item)
        self._put(UPDATED, item, _small(topics[2]), bytes.fromhex(digest), bytes.fromhex(previous))

    def _update(self, item: int) -> None:
        self.touched[DESCRIPTORS].add((item,))
        self.touched[CLASSES].add((item,))

    def _intent_failed(self, topics: list[str], data: str) -> None:
        self._put(FAILED, self._address(topics[1]), _hash(topics[2]), _bytes(data, 0))

    def _call_failed(self, topics: list[str], data: str) -> None:
        self._put(CALL_FAILED, _small(topics[1]), _bytes(data, 0))

    def _locked(self, topics: list[str], data: str) -> None:
        key = self._hold(topics)
        amount, until = _words(data, 2)
        self.touched[LOCKS].add(key)
        self._put(LOCKED, *key, _number(amount), _number(until))

    def _unlocked(self, topics: list[str], data: str) -> None:
        key = self._hold(topics)
        self.touched[LOCKS].add(key)
        self._put(UNLOCKED, *key, _number(_words(data, 1)[0]))

    def _spend_allowed(self, topics: list[str], data: str) -> None:
        key = self._hold(topics)
        most, until = _words(data, 2)
        self.touched[ALLOWANCES].add(key)
        self._put(ALLOWED, *key, _number(most), _number(until))

    def _spent_event(self, topics: list[str], data: str) -> None:
        owner, item, world = key = self._hold(topics)
        amount_text, target = _words(data, 2)
        amount, to = _number(amount_text), self._address("0x" + target)
        self.touched[ALLOWANCES].add(key)
        self._spent, self._plain = (self._log, world, owner, to, item, amount), False
        self._put(SPENT, *key, amount)

    def _hold(self, topics: list[str]) -> tuple[int, int, int]:
        """(owner, item, world), as the tables have them."""
        return self._address(topics[1]), self._item(topics[3]), self._address(topics[2])

    def _swapped(self, topics: list[str], data: str) -> None:
        first, second = map(self._address, topics[1:3])
        nonces = [_number(word) for word in _words(data, 2)]
        gives: list[tuple[int, int]] = []
        gets: list[tuple[int, int]] = []
        self._swap, self._plain = (self._log, first, second, gives, gets), False
        self._put(SWAPPED, first, second, *nonces, gives, gets)

    def _approval(self, topics: list[str], data: str) -> None:
        key = (self._address(topics[1]), self._address(topics[2]))
        self.touched[APPROVALS].add(key)
        self._put(APPROVED, *key, _small(_words(data, 1)[0]))


# ---- the ABI's forms, from hex digits


def _hash(text: str) -> bytes:
    if len(text) != 66 or not text.startswith("0x"):
        raise ValueError("not 32 bytes")
    found = bytes.fromhex(text[2:])
    if len(found) != 32:
        raise ValueError("not 32 bytes")
    return found


def _number(word: str) -> int:
    found = int(word, 16)
    if found < 0:  # Python reads a sign, which hex has not
        raise ValueError("not a number of 32 bytes")
    return found


def _small(word: str) -> int:
    found = _number(word)
    if found > MAX_INT:
        raise ValueError("greater than it can be")
    return found


def _words(data: str, count: int) -> list[str]:
    """The words of static data, 64 digits each."""
    if len(data) != 2 + 64 * count or not data.startswith("0x"):
        raise ValueError("not as many words as there must be")
    return [data[start : start + 64] for start in range(2, len(data), 64)]


def _array(data: str, index: int) -> list[str]:
    """The dynamic array whose offset is in word `index`."""
    start = 2 + 2 * int(data[2 + 64 * index : 66 + 64 * index], 16)
    length = int(data[start : start + 64], 16)
    if length > MAX_ITEMS or len(data) < start + 64 * (length + 1):
        raise ValueError("the array is longer than it can be")
    return [data[at : at + 64] for at in range(start + 64, start + 64 * (length + 1), 64)]


def _bytes(data: str, index: int) -> bytes:
    """The dynamic bytes whose offset is in word `index`, cut to MAX_REASON."""
    start = 2 + 2 * int(data[2 + 64 * index : 66 + 64 * index], 16)
    length = int(data[start : start + 64], 16)
    if len(data) < start + 64 + 2 * length:
        raise ValueError("the bytes are more than the data")
    return bytes.fromhex(data[start + 64 : start + 64 + 2 * min(length, MAX_REASON)])


Reader = Callable[[Batch, list[str], str], None]

_EVENTS: dict[str, Reader] = {
    "ClassCreated(uint256,address,uint128,bytes32,bool,uint8,uint32,address,uint16)": Batch._class_created,
    "MinterSet(uint256,address,uint128)": Batch._minter_set,
    "UpdateProposed(uint256,uint32,bytes32,uint64)": Batch._update_proposed,
    "UpdateWithdrawn(uint256,uint32)": Batch._update_withdrawn,
    "ClassUpdated(uint256,uint32,bytes32,bytes32)": Batch._class_updated,
    "NonceUsed(address,uint256)": Batch._nonce_used,
    "NonceCancelled(address,uint256)": Batch._nonce_cancelled,
    "IntentFailed(address,uint256,bytes)": Batch._intent_failed,
    "CallFailed(uint256,bytes)": Batch._call_failed,
    "Locked(address,address,uint256,uint256,uint64)": Batch._locked,
    "Unlocked(address,address,uint256,uint256)": Batch._unlocked,
    "SpendAllowed(address,address,uint256,uint256,uint64)": Batch._spend_allowed,
    "Spent(address,address,uint256,uint256,address)": Batch._spent_event,
    "Swapped(address,address,uint256,uint256)": Batch._swapped,
    "TransferSingle(address,address,address,uint256,uint256)": Batch._transfer_single,
    "TransferBatch(address,address,address,uint256[],uint256[])": Batch._transfer_batch,
    "ApprovalForAll(address,address,bool)": Batch._approval,
}
"""Every event of the contract but URI, which says what ClassCreated and ClassUpdated say."""

_TRANSFER = "0x" + keccak(b"TransferSingle(address,address,address,uint256,uint256)").hex()
_READERS: dict[str, Reader] = {"0x" + keccak(name.encode()).hex(): reader for name, reader in _EVENTS.items()}
