"""The asset contract's rules and none of its code: random deeds, the logs that they leave, and what is true after them.

An index of the logs can be held against that; `index_chain` makes blocks of them, `index_load` a million at once.
"""

import copy
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_hash.auto import keccak

from p2pos.types import Address

CONTRACT = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
RELAYER = "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"
ZERO = "0" * 40
START_S = 1_700_000_000
BLOCK_S = 1
FROZEN, ISSUER, DELAYED = range(3)


def _topic(signature: str) -> str:
    return "0x" + keccak(signature.encode()).hex()


TOPICS = {
    signature.split("(")[0]: _topic(signature)
    for signature in (
        "ClassCreated(uint256,address,uint128,bytes32,bool,uint8,uint32,address,uint16)",
        "MinterSet(uint256,address,uint128)",
        "UpdateProposed(uint256,uint32,bytes32,uint64)",
        "UpdateWithdrawn(uint256,uint32)",
        "ClassUpdated(uint256,uint32,bytes32,bytes32)",
        "NonceUsed(address,uint256)",
        "NonceCancelled(address,uint256)",
        "IntentFailed(address,uint256,bytes)",
        "CallFailed(uint256,bytes)",
        "Locked(address,address,uint256,uint256,uint64)",
        "Unlocked(address,address,uint256,uint256)",
        "SpendAllowed(address,address,uint256,uint256,uint64)",
        "Spent(address,address,uint256,uint256,address)",
        "Swapped(address,address,uint256,uint256)",
        "TransferSingle(address,address,address,uint256,uint256)",
        "TransferBatch(address,address,address,uint256[],uint256[])",
        "ApprovalForAll(address,address,bool)",
        "URI(string,uint256)",
    )
}

_UNTOLD = {"NonceUsed", "Spent", "URI"}
"""Events without a line of their own: what follows them, or came with them, has it."""


@dataclass
class Truth:
    """What the contract's storage holds. Addresses and ids are hex digits."""

    balances: dict[tuple[str, str], int] = field(default_factory=dict)
    classes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """(issuer, cap, soulbound, policy, delay)."""
    supplies: dict[str, tuple[int, int]] = field(default_factory=dict)
    descriptors: dict[str, tuple[int, str, str | None, int | None]] = field(default_factory=dict)
    minters: dict[tuple[str, str], int] = field(default_factory=dict)
    locks: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    allowances: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    nonces: dict[tuple[str, int], int] = field(default_factory=dict)
    """Bits by (owner, nonce // 256)."""
    approvals: set[tuple[str, str]] = field(default_factory=set)
    told: int = 0
    """Lines of history until here."""

    def copy(self) -> "Truth":
        """As it is now, for good."""
        return Truth(**{name: copy.copy(value) for name, value in vars(self).items()})


