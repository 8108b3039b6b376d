"""Which intents share a transaction, and with how much gas. Pure.

Several transfers go by `relay`, several of mixed kinds by `relayCalls`, each skipping those that fail; one alone goes
by its own function, which costs least, and reverts where it fails. Every member of a batch is granted what the dearest
of them may need, because a contract that a member calls (a receiver's hook, a wallet's ERC-1271) may burn all of it.
"""

from collections.abc import Sequence

from p2pos.ledger import calldata
from p2pos.ledger.calldata import GAS_PER_INTENT
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.queue_records import Waiting
from p2pos.ledger.typed_data import BatchTransfer, Signable, Swap, Transfer

MAX_TX_GAS = 1 << 24
"""EIP-7825: the most that one transaction may take."""
PER_ITEM = 50_000
"""Of a batch transfer or a swap, for each item: two holdings' slots, of which the receiver's may be new (22,100 by
EIP-2929 and EIP-2200), the events, the hook's arguments."""
OTHERS = 150_000
"""Of the kinds that write a record: 91,000 for a lock with all storage new, the rest for a wallet's ERC-1271."""
ALONE = 200_000
"""More for an intent that travels alone: its wallets and its receiver can do nobody else harm."""
OVERHEAD = 10_000
"""Per member, for copying it, its event where it fails and the contract's check of 63/64."""
PER_BYTE = 40
"""EIP-7623's floor, which lies above EIP-2028's 16."""
_TRANSACTION = 21_000


def grant(struct: Signable) -> int:
    """The gas that an intent of ordinary wallets can't exceed, whatever storage it finds."""
    if isinstance(struct, Transfer):
        return GAS_PER_INTENT
    if isinstance(struct, BatchTransfer):
        return GAS_PER_INTENT + PER_ITEM * len(struct.ids)
    if isinstance(struct, Swap):
        return OTHERS + PER_ITEM * (len(struct.first_gives) + len(struct.second_gives))
    return OTHERS


def cut(waiting: Sequence[Waiting], most: int, gas_limit: int) -> Sequence[Waiting]:
    """From the front as many as one transaction can carry: up to `most`, within `gas_limit`; one at least."""
    limit = min(MAX_TX_GAS, gas_limit)
    dearest = size = 0
    for at, one in enumerate(waiting[:most]):
        dearest = max(dearest, grant(one.intent.struct))
        size += _size(one.intent)
        if at and _TRANSACTION + PER_BYTE * size + (at + 2) * (dearest + OVERHEAD) > limit:
            return waiting[:at]
    return waiting[:most]


def call(intents: Sequence[SignedIntent]) -> tuple[bytes, int]:
    """The call data that carries these intents, at least one, and a gas limit that it can't exhaust."""
    if len(intents) == 1:
        data = calldata.submit(intents[0])
        return data, _TRANSACTION + PER_BYTE * len(data) + grant(intents[0].struct) + ALONE
    dearest = max(grant(intent.struct) for intent in intents)
    if all(isinstance(intent.struct, Transfer) for intent in intents):
        data = calldata.relay(intents, dearest)
    else:
        data = calldata.relay_calls([calldata.submit(intent) for intent in intents], dearest)
    return data, calldata.relay_gas(data, len(intents), dearest)


def _size(intent: SignedIntent) -> int:
    """Bytes of call data that an intent adds to a batch, rounded up."""
    if isinstance(intent.struct, Transfer):
        return 6 * 32 + 3 * 32 + len(intent.signatures[0])
    return len(calldata.submit(intent)) + 4 * 32
