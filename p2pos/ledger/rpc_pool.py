"""Several end points of one chain as if they were one: failover, and a head that no single one can make up.

`rpc_quorum` decides, this does. What is asked about the newest block goes to all of them and is answered by majority;
everything else is read from one, the same one while it is good, so that answers fit each other; transactions are handed
to all. The head and the transactions travel in a thread per end point, so that one which hangs holds up only itself.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from p2pos.errors import UnavailableError, UserError
from p2pos.ledger.rpc import Rpc, RpcError
from p2pos.ledger.rpc_http import Bounds
from p2pos.ledger.rpc_quorum import State, Tip, agreed, height, heights

T = TypeVar("T")

MAX_END_POINTS = 16
"""Each costs a request at every look at the head."""
HEAD_S = 5.0
"""For one end point to name its head; whoever takes longer is put aside."""
SEND_S = 30.0
"""For one end point to take transactions."""
GRACE_S = 0.5
"""For the others once a majority has answered."""
MAX_QUEUED = 8
"""Requests that wait for one end point's thread. With more it hangs, and gets nothing until it is through."""
SEND = "eth_sendRawTransaction"
HEADER = ("hash", "parentHash", "timestamp", "baseFeePerGas", "gasLimit")
"""Of a block: what is used of it, which therefore must be the same for all who agree on it."""

Calls = Sequence[tuple[str, Sequence[Any]]]


