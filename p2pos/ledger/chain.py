"""One EVM chain and the asset contract on it. The only importer of web3. Synchronous: call it through a thread.

web3's asynchronous client does not run under trio. A `Chain` may be used from several threads at once. What comes
in hundreds (`preflight`, `receipts`, `send_raw`) travels as JSON arrays through `rpc`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from eth_typing import ChecksumAddress, HexStr
from web3 import Web3
from web3.exceptions import ContractLogicError, TimeExhausted, Web3Exception, Web3RPCError
from web3.providers import BaseProvider
from web3.types import RPCEndpoint, RPCResponse, TxParams

from p2pos.errors import ChainError, UnavailableError, UserError
from p2pos.ledger import abi, batching, calldata, events, rpc_pool
from p2pos.ledger.contracts import artifact
from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.reader import Reader, sound
from p2pos.ledger.records import ClassInfo, Look, Preflight, Receipt, refused
from p2pos.ledger.reverts import Revert, Reverts
from p2pos.ledger.rpc import Rpc, RpcError, revert_data
from p2pos.ledger.signer import SignedTransaction, Signer
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import Lock
from p2pos.types import Address, Wei

RECEIPT_TIMEOUT_S = 180.0
"""For one transaction. Fifteen Ethereum slots of 12 s."""
MAX_TURNS = 5
"""Tries to find an account's next nonce free: the devnet's operator mints while it relays, a block or two apart."""
RECEIPT_POLL_S = 0.1
"""Between two looks for a receipt."""


class Chain(Reader):
    """A chain, and where `contract` is given, the asset contract on it. Make one with `connect`."""

    def __init__(self, rpc: Rpc | rpc_pool.RpcPool, chain_id: int, contract: Address | None) -> None:
        super().__init__(rpc, chain_id, contract)
        self._w3 = Web3(_Provider(rpc), middleware=[])
        self._contract = self._w3.eth.contract(_web3(contract), abi=artifact().abi) if contract else None
        self.reverts = Reverts(artifact().abi)

    # ---- what the chain says

    def look(self, accounts: Sequence[Address], block: int | None) -> Look:
        """The newest block, and what a relayer needs to know beside it.

        Args:
            accounts: whose nonces are wanted.
            block: the number of a block whose hash is wanted, or None.

        """
        calls: list[tuple[str, Sequence[Any]]] = [("eth_maxPriorityFeePerGas", ())]
        calls += [("eth_getTransactionCount", (one, tag)) for one in accounts for tag in ("latest", "pending")]
        if block is not None:
            calls.append(("eth_getBlockByNumber", (hex(block), False)))
        head = self.head()
        answers = self._rpc.batch(calls)
        return Look.read(head, answers[-1] if block is not None else None, accounts, answers[1:], answers[0])

    def native_balance(self, of: str) -> Wei:
        """The chain's own coin, which pays for gas."""
        with self._errors():
            return Wei(self._w3.eth.get_balance(_web3(of)))

    def has_code(self, of: str) -> bool:
        """Whether an account is a contract, or an ordinary one that lends itself to one (EIP-7702)."""
        with self._errors():
            return bool(self._w3.eth.get_code(_web3(of)))

    def nonce(self, of: str, *, pending: bool = False) -> int:
        """How many transactions this account has sent: in blocks, or with `pending` in the pool as well."""
        with self._errors():
            return int(self._w3.eth.get_transaction_count(_web3(of), "pending" if pending else "latest"))

    def fees(self) -> Fees:
        """What to offer now."""
        with self._errors():
            return Fees.suggest(self.head().base_fee, self._w3.eth.max_priority_fee)

    def receipts(self, transactions: Sequence[str]) -> list[Receipt | None]:
        """What became of transactions; None for one that is in no block."""
        answers = self._rpc.batch([("eth_getTransactionReceipt", (one,)) for one in transactions])
        return [Receipt.read(sound(answer), self._address) if sound(answer) else None for answer in answers]

    def are_known(self, transactions: Sequence[str]) -> list[bool]:
        """Which of these the node has, in a block or in its pool."""
        answers = self._rpc.batch([("eth_getTransactionByHash", (one,)) for one in transactions])
        return [sound(answer) is not None for answer in answers]

    def class_events(self, id_: int) -> list[events.Event]:
        """How a class was made and updated, in order. Raises RpcError where the end point won't say it at all."""
        topics = [[events.CLASS_CREATED, events.CLASS_UPDATED], f"0x{id_:064x}"]
        first, head = self.first_block(), self.block_number()
        span = max(1, head - first + 1)  # public end points have a bound of their own, and say so
        found: list[events.Event] = []
        while first <= head:
            last = min(head, first + span - 1)
            question = {"address": self.contract, "fromBlock": hex(first), "toBlock": hex(last), "topics": topics}
            try:
                found += events.decode_all(self._rpc.call("eth_getLogs", question))
            except RpcError:
                if span == 1:
                    raise
                span //= 2
                continue
            first = last + 1
        return found

    # ---- what the contract says

    def balance(self, of: str, id_: int) -> int:
        """How many items of a class an account holds, locked ones included."""
        return int(self._view("balanceOf", of, id_))

    def item_class(self, id_: int) -> ClassInfo | None:
        """A class, or None where there is none with this id."""
        return ClassInfo.read(self._view("classOf", id_))

    def pending_update(self, id_: int) -> tuple[bytes, int]:
        """The descriptor's digest that was announced for a class, and from when on it may be applied; b"" for none."""
        digest_, due = self._view("pendingUpdateOf", id_)
        return (bytes(digest_) if due else b""), int(due)

    def mint_allowance(self, id_: int, minter: str) -> int:
        """How many more of a class this minter may make; its issuer may anyway."""
        return int(self._view("mintAllowance", id_, minter))

    def spend_allowance(self, owner: str, id_: int, world: str) -> tuple[int, int]:
        """How much a world may still take of an owner's items, and until when (seconds since the epoch)."""
        left, until = self._view("spendAllowance", owner, id_, world)
        return int(left), int(until)

    def locked(self, of: str, id_: int) -> int:
        """How many of an account's items can't move now."""
        return int(self._view("lockedOf", of, id_))

    def lock_of(self, of: str, id_: int, world: str) -> tuple[int, int]:
        """The amount that a world holds of an account's items, and until when (seconds since the epoch)."""
        amount, until = self._view("lockOf", of, id_, world)
        return int(amount), int(until)

    def is_nonce_used(self, owner: str, nonce: int) -> bool:
        """Whether an intent with this nonce took effect or was cancelled."""
        return bool(self._view("isNonceUsed", owner, nonce))

    def preflight(self, intents: Sequence[SignedIntent], sender: str) -> list[Preflight]:
        """What the contract would say to each intent, alone, at the newest block, if `sender` submitted it.

        Raises RpcError where the end point could try none of them, as when it is overloaded.
        """
        with_code = self.with_code(signer for intent in intents for signer, _ in intent.struct.signers)
        calls = [self._call_request(data, sender, gas=gas) for data, gas in (batching.call([one]) for one in intents)]
        reverts = self._tried(self._rpc.batch(calls))
        return [
            Preflight(frozenset(signer for signer, _ in intent.struct.signers if signer in with_code), revert)
            for intent, revert in zip(intents, reverts, strict=True)
        ]

    def _tried(self, answers: Sequence[Any]) -> list[Revert | None]:
        """What became of each of several calls. Raises RpcError where the end point could try none.

        One that it could not try while others went well burns more gas, or time, than is granted: its own fault.
        """
        reverts: list[Revert | None] = []
        strange: RpcError | None = None
        for answer in answers:
            try:
                reverts.append(self._refusal(answer) if isinstance(answer, RpcError) else None)
            except RpcError as exc:
                strange = exc
                reverts.append(Revert("", f"the chain can't carry it out ({exc.text[:100]})"))
        if strange is not None and all(isinstance(one, RpcError) and one.text == strange.text for one in answers):
            raise strange
        return reverts

    def with_code(self, accounts: Iterable[Address]) -> frozenset[Address]:
        """Which of these accounts have code, so that ERC-1271 decides on a signature that is not by their key."""
        asked = sorted(set(accounts))
        answers = self._rpc.batch([("eth_getCode", (account, "latest")) for account in asked])
        return frozenset(
            [account for account, code in zip(asked, answers, strict=True) if sound(code) not in {"0x", None}]
        )

    def all_would_succeed(self, intents: Sequence[SignedIntent], sender: str) -> bool:
        """Whether one batch of all these intents would carry out every one, at the newest block."""
        if not intents:
            return True
        data, gas = batching.call(intents)
        answer = self._rpc.batch([self._call_request(data, sender, gas=gas)])[0]
        if isinstance(answer, RpcError):
            return False
        # one alone goes by its own function, which answers nothing; where there is no contract, nothing is answered
        return len(intents) > 1 and answer == "0x" + abi.word(len(intents)).hex()

    # ---- what changes the chain; each signs, sends and waits for the receipt

    def deploy(self, signer: Signer) -> Address:
        """Deploy the asset contract. Raises as `transact`."""
        receipt = self.transact(signer, artifact().bytecode, to=None)
        if receipt.contract is None:
            raise ChainError("the deployment made no contract", transaction=receipt.transaction)
        return receipt.contract

    def create_class(self, signer: Signer, salt: bytes, terms: Terms, digest_: bytes) -> int:
        """Make a class of items and return its id.

        Args:
            signer: its issuer, who alone can mint or let others mint.
            salt: 32 bytes; the same issuer with the same salt would be the same class.
            terms: what is fixed for good.
            digest_: sha2-256 of the descriptor.

        """
        self.transact(signer, calldata.create_class(salt, terms, digest_))
        return calldata.class_id(signer.address, salt)

    def mint(self, signer: Signer, to: str, id_: int, amount: int) -> Receipt:
        """Make items of a class that the signer issued, or may mint."""
        return self.transact(signer, calldata.mint(to, id_, amount))

    def transfer(self, signer: Signer, to: str, id_: int, amount: int) -> Receipt:
        """The signer's own items, by a transaction that the signer pays for: no intent, no relayer."""
        return self.transact(signer, calldata.safe_transfer_from(signer.address, to, id_, amount, b""))

    def submit(self, signer: Signer, intent: SignedIntent) -> Receipt:
        """Carry out a signed intent of anyone's; the signer pays the gas."""
        return self.transact(signer, calldata.submit(intent))

    def relay(self, signer: Signer, intents: Sequence[SignedIntent]) -> Receipt:
        """Carry out transfers of anyone's, skipping those that fail (`IntentFailed` among the events)."""
        data = calldata.relay(intents)
        return self.transact(signer, data, gas=calldata.relay_gas(data, len(intents)))

    def cancel(self, signer: Signer, nonce: int) -> Receipt:
        """Make a nonce of the signer's unusable, so that an intent that is out there can't take effect."""
        return self.transact(signer, calldata.cancel(nonce))

    def unlock(self, signer: Signer, owner: str, world: str, id_: int) -> Receipt:
        """Release a lock: the world at any time, anyone once it has run out."""
        return self.transact(signer, calldata.unlock(owner, world, id_))

    def lock(self, signer: Signer, lock: Lock, signature: bytes) -> Receipt:
        """Carry out an owner's signed lock; the signer pays the gas."""
        return self.submit(signer, SignedIntent.of(self.domain, lock, signature))

    def transact(self, signer: Signer, data: bytes, *, to: str | None = "", gas: int = 0) -> Receipt:
        """Sign and send one transaction, and wait until it is in a block.

        Args:
            signer: who pays.
            data: call data, or for `to` None the code to deploy.
            to: the called contract; "" is the asset contract.
            gas: the limit; 0 asks the chain and adds a quarter.

        Raises:
            RevertError: the contract refuses; nothing was sent, unless others came first.
            UserError: the signer can't pay for the gas.
            UnavailableError: the chain is gone, or has not taken it into a block in time.

        """
        target = self.contract if to == "" else to
        request: dict[str, Any] = {"from": signer.address, "data": "0x" + data.hex()}
        if target is not None:
            request["to"] = target
        with self._errors():
            limit = gas or self._w3.eth.estimate_gas(_transaction(request)) * 5 // 4
            fees = self.fees()
            if (funds := self.native_balance(signer.address)) < limit * fees.max_fee:
                raise UserError(
                    f"{signer.address} has {funds} wei, and this may take {limit * fees.max_fee} wei of gas",
                    hint="send it some of the chain's coin, or let a relayer submit",
                )
            signed = self._send_in_turn(signer, data, target, limit, fees)
            self._w3.eth.wait_for_transaction_receipt(HexStr(signed.hash), RECEIPT_TIMEOUT_S, RECEIPT_POLL_S)
        receipt = self.receipts([signed.hash])[0]
        if receipt is None:
            raise ChainError(f"transaction {signed.hash} was in a block and no longer is", hint="the chain reorganised")
        if not receipt.succeeded:
            raise refused(self._why_failed(request, receipt.block))
        return receipt

    def _send_in_turn(self, signer: Signer, data: bytes, target: str | None, gas: int, fees: Fees) -> SignedTransaction:
        """Sign with the account's next nonce and send; anew where another process took that nonce meanwhile."""
        nonce = self.nonce(signer.address, pending=True)
        for _ in range(MAX_TURNS):
            fields = self.transaction_fields(data, to=target, nonce=nonce, gas=gas, fees=fees)
            signed = signer.sign_transaction(fields)
            complaint = self.send_raw([signed.raw])[0]
            if not complaint:
                return signed
            taken, nonce = nonce, self.nonce(signer.address, pending=True)
            # a second end point, or a repeated request, complains of what the first has taken: then it's this very one
            if self.are_known([signed.hash])[0]:
                return signed
            if nonce == taken:
                break
        raise ChainError(f"the chain does not take the transaction: {complaint}", hint="try again in a minute")

    def transaction_fields(self, data: bytes, *, to: str | None, nonce: int, gas: int, fees: Fees) -> dict[str, Any]:
        """The fields of an EIP-1559 transaction as `Signer.sign_transaction` takes them."""
        return {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": nonce,
            "to": to or b"",
            "value": 0,
            "data": data,
            "gas": gas,
            "maxFeePerGas": fees.max_fee,
            "maxPriorityFeePerGas": fees.priority,
        }

    def send_raw(self, transactions: Sequence[bytes]) -> list[str]:
        """Hand signed transactions to the pool, in order. Per transaction "", or the node's complaint."""
        answers = self._rpc.batch([("eth_sendRawTransaction", ("0x" + raw.hex(),)) for raw in transactions])
        return [answer.text if isinstance(answer, RpcError) else "" for answer in answers]

    # ----

    def _view(self, name: str, *arguments: Any) -> Any:
        if self._contract is None:
            return self.contract  # raises: none is set
        with self._errors():
            return self._contract.get_function_by_name(name)(*arguments).call()

    def _refusal(self, error: RpcError) -> Revert:
        if not error.data and error.code != 3:
            raise error
        return self.reverts.read(error.data)

    def _why_failed(self, request: dict[str, Any], block: int) -> Revert:
        """Play a failed transaction again on its block's parent to learn the reason."""
        answer = self._rpc.batch([("eth_call", (request, hex(block - 1)))])[0]
        if isinstance(answer, RpcError):
            return self._refusal(answer)
        return Revert("", "the transaction failed in its block; it may have run out of gas")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn web3's errors into ours."""
        try:
            yield
        except ContractLogicError as exc:
            raise refused(self.reverts.read(revert_data(exc.data))) from exc
        except TimeExhausted as exc:
            raise UnavailableError(
                f"the transaction is in no block after {RECEIPT_TIMEOUT_S:.0f} s",
                hint="it may still get in; look later",
            ) from exc
        except Web3RPCError as exc:
            error = (exc.rpc_response or {}).get("error")
            raise RpcError(str(error.get("message") if isinstance(error, dict) else exc.message)) from exc
        except (Web3Exception, ValueError) as exc:
            raise UnavailableError(
                f"{self._rpc.name} doesn't answer as a chain's JSON-RPC end point ({type(exc).__name__})",
                hint="check --rpc-url",
            ) from exc


class _Provider(BaseProvider):
    """Carries what web3 asks by itself to our end points, with their bounds and their failover."""

    def __init__(self, rpc: Rpc | rpc_pool.RpcPool) -> None:
        super().__init__()
        self._rpc = rpc

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """The answer in JSON-RPC's form. Raises UnavailableError."""
        try:
            return {"jsonrpc": "2.0", "id": 0, "result": self._rpc.call(method, *params)}
        except RpcError as exc:
            error = {"code": exc.code, "message": exc.text}
            if exc.is_revert:
                error["data"] = "0x" + exc.data.hex()
            return cast("RPCResponse", {"jsonrpc": "2.0", "id": 0, "error": error})


def set_native_balance(rpc_url: str, of: str, wei: int) -> None:
    """On a development chain (anvil), give an account coin out of nothing. Raises RpcError elsewhere."""
    rpc = Rpc(rpc_url)
    try:
        rpc.call("anvil_setBalance", of, hex(wei))
    finally:
        rpc.close()


def _web3(text: str) -> ChecksumAddress:
    return Web3.to_checksum_address(text)


def _transaction(fields: dict[str, Any]) -> TxParams:
    return cast("TxParams", fields)
