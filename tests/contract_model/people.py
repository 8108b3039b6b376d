"""Who acts in a run: accounts with keys, contracts, and accounts with both; the same in every run."""

from functools import cache

from eth_hash.auto import keccak

from tests.contract_model.signatures import Key

_KEYED = ("alice", "bob", "carol", "dave", "erin", "frank")
_DELEGATING = ("grace", "heidi")
"""Their accounts run a puppet's code and have a key as well, as after a delegation by EIP-7702."""
_CONTRACTS = ("ivan", "judy", "mallory")


class People:
    """The accounts of a run, by role; all addresses are ints."""

    def __init__(self) -> None:
        self.keys = {key.address: key for key in map(Key, _KEYED + _DELEGATING)}
        addresses = tuple(self.keys)
        self.plain = addresses[: len(_KEYED)]
        contracts = tuple(int.from_bytes(keccak(name.encode())[12:], "big") for name in _CONTRACTS)
        self.puppets = addresses[len(_KEYED) :] + contracts
        self.all = self.plain + self.puppets
        self.worlds = (self.plain[4], self.plain[5], self.puppets[-1])
        """Those who appear as worlds most often; anyone may."""


@cache
def people() -> People:
    return People()