class RpcPool:
    """End points of one chain, with the interface of `Rpc`. May be used from several threads.

    Args:
        urls: two to `MAX_END_POINTS`, all different. The first is preferred.
        chain_id: the chain that is meant; 0 takes what the majority says.
        bounds: of each request.

    Raises:
        UserError: too many, one twice, or an odd URL.

    """

    def __init__(self, urls: Sequence[str], chain_id: int = 0, bounds: Bounds | None = None) -> None:
        if len(set(urls)) < len(urls):
            raise UserError("the same end point is given twice", hint="a majority of one is none; check --rpc-url")
        if len(urls) > MAX_END_POINTS:
            raise UserError(f"{len(urls)} end points are more than {MAX_END_POINTS}", hint="give --rpc-url less often")
        self._lanes = [_Lane(Rpc(url, bounds)) for url in urls]
        self._chain_id = chain_id
        self._state = State.fresh(len(urls))
        self._lock = threading.Lock()
        self._pinned = threading.local()

    @property
    def url(self) -> str:
        """Of the end point in use."""
        return self._lanes[self._state.in_use].rpc.url

    @property
    def name(self) -> str:
        """Of the end point in use, as it may be shown to strangers."""
        return self._lanes[self._state.in_use].rpc.name

    def close(self) -> None:
        """Close all connections and end the threads."""
        for lane in self._lanes:
            lane.close()

    def call(self, method: str, *params: Any) -> Any:
        """One call's result. Raises as `Rpc.call`; UnavailableError also where no majority agrees on the head."""
        if method == "eth_chainId":
            self._head()
            return hex(self._chain_id)
        if method == "eth_blockNumber":
            return self._head()["number"]
        if method == "eth_getBlockByNumber" and params == ("latest", False):
            return self._head()
        if method == SEND:
            answer = self._send([(method, params)])[0]
            if isinstance(answer, RpcError):
                raise answer
            return answer
        return self._read(lambda rpc: rpc.call(method, *params))

    def batch(self, calls: Calls) -> list[Any]:
        """The results of many calls, in their order; one that failed is its RpcError, as a value. Raises as `call`."""
        if not calls:
            return []
        if all(method == SEND for method, _ in calls):
            return self._send(calls)
        return self._read(lambda rpc: _require_one(rpc.batch(calls)))

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """What this thread reads within comes from one end point, or UnavailableError is raised.

        The head is asked before it, not within.
        """
        if getattr(self._pinned, "index", None) is not None:
            yield
            return
        self._pinned.index = self._readers()[0]
        try:
            yield
        finally:
            self._pinned.index = None

    def health(self) -> list[dict[str, Any]]:
        """Per end point `name`, `state`, `because`, `block`, `in_use`, `requests` and `failures`.

        `state` is `good`, `behind` (it hasn't got the agreed block yet) or `aside` (it erred, hung or lied).
        """
        state, now_s = self._state, time.monotonic()
        return [
            {
                "name": lane.rpc.name,
                "state": "aside" if member.until_s > now_s else "good" if member.agrees else "behind",
                "because": member.why,
                "block": member.number,
                "in_use": index == state.in_use,
                "requests": lane.rpc.requests,
                "failures": lane.rpc.failures,
            }
            for index, (member, lane) in enumerate(zip(state.members, self._lanes, strict=True))
        ]

    # ---- reads

    def _readers(self) -> list[int]:
        """Whom to ask, best first. Raises UnavailableError where there is nobody."""
        if readers := self._state.readers(time.monotonic()):
            return readers
        self._head()
        if readers := self._state.readers(time.monotonic()):
            return readers
        raise self._none()

    def _read(self, ask: Callable[[Rpc], T]) -> T:
        """Ask one after the other until one answers.

        An error that isn't the contract's may be the end point's own (a rate limit, a state that it has dropped), so
        another is asked; where they all say so, it is the answer.
        """
        pinned = getattr(self._pinned, "index", None)
        refusal: RpcError | None = None
        for index in self._readers() if pinned is None else [pinned]:
            try:
                return ask(self._lanes[index].rpc)
            except UnavailableError as exc:
                self._strike(index, exc.message)
                if pinned is not None:
                    raise
            except RpcError as exc:
                if exc.is_revert:
                    raise
                refusal = refusal or exc
        if refusal is not None:
            raise refusal
        raise self._none()

    # ---- the head

    def _head(self) -> dict[str, Any]:
        """The newest block that a majority agrees on. Raises UnavailableError where there is none."""
        asked = self._state.due(time.monotonic())
        found = self._ask(asked, _ask_head, patience_s=HEAD_S)
        self._agree_on_chain(found)
        tips = {index: _tip(block) for index, (_, block) in found.items()}
        needed = self._state.votes_needed(len(tips))
        top = height([tip.number for tip in tips.values()], needed)
        if top is None:
            raise self._none()
        known = {index: {tip.number: found[index][1]} for index, tip in tips.items()}
        for wanted in ([top], heights(top)):  # at once where the newest is not contested, else in two steps
            self._complete(known, tips, wanted)
            for number in wanted:
                at = {index: _tip(blocks[number]).block for index, blocks in known.items() if blocks.get(number)}
                if block := agreed(at, needed):
                    with self._lock:
                        self._state = self._state.judged(tips, top, number, at, block, time.monotonic())
                    raw = next(known[index][number] for index, said in at.items() if said == block)
                    return dict(raw)
        raise UnavailableError(
            f"the chain's end points disagree about block {top} and those before it", hint="check --rpc-url"
        )

    def _agree_on_chain(self, found: dict[int, tuple[int, dict[str, Any]]]) -> None:
        """Put aside who is on another chain, and take it out of `found`."""
        wanted = self._chain_id
        if not wanted and found:
            named = agreed({index: str(id_) for index, (id_, _) in found.items()}, self._state.votes_needed(len(found)))
            wanted = self._chain_id = int(named or "0")
        for index, (id_, _) in list(found.items()):
            if id_ != wanted:
                del found[index]
                self._strike(index, f"it is on chain {id_}, not {wanted}" if wanted else f"it is on chain {id_}")

    def _complete(self, known: dict[int, dict[int, Any]], tips: dict[int, Tip], wanted: Sequence[int]) -> None:
        """Ask for the blocks of these heights that somebody must have and hasn't named yet."""
        missing = {
            index: [number for number in wanted if number <= tips[index].number and number not in blocks]
            for index, blocks in known.items()
        }

        def ask(index: int) -> Callable[[Rpc], list[Any]]:
            calls = [("eth_getBlockByNumber", (hex(number), False)) for number in missing[index]]
            return lambda rpc: _require_all(rpc.batch(calls, within_s=HEAD_S))

        lacking = [index for index, numbers in missing.items() if numbers]
        answers = self._ask(lacking, ask, patience_s=HEAD_S, per_index=True)
        for index in lacking:
            if index in answers:
                known[index].update(zip(missing[index], answers[index], strict=True))
            else:
                del known[index], tips[index]

    # ---- writes

    def _send(self, calls: Calls) -> list[Any]:
        """Hand transactions to everyone; answer once one has taken them all.

        A transaction that anyone took is taken; one that nobody did has the complaint of the first in line.
        """
        writers = self._state.writers(time.monotonic())
        futures = {index: self._lanes[index].ask(lambda rpc: rpc.batch(calls)) for index in writers}
        results: list[Any] = []
        for index in writers:
            future = futures[index]
            if future is None:
                continue
            try:
                said = future.result(GRACE_S if results else SEND_S)
            except TimeoutError:
                if not results:
                    self._strike(index, "it does not answer in time")
                continue
            except UnavailableError as exc:
                self._strike(index, exc.message)
                continue
            except RpcError as exc:
                said = [exc] * len(calls)
            results = results or said
            results = [
                new if isinstance(old, RpcError) and not isinstance(new, RpcError) else old
                for old, new in zip(results, said, strict=True)
            ]
            if not any(isinstance(one, RpcError) for one in results):
                break
        if not results:
            raise self._none()
        return results

    # ----

    def _ask(self, members: Sequence[int], ask: Any, *, patience_s: float, per_index: bool = False) -> dict[int, Any]:
        """What those say who answer in time; the others are put aside. A majority waits for the rest only briefly."""
        futures: dict[Future[Any], int] = {}
        for index in members:
            future = self._lanes[index].ask(ask(index) if per_index else ask)
            if future is not None:
                futures[future] = index
        ends_s = time.monotonic() + patience_s
        done: set[Future[Any]] = set()
        while len(done) < len(futures) and (left_s := ends_s - time.monotonic()) > 0:
            good = sum(future.exception() is None for future in done)
            if good >= self._state.needed:
                done |= wait(futures, min(GRACE_S, left_s), ALL_COMPLETED).done
                break
            done |= wait(set(futures) - done, left_s, FIRST_COMPLETED).done
        answers: dict[int, Any] = {}
        for future, index in futures.items():
            if not future.done():
                self._strike(index, "it does not answer in time")
                continue
            fault = future.exception()
            if fault is None:
                answers[index] = future.result()
            elif isinstance(fault, UnavailableError | RpcError):
                self._strike(index, fault.message)
            else:
                raise fault
        return answers

    def _strike(self, index: int, why: str) -> None:
        with self._lock:
            self._state = self._state.struck(index, why, time.monotonic())

    def _none(self) -> UnavailableError:
        """Why nobody can be asked."""
        said = "; ".join(
            member.why if lane.rpc.name in member.why else f"{lane.rpc.name}: {member.why or 'behind the others'}"
            for lane, member in zip(self._lanes, self._state.members, strict=True)
            if member.why or not member.agrees
        )
        count = len(self._lanes)
        return UnavailableError(
            f"too few of the chain's {count} end points can be believed ({said})", hint="check --rpc-url"
        )


