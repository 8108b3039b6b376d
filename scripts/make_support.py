"""Try every model type and write p2pos/shard/support.json, the record that nodes go by. Takes a few minutes.

Run it after a change of transformers or of how models are cut, then `make docs`; read what changed in the record.
"""

import sys
from pathlib import Path

import transformers

from bench import parity, tiny_models
from p2pos.shard import support

RECORD = Path(support.__file__).parent / "support.json"


def main() -> None:
    """Write the record."""
    outcomes = parity.try_all(
        tiny_models.types(), lambda outcome: print(outcome.model_type, outcome.reason, file=sys.stderr, flush=True)
    )
    found = {outcome.model_type: support.Verdict(outcome.plan, outcome.equal, outcome.reason) for outcome in outcomes}
    RECORD.write_text(support.dump(support.Record(transformers.__version__, found)), encoding="utf-8")


if __name__ == "__main__":
    main()