class Deeds:
    """Random deeds that the contract would allow, and their logs."""

    def __init__(self, rng: random.Random, truth: Truth, accounts: Sequence[str], most_classes: int) -> None:
        self.rng, self.truth, self.accounts, self.most_classes = rng, truth, accounts, most_classes
        self.logs: list[tuple[int, list[str], str]] = []
        """(transaction, topics, data)."""
        self.transaction = 0
        self.now_s = START_S
        self.changed = False
        self.serial = 0

    def relayed(self, count: int) -> None:
        """One transaction with as many transfers by intents, or fewer where nobody has anything."""
        self.transaction += 1
        for _ in range(count):
            self.transfer()

    def any(self) -> None:
        """One transaction with a deed drawn by lot."""
        self.transaction += 1
        self.rng.choice(_DEEDS)(self)

    # ---- deeds

    def create(self) -> None:
        """A class with random terms, or where there are enough, a mint."""
        rng = self.rng
        if len(self.truth.classes) >= self.most_classes:
            self.mint()
            return
        self.serial += 1
        issuer, item = self._who(), f"{rng.getrandbits(256):064x}"
        soulbound, policy = rng.random() < 0.15, rng.randrange(3)
        cap = rng.choice([0, 1, 1000, (1 << 128) - 1])
        delay = rng.randrange(1, 5) if policy == DELAYED else 0
        digest = f"{rng.getrandbits(256):064x}"
        self.truth.classes[item] = (issuer, cap, soulbound, policy, delay)
        self.truth.supplies[item] = (0, 0)
        self.truth.descriptors[item] = (1, digest, None, None)
        words = [_word(cap), digest, _word(soulbound), _word(policy), _word(delay), _word(0), _word(0)]
        self._emit("ClassCreated", [item, _pad(issuer)], words)

    def mint(self) -> None:
        """By the issuer, or by a minter within its allowance."""
        found = self._class()
        if found is None:
            return
        item, (issuer, cap, *_) = found
        minted, burned = self.truth.supplies[item]
        operator, most = issuer, cap - minted if cap else 1 << 100
        minters = [(who, left) for (of, who), left in self.truth.minters.items() if of == item and who != issuer]
        if minters and self.rng.random() < 0.5:
            operator, left = self.rng.choice(minters)
            most = min(most, left)
        if most <= 0:
            return
        amount = self.rng.randint(1, min(most, 1000))
        if operator != issuer:
            self._set(self.truth.minters, (item, operator), self.truth.minters[item, operator] - amount)
        self.truth.supplies[item] = (minted + amount, burned)
        self._move(operator, ZERO, self._who(), [(item, amount)])

    def set_minter(self) -> None:
        """Give someone an allowance, or none."""
        if (found := self._class()) is not None:
            minter, allowance = self._who(), self.rng.choice([0, 5, 100])
            self._set(self.truth.minters, (found[0], minter), allowance)
            self._emit("MinterSet", [found[0], _pad(minter)], [_word(allowance)])

    def burn(self) -> None:
        """Some of what someone has, soulbound ones too."""
        if (found := self._holding(soulbound=True)) is not None:
            owner, item, free = found
            amount = self.rng.randint(1, free)
            self._burned(item, amount)
            self._move(owner, owner, ZERO, [(item, amount)])

    def transfer(self) -> None:
        """By an intent, through the relayer."""
        if (found := self._holding()) is None:
            self.create()
            return
        owner, item, free = found
        self._use_nonce(owner)
        self._move(RELAYER, owner, self._who(), [(item, self.rng.randint(1, free))])

    def batch(self) -> None:
        """Several classes at once, one of them perhaps twice."""
        owner = self._who()
        gives = self._some(owner)
        if gives:
            self._use_nonce(owner)
            self._move(RELAYER, owner, self._who(), gives, batch=True)

    def lock(self) -> None:
        """Carry something into a world."""
        if (found := self._holding()) is not None:
            owner, item, free = found
            world = self._who()
            if (owner, item, world) not in self.truth.locks:
                amount, until = self.rng.randint(1, free), self.now_s + self.rng.randrange(1, 100)
                self._use_nonce(owner)
                self.truth.locks[owner, item, world] = (amount, until)
                self._emit("Locked", [_pad(owner), _pad(world), item], [_word(amount), _word(until)])

    def unlock(self) -> None:
        """Whatever is carried, released."""
        if self.truth.locks:
            owner, item, world = self.rng.choice(list(self.truth.locks))
            amount, _ = self.truth.locks.pop((owner, item, world))
            if self.rng.random() < 0.5:
                self._use_nonce(world)
            self._emit("Unlocked", [_pad(owner), _pad(world), item], [_word(amount)])

    def allow(self) -> None:
        """Let a world spend, or no longer."""
        if (found := self._class()) is not None:
            owner, world, item = self._who(), self._who(), found[0]
            most, until = self.rng.choice([0, 3, 1 << 200]), self.rng.choice([self.now_s + 50, (1 << 64) - 1])
            self._use_nonce(owner)
            self._set(self.truth.allowances, (owner, item, world), (most, until) if most else None)
            self._emit("SpendAllowed", [_pad(owner), _pad(world), item], [_word(most), _word(until)])

    def spend(self) -> None:
        """By a world that may, to someone or into nothing."""
        for (owner, item, world), (left, until) in self.truth.allowances.items():
            free = min(left, self._free(owner, item))
            if free > 0 and not self.truth.classes[item][2]:
                amount = self.rng.randint(1, min(free, 1000))
                to = ZERO if self.rng.random() < 0.3 else self._who()
                rest = (left - amount, until) if left > amount else None
                self._set(self.truth.allowances, (owner, item, world), rest)
                self._emit("Spent", [_pad(owner), _pad(world), item], [_word(amount), _pad(to)])
                if to == ZERO:
                    self._burned(item, amount)
                self._move(world, owner, to, [(item, amount)])
                return

    def swap(self) -> None:
        """Both sides give, or one alone."""
        first, second = self.rng.sample(list(self.accounts), 2)
        gives, gets = self._some(first), self._some(second)
        if gives or gets:
            nonces = [self._use_nonce(first), self._use_nonce(second)]
            self._emit("Swapped", [_pad(first), _pad(second)], [_word(nonce) for nonce in nonces])
            for giver, taker, side in ((first, second, gives), (second, first, gets)):
                if side:
                    self._move(RELAYER, giver, taker, side, batch=len(side) > 1)
                    self.truth.told -= len(side)  # the swap's line has both sides

    def update(self) -> None:
        """Whatever a class's policy allows: at once, propose, withdraw or apply."""
        if (found := self._class()) is None:
            return
        item, (_, _, _, policy, delay) = found
        version, digest, pending, start = self.truth.descriptors[item]
        new = f"{self.rng.getrandbits(256):064x}"
        if policy == ISSUER or (pending is not None and start is not None and start <= self.now_s):
            new = new if policy == ISSUER else str(pending)
            self.truth.descriptors[item] = (version + 1, new, None, None)
            self._emit("ClassUpdated", [item, _word(version + 1)], [new, digest])
            self._emit("URI", [item], [_word(32), _word(3), "61" * 3 + "00" * 29])
        elif policy == DELAYED and pending is not None and self.rng.random() < 0.4:
            self.truth.descriptors[item] = (version, digest, None, None)
            self._emit("UpdateWithdrawn", [item, _word(version + 1)], [])
        elif policy == DELAYED:
            self.truth.descriptors[item] = (version, digest, new, self.now_s + delay)
            self._emit("UpdateProposed", [item, _word(version + 1)], [new, _word(self.now_s + delay)])

    def cancel(self) -> None:
        """A nonce that nobody used."""
        owner = self._who()
        self._emit("NonceCancelled", [_pad(owner), _word(self._take_nonce(owner))], [])

    def fail(self) -> None:
        """An intent or call without effect."""
        reason = [_word(4), "deadbeef" + "00" * 28]
        if self.rng.random() < 0.5:
            topics = [_pad(self._who()), _word(self.rng.getrandbits(256))]
            self._emit("IntentFailed", topics, [_word(32), *reason])
        else:
            self._emit("CallFailed", [_word(self.rng.randrange(100))], [_word(32), *reason])

    def approve(self) -> None:
        """ERC-1155's own approval, given or taken."""
        pair = (self._who(), self._who())
        yes = self.rng.random() < 0.5
        (self.truth.approvals.add if yes else self.truth.approvals.discard)(pair)
        self.changed = True
        self._emit("ApprovalForAll", [_pad(pair[0]), _pad(pair[1])], [_word(yes)])

    # ---- bookkeeping

    def _who(self) -> str:
        return self.rng.choice(self.accounts)

    def _class(self) -> tuple[str, tuple[Any, ...]] | None:
        return self.rng.choice(list(self.truth.classes.items())) if self.truth.classes else None

    def _free(self, owner: str, item: str) -> int:
        held = self.truth.balances.get((owner, item), 0)
        return held - sum(one[0] for (who, of, _), one in self.truth.locks.items() if (who, of) == (owner, item))

    def _holding(self, *, soulbound: bool = False) -> tuple[str, str, int] | None:
        """Someone, a class, and how much of it is free; a few tries, for most pairs hold nothing."""
        pairs = list(self.truth.balances)
        for _ in range(4):
            if not pairs:
                break
            owner, item = self.rng.choice(pairs)
            free = self._free(owner, item)
            if free > 0 and (soulbound or not self.truth.classes[item][2]):
                return owner, item, free
        return None

    def _some(self, owner: str) -> list[tuple[str, int]]:
        """Up to four items that are the owner's to give."""
        gives = []
        for item in [of for who, of in self.truth.balances if who == owner][:4]:
            free = self._free(owner, item)
            if free > 0 and not self.truth.classes[item][2]:
                gives.append((item, self.rng.randint(1, free)))
                if gives[-1][1] < free and self.rng.random() < 0.2:
                    gives.append((item, 1))
        return gives

    def _take_nonce(self, owner: str) -> int:
        """The owner's next nonce; now and then in another word."""
        word = int(hashlib.sha256(owner.encode()).hexdigest()[:30], 16)
        while (bits := self.truth.nonces.get((owner, word), 0)) == (1 << 256) - 1:
            word += 1
        bit = (~bits & (bits + 1)).bit_length() - 1
        self.truth.nonces[owner, word] = bits | 1 << bit
        self.changed = True
        return word * 256 + bit

    def _use_nonce(self, owner: str) -> int:
        nonce = self._take_nonce(owner)
        self._emit("NonceUsed", [_pad(owner), _word(nonce)], [])
        return nonce

    def _burned(self, item: str, amount: int) -> None:
        minted, burned = self.truth.supplies[item]
        self.truth.supplies[item] = (minted, burned + amount)

    def _set(self, cells: dict[Any, Any], key: Any, value: Any) -> None:
        self.changed = True
        if value:
            cells[key] = value
        else:
            cells.pop(key, None)

    def _move(
        self, operator: str, source: str, target: str, items: list[tuple[str, int]], *, batch: bool = False
    ) -> None:
        for item, amount in items:
            for who, change in ((source, -amount), (target, amount)):
                if who != ZERO:
                    self._set(self.truth.balances, (who, item), self.truth.balances.get((who, item), 0) + change)
        topics = [_pad(operator), _pad(source), _pad(target)]
        if batch:
            count = len(items)
            words = [_word(64), _word(96 + 32 * count), _word(count), *(item for item, _ in items), _word(count)]
            self._emit("TransferBatch", topics, words + [_word(amount) for _, amount in items])
            self.truth.told += count - 1
        else:
            self._emit("TransferSingle", topics, [items[0][0], _word(items[0][1])])

    def _emit(self, event: str, topics: list[str], words: list[str]) -> None:
        self.changed = True
        self.truth.told += event not in _UNTOLD
        topics = [TOPICS[event], *("0x" + topic for topic in topics)]
        self.logs.append((self.transaction, topics, "0x" + "".join(words)))


