"""What must hold whatever happens, by the contract's events alone: a second judge, who doesn't know the model's rules.

It rebuilds every balance, lock, allowance and version from the events, as the documentation says anyone can. So the
checks are at once of the invariants and of that claim.
"""

from collections import defaultdict
from collections.abc import Callable

from tests.contract_model.abi import topic
from tests.contract_model.ledger import Allowance, Ledger

Log = tuple[list[bytes], bytes]


class BrokenError(AssertionError):
    """Something happened that must never happen."""


def _number(word: bytes) -> int:
    return int.from_bytes(word, "big")


def _numbers(data: bytes) -> list[int]:
    return [_number(data[at : at + 32]) for at in range(0, len(data), 32)]


class Invariants:
    """The state that the events tell of."""

    def __init__(self) -> None:
        self._balances: dict[tuple[int, int], int] = defaultdict(int)
        self._locked: dict[tuple[int, int], int] = defaultdict(int)
        self._holds: dict[tuple[int, int, int], int] = {}
        self._allowances: dict[tuple[int, int, int], Allowance] = {}
        self._nonces: set[tuple[bytes, bytes]] = set()
        self._caps: dict[int, int] = {}
        self._soulbound: set[int] = set()
        self._minted: dict[int, int] = defaultdict(int)
        self._burned: dict[int, int] = defaultdict(int)
        self._versions: dict[int, tuple[int, int]] = {}
        """By class: version and digest."""
        self._policies: dict[int, int] = {}
        self._proposed: dict[int, int] = {}
        self._readers: dict[bytes, Callable[[list[bytes], bytes], None]] = {
            topic("ClassCreated(uint256,address,uint128,bytes32,bool,uint8,uint32,address,uint16)"): self._created,
            topic("TransferSingle(address,address,address,uint256,uint256)"): self._one,
            topic("TransferBatch(address,address,address,uint256[],uint256[])"): self._many,
            topic("NonceUsed(address,uint256)"): self._nonce,
            topic("NonceCancelled(address,uint256)"): self._nonce,
            topic("Locked(address,address,uint256,uint256,uint64)"): self._lock,
            topic("Unlocked(address,address,uint256,uint256)"): self._unlock,
            topic("SpendAllowed(address,address,uint256,uint256,uint64)"): self._allow,
            topic("Spent(address,address,uint256,uint256,address)"): self._spend,
            topic("UpdateProposed(uint256,uint32,bytes32,uint64)"): self._propose,
            topic("UpdateWithdrawn(uint256,uint32)"): self._withdraw,
            topic("ClassUpdated(uint256,uint32,bytes32,bytes32)"): self._update,
        }

    def see(self, logs: list[Log]) -> None:
        """Take in the events of one transaction. Raises BrokenError."""
        for topics, data in logs:
            reader = self._readers.get(topics[0])
            if reader:
                reader(topics, data)

    def check(self, ledger: Ledger) -> None:
        """Raise BrokenError unless the events tell what the ledger, which is known to be the contract's, holds."""
        for what, told, held in (
            ("balances", self._balances, ledger.balances),
            ("held", self._locked, ledger.held),
            ("holds", self._holds, {key: hold.amount for key, hold in ledger.holds.items()}),
            ("minted", self._minted, {id_: known.minted for id_, known in ledger.classes.items()}),
            ("burned", self._burned, {id_: known.burned for id_, known in ledger.classes.items()}),
        ):
            if {key: value for key, value in told.items() if value} != {k: v for k, v in held.items() if v}:
                raise BrokenError(f"the events don't add up to the {what}")
        if {key: value for key, value in self._allowances.items() if value.left} != {
            key: value for key, value in ledger.allowances.items() if value.left
        }:
            raise BrokenError("the events don't add up to the allowances")
        if self._versions != {id_: (known.version, known.digest) for id_, known in ledger.classes.items()}:
            raise BrokenError("the events don't add up to the versions")
        supply: dict[int, int] = defaultdict(int)
        for (_, id_), balance in self._balances.items():
            supply[id_] += balance
        for id_, minted in self._minted.items():
            if supply[id_] != minted - self._burned[id_]:
                raise BrokenError(
                    f"class {id_:#x}: {supply[id_]} units in hands, {minted} made, {self._burned[id_]} burned"
                )

    def _created(self, topics: list[bytes], data: bytes) -> None:
        id_, (cap, digest, soulbound, policy, *_) = _number(topics[1]), _numbers(data)
        if id_ in self._caps:
            raise BrokenError(f"class {id_:#x} was made twice")
        self._caps[id_] = cap or (1 << 128) - 1
        self._versions[id_] = 1, digest
        self._policies[id_] = policy
        if soulbound:
            self._soulbound.add(id_)

    def _one(self, topics: list[bytes], data: bytes) -> None:
        id_, amount = _numbers(data)
        self._move(_number(topics[2]), _number(topics[3]), id_, amount)

    def _many(self, topics: list[bytes], data: bytes) -> None:
        _, _, count, *rest = _numbers(data)
        for id_, amount in zip(rest[:count], rest[count + 1 :], strict=True):
            self._move(_number(topics[2]), _number(topics[3]), id_, amount)

    def _move(self, sender: int, to: int, id_: int, amount: int) -> None:
        if sender:
            left = self._balances[sender, id_] - amount
            if left < self._locked[sender, id_]:
                raise BrokenError(
                    f"{amount} units of {id_:#x} left {sender:#x}, which leaves {left} and some are locked"
                )
            if id_ in self._soulbound and to and amount:
                raise BrokenError(f"soulbound units of {id_:#x} changed hands")
            self._balances[sender, id_] = left
        else:
            self._minted[id_] += amount
            if self._minted[id_] > self._caps[id_]:
                raise BrokenError(f"class {id_:#x}: more units were made than its cap says")
        if to:
            self._balances[to, id_] += amount
        else:
            self._burned[id_] += amount

    def _nonce(self, topics: list[bytes], data: bytes) -> None:
        nonce = topics[1], topics[2]
        if nonce in self._nonces:
            raise BrokenError(f"nonce {_number(topics[2])} of {topics[1].hex()} was used twice")
        self._nonces.add(nonce)

    def _lock(self, topics: list[bytes], data: bytes) -> None:
        owner, world, id_ = map(_number, topics[1:])
        amount, _ = _numbers(data)
        if self._holds.get((owner, id_, world)):
            raise BrokenError("a world locked what it had locked")
        self._holds[owner, id_, world] = amount
        self._locked[owner, id_] += amount
        if self._locked[owner, id_] > self._balances[owner, id_]:
            raise BrokenError("more is locked than there is")

    def _unlock(self, topics: list[bytes], data: bytes) -> None:
        owner, world, id_ = map(_number, topics[1:])
        if self._holds.pop((owner, id_, world), 0) != _number(data):
            raise BrokenError("something else was unlocked than was locked")
        self._locked[owner, id_] -= _number(data)

    def _allow(self, topics: list[bytes], data: bytes) -> None:
        owner, world, id_ = map(_number, topics[1:])
        self._allowances[owner, id_, world] = Allowance(*_numbers(data))

    def _spend(self, topics: list[bytes], data: bytes) -> None:
        owner, world, id_ = map(_number, topics[1:])
        amount, _ = _numbers(data)
        allowance = self._allowances.get((owner, id_, world), Allowance(0, 0))
        if amount > allowance.left:
            raise BrokenError("a world spent more than it was allowed")
        self._allowances[owner, id_, world] = allowance._replace(left=allowance.left - amount)

    def _propose(self, topics: list[bytes], data: bytes) -> None:
        self._proposed[_number(topics[1])] = _number(data[:32])

    def _withdraw(self, topics: list[bytes], data: bytes) -> None:
        del self._proposed[_number(topics[1])]

    def _update(self, topics: list[bytes], data: bytes) -> None:
        id_, version = map(_number, topics[1:])
        digest, previous = _numbers(data)
        if (version - 1, previous) != self._versions[id_]:
            raise BrokenError("a version was left out")
        policy = self._policies[id_]
        if policy == 0 or (policy == 2 and self._proposed.pop(id_, None) != digest):  # FROZEN, DELAYED
            raise BrokenError("a class was updated against its policy")
        self._versions[id_] = version, digest
