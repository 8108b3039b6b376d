"""Which intents are taken in: each is checked, compared with what is here already, tried on the chain, written down.

Synchronous; runs in a thread, beside the one that submits.
"""

import time
from collections import Counter
from collections.abc import Sequence

from p2pos.errors import P2posError, UnavailableError
from p2pos.ledger.chain import Chain
from p2pos.ledger.figures import Figures
from p2pos.ledger.intents import Refusal, RefusedError, SignedIntent, check
from p2pos.ledger.limits import LimitedError, Limiter, Limits
from p2pos.ledger.queue import MAX_WAITING, Queue, Status
from p2pos.types import Address

Outcome = Status | P2posError


class Admission:
    """One queue's door."""

    def __init__(
        self,
        chain: Chain,
        queue: Queue,
        sender: Address,
        *,
        preflight: bool = True,
        limits: Limits | None = None,
        figures: Figures | None = None,
    ) -> None:
        """`sender` is who would submit; without `preflight` the chain is asked only about contract wallets."""
        self._limiter = Limiter(limits or Limits())
        self._figures = figures or Figures()
        self._chain = chain
        self._domain = chain.domain
        self._queue = queue
        self._sender = sender
        self._preflight = preflight

    def admit(self, intents: Sequence[SignedIntent], chain_s: float) -> list[Outcome]:
        """Per intent its status, once it is on disk, or why it is not taken.

        Args:
            intents: parsed and nothing more; a hundred at a time cost least.
            chain_s: the newest block's time, seconds since the epoch; 0 where none was seen.

        Raises UnavailableError or ChainError where the chain doesn't answer or the disk takes nothing: then none is.

        """
        outcomes: dict[int, Outcome] = {}
        fresh: dict[str, list[int]] = {}
        now_s = max(chain_s, time.time())
        waiting = self._waiting(len(intents))
        for index, intent in enumerate(intents):
            try:
                check(intent, self._domain, now_s=now_s, contract_wallets=None)
                known = self._known(intent)
                if known is None:
                    self._limiter.require(_signers(intent), waiting, time.monotonic())
            except (RefusedError, LimitedError) as exc:
                outcomes[index] = exc
            else:
                if known is None:
                    fresh.setdefault(intent.id, []).append(index)
                else:
                    outcomes[index] = known
        new = [intents[places[0]] for places in fresh.values()]
        found = self._refused(new, now_s)
        taken = self._take([intent for intent in new if intent.id not in found], found, waiting)
        outcomes.update((index, taken[id_]) for id_, places in fresh.items() for index in places)
        return [outcomes[index] for index in range(len(intents))]

    def _waiting(self, more: int) -> Counter[Address]:
        """How much of each signer waits, where that can matter."""
        if self._limiter.asks_who_waits(self._queue.unsettled() + more):
            return self._queue.waiting_by_signer()
        return Counter()

    def _known(self, intent: SignedIntent) -> Status | None:
        """The status of an intent that is here already and not failed; None for one that is new.

        Raises RefusedError where it was carried out, or another intent has one of its nonces.
        """
        holder = self._queue.holder(intent)
        if holder is None:
            return None
        if holder.id != intent.id:
            raise _rival(intent, holder)
        if holder.state == "settled":
            raise _replayed(holder)
        return holder

    def _take(
        self, intents: Sequence[SignedIntent], outcomes: dict[str, Outcome], waiting: Counter[Address]
    ) -> dict[str, Outcome]:
        """Write good intents down, as many as there is room for; of two that want one nonce, the first."""
        now_s = time.time()
        nonces: dict[tuple[Address, int], str] = {}
        accepted = list[SignedIntent]()
        room = self._queue.room()
        for intent in intents:
            rival = next((nonces[pair] for pair in intent.struct.signers if pair in nonces), "")
            if rival:
                outcomes[intent.id] = _rival(intent, Status(rival, "accepted", "", "", "", None, now_s))
            elif len(accepted) >= room:
                outcomes[intent.id] = UnavailableError(
                    f"{MAX_WAITING} intents are waiting already", hint="try again in a minute"
                )
            elif (over := self._over(intent, waiting)) is not None:
                outcomes[intent.id] = over
            else:
                nonces.update(dict.fromkeys(intent.struct.signers, intent.id))
                accepted.append(intent)
        if accepted:
            self._queue.accept(accepted, now_s)
            self._figures.accepted += len(accepted)
        return outcomes | {one.id: Status(one.id, "accepted", "", "", "", None, now_s) for one in accepted}

    def _over(self, intent: SignedIntent, waiting: Counter[Address]) -> LimitedError | None:
        """Why a signer may not hand in more now; where they may, the intent is counted."""
        now_s = time.monotonic()
        try:
            self._limiter.require(_signers(intent), waiting, now_s)
        except LimitedError as exc:
            return exc
        self._limiter.charge(_signers(intent), now_s)
        waiting.update(_signers(intent))
        return None

    def _refused(self, intents: Sequence[SignedIntent], now_s: float) -> dict[str, Outcome]:
        """Of new intents, those whose signatures are not good or that the contract would refuse, and why."""
        refused: dict[str, Outcome] = {}
        for intent in intents:
            try:
                check(intent, self._domain, now_s=now_s)
            except RefusedError as exc:
                refused[intent.id] = exc
        doubtful = [intent for intent in intents if intent.id in refused]
        wallets = self._chain.with_code(signer for intent in doubtful for signer, _ in intent.struct.signers)
        for intent in doubtful:
            if not wallets.isdisjoint(signer for signer, _ in intent.struct.signers):
                try:
                    check(intent, self._domain, now_s=now_s, contract_wallets=wallets)
                    del refused[intent.id]
                except RefusedError as exc:
                    refused[intent.id] = exc
        sound = [intent for intent in intents if intent.id not in refused]
        # contract wallets are always asked: their signatures are good only if they say so
        asked = sound if self._preflight else [intent for intent in sound if intent in doubtful]
        if asked and not self._chain.all_would_succeed(asked, self._sender):
            for intent, (_, revert) in zip(asked, self._chain.preflight(asked, self._sender), strict=True):
                if revert is not None:
                    refused[intent.id] = RefusedError(revert.refusal, revert.text, hint=revert.hint)
        return refused


def _signers(intent: SignedIntent) -> list[Address]:
    return [signer for signer, _ in intent.struct.signers]


def _rival(intent: SignedIntent, holder: Status) -> RefusedError:
    """The refusal of an intent one of whose nonces another one has."""
    whose = " and ".join(f"nonce {nonce} of {signer}" for signer, nonce in intent.struct.signers)
    if holder.state == "settled":
        return RefusedError(
            Refusal.REPLAYED,
            f"{whose} was already used or cancelled",
            hint="sign it again with a new nonce",
            transaction=holder.transaction,
        )
    return RefusedError(
        Refusal.CONFLICT,
        f"another intent with {whose} is here already",
        hint="sign it again with a new nonce",
        rival=holder.id,
    )


def _replayed(status: Status) -> RefusedError:
    return RefusedError(
        Refusal.REPLAYED,
        f"this intent was already carried out, in transaction {status.transaction}",
        hint="nothing moves twice; to give again, sign again",
        id=status.id,
        state=status.state,
        transaction=status.transaction,
        block=status.block,
    )
