"""Wallets, their gas, and the asset contract: what must be on a chain before a relayer can work. Synchronous."""

from dataclasses import dataclass

from p2pos.devnet.home import Home, Record
from p2pos.devnet.plan import OPERATOR, WALLETS
from p2pos.errors import UserError
from p2pos.ledger.chain import Chain, set_native_balance
from p2pos.ledger.wallet import Wallets
from p2pos.types import Address, Wei

COIN = 10**18
FUNDS = {"operator": Wei(10_000 * COIN), "alice": Wei(10 * COIN), "bob": Wei(10 * COIN)}
"""On the embedded chain, refilled at each `up`. The operator pays all gas; the others can afford a transaction."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the relayer and the commands stand on."""

    rpc_url: str
    chain_id: int
    contract: Address
    deployed: bool
    """Whether the contract was deployed just now, not found."""


def make_wallets(home: Home) -> dict[str, Address]:
    """The devnet's wallets, those missing made now. They hold nothing of value, so their keys are stretched lightly."""
    wallets = Wallets(home.wallets)
    passphrase = home.passphrase()
    there = set(wallets.names())
    return {
        name: wallets.address(name) if name in there else wallets.create(name, passphrase, light=True)
        for name in WALLETS
    }


def prepare(home: Home, record: Record, rpc_url: str, *, embedded: bool) -> Ground:
    """Fund the wallets and find or deploy the contract; the record gains its address.

    Raises UserError where the chain is not ours and the operator has nothing there to pay gas with, UnavailableError
    where it can't be reached, ChainError where it refuses.
    """
    addresses = make_wallets(home)
    chain = Chain.connect(rpc_url)
    if embedded:
        for name, wei in FUNDS.items():
            if chain.native_balance(addresses[name]) < wei:
                set_native_balance(rpc_url, addresses[name], wei)
    elif chain.native_balance(addresses[OPERATOR]) == 0:
        raise UserError(
            f"the operator {addresses[OPERATOR]} has no coin on chain {chain.chain_id} to pay for gas",
            hint="send it some, for example from a faucet, and run `p2pos devnet up` with the same --home again",
            address=addresses[OPERATOR],
            chain_id=chain.chain_id,
        )
    known = _still_there(chain, record.contracts.get(str(chain.chain_id)))
    if known is not None:
        return Ground(rpc_url, chain.chain_id, known, deployed=False)
    contract = chain.deploy(Wallets(home.wallets).unlock(OPERATOR, home.passphrase()))
    record.contracts[str(chain.chain_id)] = contract
    return Ground(rpc_url, chain.chain_id, contract, deployed=True)


def _still_there(chain: Chain, contract: str | None) -> Address | None:
    """The contract's address, or None where it is gone or of another version, so that a new one is needed."""
    if contract is None:
        return None
    try:
        return chain.with_contract(contract).contract
    except UserError:
        return None