_DEEDS: tuple[Callable[[Deeds], None], ...] = (
    Deeds.create,
    Deeds.mint,
    Deeds.mint,
    Deeds.set_minter,
    Deeds.burn,
    Deeds.transfer,
    Deeds.transfer,
    Deeds.transfer,
    Deeds.batch,
    Deeds.lock,
    Deeds.unlock,
    Deeds.allow,
    Deeds.spend,
    Deeds.swap,
    Deeds.swap,
    Deeds.update,
    Deeds.cancel,
    Deeds.fail,
    Deeds.approve,
)


def json_logs(
    number: int, hash_: bytes, timestamp: int | None, logs: Sequence[tuple[int, list[str], str]]
) -> list[dict[str, Any]]:
    """Logs of one block as a node's JSON has them."""
    block_hash = "0x" + hash_.hex()
    time = {} if timestamp is None else {"blockTimestamp": hex(timestamp)}
    return [
        {
            "address": CONTRACT.lower(),
            "topics": topics,
            "data": data,
            "blockHash": block_hash,
            "blockNumber": hex(number),
            **time,
            "transactionHash": "0x" + hashlib.sha256(hash_ + transaction.to_bytes(4, "big")).hexdigest(),
            "transactionIndex": hex(transaction),
            "logIndex": hex(at),
            "removed": False,
        }
        for at, (transaction, topics, data) in enumerate(logs)
    ]


def _word(value: int) -> str:
    return f"{int(value):064x}"


def _pad(account: str) -> str:
    return "0" * 24 + account
