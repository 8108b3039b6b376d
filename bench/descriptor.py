"""Descriptors: how many are made canonical and hashed in a second, and whether a changed byte is ever believed.

What is timed, on one thread: of each of a few hundred descriptors that were made before (a name, a description, twelve
attributes, units, four files: some 1,300 bytes), the canonical JSON is written and its sha2-256 taken. Making them,
which checks every field, is not in it, nor is reading.

A trial changes one byte of such a document into any other and reads it against the digest that stands on chain.
"""

import hashlib
import random
import time

import rfc8785

from bench import harness
from bench.harness import Figures
from p2pos.assets.descriptor import Descriptor
from p2pos.content import cid
from p2pos.errors import InternalError, UserError

KINDS = 200
"""Different descriptors, so that no cache is warmer than a ledger's would be."""
ROUND_S = 1.0
FLIPS = 50_000
ROLES = {"model": "model/gltf-binary", "image": "image/png", "lod-1": "model/gltf-binary", "audio": "audio/ogg"}
DESCRIPTION = "A lantern of bronze, dented, that has seen more caves from within than its bearer. 青銅のランタン."


def run(figures: Figures, *, quick: bool, device: str) -> int:  # noqa: ARG001 - nothing here runs on a device
    """Measure, and fill the figures. Returns how often."""
    chance = random.Random(5)
    made = [_descriptor(chance, number) for number in range(KINDS)]
    documents = [each.canonical() for each in made]
    if any(rfc8785.dumps(each.model_dump(mode="json")) != data for each, data in zip(made, documents, strict=True)):
        raise InternalError("a descriptor's canonical form is not RFC 8785's")
    repeats = 3 if quick else 9
    rates = [_rate(made) for _ in range(repeats)]
    figures.median("per_s", rates)
    harness.progress(f"{rates[-1]:,.0f} a second")
    flips = 10_000 if quick else FLIPS
    accepted = sum(_is_believed(chance, *chance.choice(list(zip(made, documents, strict=True)))) for _ in range(flips))
    figures.exact(flips=flips, flips_accepted=accepted, bytes_mean=sum(map(len, documents)) // KINDS)
    return repeats


def _descriptor(chance: random.Random, number: int) -> Descriptor:
    attributes: dict[str, bool | int | str] = {}
    units = {}
    for index in range(12):
        key = f"{chance.choice(('light', 'mass', 'craft', 'lore', 'wear'))}_{index}"
        attributes[key] = chance.choice((True, chance.randrange(1 << 40), "dented", "seltsam geprägt"))
        if type(attributes[key]) is int:
            units[key] = "g"
    files = [
        {"role": role, "cid": cid.of(chance.randbytes(8)), "size": chance.randrange(1 << 24), "media_type": media_type}
        for role, media_type in ROLES.items()
    ]
    named = {"name": f"Bronze Lantern {number}", "description": DESCRIPTION}
    return Descriptor.make(**named, attributes=attributes, units=units, files=files)


def _rate(made: list[Descriptor]) -> float:
    """Descriptors in a second."""
    count = 0
    began_s = time.perf_counter()
    while (now_s := time.perf_counter()) < began_s + ROUND_S:
        for each in made:
            hashlib.sha256(each.canonical()).digest()
        count += len(made)
    return count / (now_s - began_s)


def _is_believed(chance: random.Random, original: Descriptor, data: bytes) -> bool:
    spoilt = bytearray(data)
    spoilt[chance.randrange(len(spoilt))] ^= chance.randrange(1, 256)
    try:
        Descriptor.parse(bytes(spoilt), original.digest())
    except UserError:
        return False
    return True
