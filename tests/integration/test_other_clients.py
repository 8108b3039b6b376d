"""A second Ethereum client, which shares no line with the first, comes to the same of all that the contract does.

anvil (Rust) makes the blocks; EthereumJS (JavaScript) carries out the same transactions under the same headers. What is
sent is drawn as in the contract's comparison with its model, which says besides whether each takes effect.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from eth_account import Account

from p2pos.ledger.contracts import artifact
from tests.contract_model import puppets
from tests.contract_model.calls import Call
from tests.contract_model.choices import Choices
from tests.contract_model.contract import Contract
from tests.contract_model.intents import ENTRY_POINTS
from tests.contract_model.ledger import PuppetState
from tests.contract_model.machine import CHAIN_ID, CONTRACT, DEPLOYER, TRANSACTION_GAS, as_text
from tests.contract_model.people import people
from tests.contract_model.signatures import Key
from tests.evm.scripts import run_script
from tests.ledger.chains import Anvil, running_anvil

HARDFORK = "prague"  # what the contract is compiled for
CALLS = 300
"""At least; then on until everything of `WANTED` was seen, or MOST_CALLS."""
MOST_CALLS = 1500
WANTED = {
    (name, status)
    for name in (*ENTRY_POINTS.values(), "relay", "relayCalls", "spend", "mint", "createClass")
    for status in (0, 1)
}
"""Calls, and whether each took effect."""
FIRST_S = 1_900_000_000
BASE_FEE_WEI = 7
WEALTH_WEI = 1 << 128
"""Everyone's: here a transaction's gas limit alone costs 60 Gwei, hundreds of times."""
ANVIL = ("--hardfork", HARDFORK, "--gas-limit", str(TRANSACTION_GAS * 2))


@dataclass
class Story:
    """Transactions, each in a block of its own, and what anvil made of them."""

    anvil: Anvil
    model: Contract = field(default_factory=lambda: Contract(CONTRACT, CHAIN_ID))
    now_s: int = FIRST_S
    accounts: list[dict[str, Any]] = field(default_factory=list)
    """What there is before the first block."""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    receipts: list[dict[str, Any]] = field(default_factory=list)
    called: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Calls of the contract by function and status."""
    nonces: Counter[int] = field(default_factory=Counter)

    def open_account(self, address: int, code: bytes = b"") -> None:
        account = {"address": as_text(address), "balance": hex(WEALTH_WEI), "code": "0x" + code.hex() if code else ""}
        self.anvil.rpc.call("anvil_setBalance", account["address"], account["balance"])
        if code:
            self.anvil.rpc.call("anvil_setCode", account["address"], account["code"])
        self.accounts.append(account)

    def send(self, key: Key, to: int | None, data: bytes, **more: Any) -> int:
        """Have a transaction carried out in a block of its own, at the next second. Returns its status."""
        fields = {
            "chainId": CHAIN_ID,
            "nonce": self.nonces[key.address],
            "gas": TRANSACTION_GAS,
            "maxFeePerGas": BASE_FEE_WEI,
            "maxPriorityFeePerGas": 0,
            "value": 0,
            "data": data,
            **({} if to is None else {"to": to.to_bytes(20, "big")}),
            **more,
        }
        self.nonces[key.address] += 1
        raw = "0x" + bytes(Account.sign_transaction(fields, key.secret).raw_transaction).hex()
        call = self.anvil.rpc.call
        call("evm_setNextBlockTimestamp", self.now_s)
        call("anvil_setNextBlockBaseFeePerGas", hex(BASE_FEE_WEI))
        hash_ = call("eth_sendRawTransaction", raw)
        self.anvil.mine()
        receipt = call("eth_getTransactionReceipt", hash_)
        block = call("eth_getBlockByNumber", receipt["blockNumber"], False)
        header = {"number": block["number"], "timestamp": block["timestamp"], "baseFeePerGas": block["baseFeePerGas"]}
        header |= {"gasLimit": block["gasLimit"], "coinbase": block["miner"], "mixHash": block["mixHash"]}
        self.blocks.append({"header": header, "transactions": [raw]})
        self.receipts.append(receipt)
        self.now_s += 1
        return int(receipt["status"], 16)

    def delegate(self, key: Key, to: int, sender: Key) -> None:
        """Have an account run a contract's code from now on, by EIP-7702."""
        authority = {"chainId": CHAIN_ID, "address": to.to_bytes(20, "big"), "nonce": self.nonces[key.address]}
        signed = Account.sign_authorization(authority, key.secret)
        self.nonces[key.address] += 1
        assert self.send(sender, sender.address, b"", authorizationList=[signed]) == 1

    def call(self, sender: int, call: Call, gas: int = TRANSACTION_GAS) -> None:
        """A call of the contract; its status must be what the model says, unless its gas is little."""
        crowd, model = people(), self.model
        model.now_s = self.now_s
        if sender in model.ledger.puppets:
            carrier, to, data = crowd.plain[0], sender, puppets.forward(call.data())
        else:
            carrier, to, data = sender, CONTRACT, call.data()
        gas = max(gas, 21_000 + 40 * len(data))  # less is no transaction (EIP-7623)
        status = self.send(crowd.keys[carrier], to, data, gas=gas)
        if status or gas == TRANSACTION_GAS:
            outcome = model.call(sender, call)
            assert status == (not outcome.reasons), (sender, call, outcome.reasons)
        self.called[getattr(call, "name", ""), status] += 1