class _Lane:
    """One end point and the thread that waits for its answers."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[Rpc], Any]] | None] = queue.Queue(MAX_QUEUED)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ask(self, call: Callable[[Rpc], T]) -> Future[T] | None:
        """Have its thread ask; None where too much waits already, because the end point hangs."""
        future: Future[T] = Future()
        try:
            self._jobs.put_nowait((future, call))
        except queue.Full:
            return None
        with self._lock:
            if self._thread is None:
                name = f"rpc {self.rpc.name}"
                self._thread = threading.Thread(
                    target=self._work, name=name, daemon=True
                )  # a hung one holds no exit up
                self._thread.start()
        return future

    def close(self) -> None:
        """Let the thread end when it is through, and close the connections."""
        try:
            self._jobs.put_nowait(None)
        except queue.Full:
            return  # it ends with the process
        self.rpc.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            try:
                result = call(self.rpc)
            except BaseException as exc:  # noqa: BLE001 - handed to whoever waits, and raised there
                future.set_exception(exc)
            else:
                future.set_result(result)


def _ask_head(rpc: Rpc) -> tuple[int, dict[str, Any]]:
    calls: Calls = [("eth_chainId", ()), ("eth_getBlockByNumber", ("latest", False))]
    chain_id, block = _require_all(rpc.batch(calls, within_s=HEAD_S))
    if block is None:
        raise UnavailableError(f"{rpc.name} has no newest block")
    return int(chain_id, 16), block


def _require_all(answers: list[Any]) -> list[Any]:
    """Raise the first error among them."""
    for answer in answers:
        if isinstance(answer, RpcError):
            raise answer
    return answers


def _require_one(answers: list[Any]) -> list[Any]:
    """Raise where all are errors of the end point's own, so that another is asked."""
    if all(isinstance(answer, RpcError) and not answer.is_revert for answer in answers):
        raise answers[0]
    return answers


def _tip(block: dict[str, Any]) -> Tip:
    return Tip(int(block["number"], 16), " ".join(str(block.get(name)).lower() for name in HEADER))


def connect(urls: Sequence[str], chain_id: int = 0, bounds: Bounds | None = None) -> "Rpc | RpcPool":
    """One end point or a pool of several. Raises UserError for odd URLs."""
    return Rpc(urls[0], bounds) if len(urls) == 1 else RpcPool(urls, chain_id, bounds)
