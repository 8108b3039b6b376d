"""Reading one EVM chain and the asset contract on it, by JSON-RPC alone. Synchronous: call it through a thread.

What only reads (the index above all, which is to run beside anything) needs no web3, which takes 25 MB; `chain.Chain`
adds to this what changes the chain. May be used from several threads at once.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

from eth_hash.auto import keccak

from p2pos.errors import ChainError, UnavailableError, UserError
from p2pos.ledger import abi, calldata, events, rpc_pool
from p2pos.ledger.contracts import artifact
from p2pos.ledger.records import Block, Header
from p2pos.ledger.rpc import Rpc, RpcError
from p2pos.ledger.rpc_http import Bounds, check_url, public_name
from p2pos.ledger.typed_data import Domain, Transfer, address, digest
from p2pos.types import Address

_HASH_TRANSFER = keccak(b"hashTransfer((address,address,uint256,uint256,uint256,uint256))")[:4]


class Reader:
    """A chain, and where `contract` is given, the asset contract on it. Make one with `connect`."""

    def __init__(self, rpc: Rpc | rpc_pool.RpcPool, chain_id: int, contract: Address | None) -> None:
        self._rpc = rpc
        self.chain_id = chain_id
        self._address = contract

    @classmethod
    def connect(
        cls,
        rpc_url: str | Sequence[str],
        *,
        chain_id: int = 0,
        contract: str = "",
        bounds: Bounds | None = None,
    ) -> Self:
        """Reach a chain and make sure that it is the one that is meant.

        Args:
            rpc_url: its JSON-RPC end point, http or https, or several: then see `rpc_pool`.
            chain_id: what it must answer; 0 takes what it says.
            contract: address of the asset contract; "" where there is none yet.
            bounds: of each request.

        Raises:
            UserError: no or an odd URL, another chain id, nothing or something else at the contract's address.
            UnavailableError: nobody answers there, or no majority agrees.

        """
        urls = [rpc_url] if isinstance(rpc_url, str) else list(rpc_url)
        if not any(urls):
            raise UserError("no chain is set", hint="give --rpc-url, or --home of a devnet")
        for url in urls:
            check_url(url)
        rpc = rpc_pool.connect(urls, chain_id, bounds)
        try:
            try:
                answered = int(rpc.call("eth_chainId"), 16)
            except UnavailableError:
                if not chain_id or len(urls) == 1:
                    raise
                # of several, those of another chain are not believed; perhaps all of them are of one and the same
                answered = int(rpc_pool.connect(urls, 0, bounds).call("eth_chainId"), 16)
                if answered == chain_id:
                    raise
        except RpcError as exc:
            raise UnavailableError(
                f"{rpc.name} doesn't answer as a chain's JSON-RPC end point", hint="check --rpc-url"
            ) from exc
        if chain_id and answered != chain_id:
            raise UserError(
                f"the chain at {public_name(urls[0])} has id {answered}, not {chain_id}",
                hint="check --rpc-url and the setting chain_id",
                wanted=chain_id,
                found=answered,
            )
        chain = cls(rpc, answered, None)
        return chain.with_contract(contract) if contract else chain

    @property
    def url(self) -> str:
        """The JSON-RPC end point, of several the one in use."""
        return self._rpc.url

    def consistent(self) -> AbstractContextManager[None]:
        """What this thread reads within comes from one end point; where that fails, UnavailableError is raised."""
        return self._rpc.consistent()

    def health(self) -> list[dict[str, Any]]:
        """The state of each end point; see `RpcPool.health`."""
        return self._rpc.health()

    @property
    def contract(self) -> Address:
        """The asset contract's address. Raises UserError where none was given."""
        if self._address is None:
            raise UserError("no asset contract is set", hint="give --contract, or --home of a devnet")
        return self._address

    @property
    def domain(self) -> Domain:
        """What intents for this contract are signed for."""
        return Domain(self.chain_id, self.contract)

    def with_contract(self, contract: str) -> Self:
        """The same chain with the asset contract at this address.

        Raises UserError where there is no code, where the code is not this version's, or where the contract would
        sign for another domain than its own address.
        """
        where = address(contract, "contract")
        code = self._rpc.call("eth_getCode", where, "latest")
        if code == "0x":
            raise UserError(
                f"there is no contract at {where} on chain {self.chain_id}", hint="check --contract and --rpc-url"
            )
        found = type(self)(self._rpc, self.chain_id, where)
        if not artifact().matches(bytes.fromhex(code[2:])) or not found._signs_for_itself():
            raise UserError(
                f"the contract at {where} is not this version's asset contract", hint="check --contract and --rpc-url"
            )
        return found

    def _signs_for_itself(self) -> bool:
        """Whether the contract's digest of a transfer is ours, so that its domain is this chain and its own address."""
        where = self.contract
        words = [abi.address_word(where), abi.address_word(where), *map(abi.word, (1, 2, 3, 4))]
        method, parameters = self._call_request(_HASH_TRANSFER + b"".join(words))
        answer = self._rpc.call(method, *parameters)
        return bytes.fromhex(answer[2:]) == digest(self.domain, Transfer(where, where, 1, 2, 3, 4))

    # ---- what the chain says

    def head(self) -> Block:
        """The newest block."""
        return Block.read(self._rpc.call("eth_getBlockByNumber", "latest", False))  # noqa: FBT003 - JSON-RPC's: no transactions

    def block_number(self) -> int:
        """The newest block's number."""
        return int(self._rpc.call("eth_blockNumber"), 16)

    def block_hashes(self, numbers: Sequence[int]) -> list[str]:
        """The hashes of the blocks with these numbers; "" for one that isn't there."""
        answers = self._rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
        return [sound(answer)["hash"] if sound(answer) else "" for answer in answers]

    def newest(self) -> Header:
        """The newest block, and which one it follows."""
        return Header.read(self._rpc.call("eth_getBlockByNumber", "latest", False))  # noqa: FBT003 - JSON-RPC's: no transactions

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """The blocks with these numbers; None for one that isn't there."""
        answers = self._rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
        return [Header.read(sound(answer)) if sound(answer) else None for answer in answers]

    def first_block(self) -> int:
        """The block in which the contract was deployed; 0 where the node no longer knows such old states."""
        low, high = 0, self.block_number()
        while low < high:
            middle = (low + high) // 2
            answer = self._rpc.batch([("eth_getCode", (self.contract, hex(middle)))])[0]
            if isinstance(answer, RpcError):
                return 0
            low, high = (middle + 1, high) if answer == "0x" else (low, middle)
        return low

    def logs(self, first: int, last: int) -> list[events.Event]:
        """The contract's events in blocks `first … last`, in order."""
        return events.decode_all(self.raw_logs(first, last))

    def raw_logs(self, first: int, last: int) -> list[Mapping[str, Any]]:
        """The contract's logs in blocks `first … last`, as the end point sent them."""
        question = {"address": self.contract, "fromBlock": hex(first), "toBlock": hex(last)}
        logs = self._rpc.call("eth_getLogs", question)
        if not isinstance(logs, list):
            raise ChainError("the chain sent logs that are none")
        return logs

    def logs_of_blocks(self, hashes: Sequence[bytes]) -> list[list[Mapping[str, Any]] | None]:
        """The contract's logs in each of these very blocks; None where the end point doesn't have the block."""
        questions = [{"address": self.contract, "blockHash": "0x" + each.hex()} for each in hashes]
        answers = self._rpc.batch([("eth_getLogs", (question,)) for question in questions])
        return [None if isinstance(answer, RpcError) else answer for answer in answers]

    # ---- what the contract says

    def balances(self, pairs: Sequence[tuple[str, int]], *, block: int | None = None) -> list[int]:
        """`balance` of many (account, class) at once, after a block; by default after the newest."""
        tag = "latest" if block is None else hex(block)
        calls = [self._call_request(calldata.balance_of(of, id_), tag=tag) for of, id_ in pairs]
        return [int(sound(answer), 16) for answer in self._rpc.batch(calls)]

    def views(self, calls: Sequence[bytes], block: int) -> list[bytes]:
        """What the contract answers to calls, after a block. Raises ChainError where the end point no longer knows."""
        answers = self._rpc.batch([self._call_request(call, tag=hex(block)) for call in calls])
        for answer in answers:
            if isinstance(answer, RpcError):
                raise ChainError(
                    f"the end point does not say what the contract held after block {block}: {answer.text}",
                    hint="it may keep only the newest states: verify at a newer block, or use an archive node",
                ) from answer
        return [bytes.fromhex(answer[2:]) for answer in answers]

    def _call_request(
        self, data: bytes, sender: str = "", tag: str = "latest", *, gas: int = 0
    ) -> tuple[str, Sequence[Any]]:
        request = {"to": self.contract, "data": "0x" + data.hex(), **({"from": sender} if sender else {})}
        if gas:
            request["gas"] = hex(gas)
        return "eth_call", (request, tag)


def sound(answer: Any) -> Any:
    """A batch's answer, or the error that it is, raised."""
    if isinstance(answer, RpcError):
        raise answer
    return answer
