"""The gas figures of `bench.relay`.

Of warm storage: sender and receiver have dealt before, and the owner's nonces follow one another, as those of
`p2pos asset sign` do (see `p2pos.ledger.nonces`). `gas_batch100` is a hundred transfers of one owner to one receiver;
`gas_batch100_people` of a hundred owners to a hundred receivers, each pair's slots read for the first time in the
transaction; `gas_batch100_scattered` with a new word of nonces for each as well.
"""

import itertools
import json
import subprocess

from bench.harness import Figures
from bench.relay_ground import FAR, Ground
from p2pos.ledger import calldata
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.records import Receipt
from p2pos.ledger.typed_data import Lock, Signable, Transfer
from scripts.build_contracts import CONTRACTS, MODULES, BuildError, find_node

PLAIN = """
// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;
import {ERC1155} from "@openzeppelin/contracts/token/ERC1155/ERC1155.sol";
contract Plain is ERC1155("") { constructor() { _mint(msg.sender, 1, 1000, ""); } }
"""


def measure_gas(ground: Ground, figures: Figures) -> None:
    """Set the figures."""
    chain, operator = ground.chain, ground.operator
    pair = _Pair(ground)
    with ground.mining():
        chain.relay(operator, pair.transfers(100))
        chain.relay(operator, pair.transfers(100))  # the next hundred nonces lie in words that were used before
        people = ground.intents(ground.signed(100))
        scattered = ground.intents(ground.signed(100, scattered=True))
        figures.exact(
            gas_batch100=chain.relay(operator, pair.transfers(100)).gas_used // 100,
            gas_batch100_people=chain.relay(operator, people).gas_used // 100,
            gas_batch100_scattered=chain.relay(operator, scattered).gas_used // 100,
            gas_single_warm=chain.submit(operator, pair.transfers(1)[0]).gas_used,
        )
        held, freed = zip(*(pair.lock_and_unlock() for _ in range(2)), strict=True)
        figures.exact(gas_lock=held[-1].gas_used, gas_unlock=freed[-1].gas_used)
        try:
            figures.exact(gas_oz_direct=_plain_transfer(ground).gas_used)
        except BuildError as exc:
            figures.missing("gas_oz_direct", str(exc))


class _Pair:
    """One owner who deals with one receiver; nonces in words of their own."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._owner, self._receiver = ground.owners[0], ground.receivers[0]
        self._nonces = itertools.count(1 << 40)

    def transfers(self, count: int) -> list[SignedIntent]:
        return [
            self._sign(
                Transfer(self._owner.address, self._receiver.address, self._ground.item, 1, next(self._nonces), FAR)
            )
            for _ in range(count)
        ]

    def lock_and_unlock(self) -> tuple[Receipt, Receipt]:
        chain, world = self._ground.chain, self._ground.operator
        until = chain.head().timestamp + 1000
        struct = Lock(self._owner.address, world.address, self._ground.item, 1, until, next(self._nonces), FAR)
        locked = chain.submit(self._ground.operator, self._sign(struct))
        return locked, chain.unlock(world, self._owner.address, world.address, self._ground.item)

    def _sign(self, struct: Signable) -> SignedIntent:
        domain = self._ground.chain.domain
        return SignedIntent.of(domain, struct, self._owner.sign_typed(domain, struct))


def _plain_transfer(ground: Ground) -> Receipt:
    """`safeTransferFrom` of OpenZeppelin's ERC-1155 and nothing else, the receiver having some already."""
    request = {
        "language": "Solidity",
        "sources": {"Plain.sol": {"content": PLAIN}},
        "settings": {
            "evmVersion": "prague",
            "optimizer": {"enabled": True, "runs": 10_000},
            "outputSelection": {"*": {"Plain": ["evm.bytecode.object"]}},
        },
    }
    done = subprocess.run(
        [find_node(), CONTRACTS / "solcw", "--standard-json", "--include-path", MODULES],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=CONTRACTS,
        check=False,
    )
    try:
        code = json.loads(done.stdout)["contracts"]["Plain.sol"]["Plain"]["evm"]["bytecode"]["object"]
    except (ValueError, KeyError) as exc:
        raise BuildError("the plain ERC-1155 for comparison does not compile") from exc
    where = ground.chain.transact(ground.owners[0], bytes.fromhex(code), to=None).contract
    call = calldata.safe_transfer_from(ground.owners[0].address, ground.receivers[0].address, 1, 1, b"")
    ground.chain.transact(ground.owners[0], call, to=where)
    return ground.chain.transact(ground.owners[0], call, to=where)
