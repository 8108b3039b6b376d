"""A queue and its submitter on a real chain, without the process around them."""

from pathlib import Path

from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.queue import Queue
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.submitter import Submitter
from tests.ledger.chains import OPERATOR, Ground


class Service:
    """`restart` is what kill -9 leaves."""

    def __init__(self, ground: Ground, path: Path, *senders: KeySigner, **options: int) -> None:
        self.ground = ground
        self.path = path
        self.senders = senders or (OPERATOR,)
        self.options = options
        self.restart()

    def restart(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
        self.queue = Queue(self.path)
        self.submitter = Submitter(self.ground.chain, self.queue, *self.senders, **self.options)
        self.submitter.bind()

    def accept(self, *intents: SignedIntent) -> None:
        self.queue.accept(intents, 0.0)

    def run(self, *, most: int = 20) -> None:
        """Tick and mine until nothing is under way."""
        for _ in range(most):
            if not self.submitter.tick():
                return
            self.ground.anvil.mine()
        raise AssertionError(f"still under way: {self.queue.counts()}")

    def states(self, *intents: SignedIntent) -> list[str]:
        return [self.queue.status(intent.id).state for intent in intents]