def tell(story: Story) -> None:
    """Deploy, delegate, and call at random."""
    crowd = people()
    keys = crowd.keys
    delegating = [address for address in crowd.puppets if address in keys]
    contracts = [address for address in crowd.puppets if address not in keys]
    story.open_account(DEPLOYER.address)
    for address in keys:
        story.open_account(address)
    for address in contracts:
        story.open_account(address, puppets.puppet_code(CONTRACT))
    assert story.send(DEPLOYER, None, artifact().bytecode) == 1
    assert int(story.receipts[0]["contractAddress"], 16) == CONTRACT
    for address in delegating:
        story.delegate(keys[address], contracts[0], keys[crowd.plain[0]])
    story.model.ledger.puppets.update((address, PuppetState()) for address in crowd.puppets)
    random = Random(1)
    choices = Choices(random, story.model, crowd)
    for draft in [choices.create_class] * 6 + [choices.mint] * 24:
        story.call(*draft())
    for made in range(MOST_CALLS):
        if made >= CALLS and story.called.keys() >= WANTED:
            break
        roll = random.random()
        story.model.now_s = story.now_s
        if roll < 0.05:
            story.now_s = max(story.now_s, choices.later())
        elif roll < 0.12:
            puppet, hook, wallet, call = choices.behaviour()
            state = story.model.ledger.puppets[puppet]
            story.model.ledger.puppets[puppet] = state._replace(hook=hook, wallet=wallet, programme=call)
            told = puppets.programme(hook, wallet, call.data() if call else b"")
            assert story.send(keys[crowd.plain[0]], puppet, told) == 1
        story.model.now_s = story.now_s
        story.call(*(choices.starved() if roll > 0.97 else choices.call()))


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with running_anvil(chain_id=CHAIN_ID, more=ANVIL) as anvil:
        told = Story(anvil)
        tell(told)
        yield told


def test_clients_agree(story: Story) -> None:
    """Status, gas used and logs of every transaction are the same, delegations and refusals included."""
    request = {"chainId": CHAIN_ID, "hardfork": HARDFORK, "accounts": story.accounts, "blocks": story.blocks}
    others = run_script("client.mjs", request)
    ours = [
        {
            "status": int(receipt["status"], 16),
            "gasUsed": int(receipt["gasUsed"], 16),
            "logs": [{field: log[field] for field in ("address", "topics", "data")} for log in receipt["logs"]],
        }
        for receipt in story.receipts
    ]
    assert len(others) == len(ours) > CALLS
    for place, (our, other) in enumerate(zip(ours, others, strict=True)):
        assert other == our, f"transaction {place} of block {story.blocks[place]['header']['number']}"


def test_the_story_has_everything(story: Story) -> None:
    """Among what both carried out, each kind of intent and of batch took effect and was refused."""
    assert set(story.called) >= WANTED
