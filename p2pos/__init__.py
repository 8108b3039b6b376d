"""p2pos: an operating system whose kernel is a language model, run by peers.

Packages, from the ground up; imports point down only (`tests/test_layers.py` holds them to it):
`errors`, `types` → `config`, `wire`, `content` → `shard`, `ledger`, `assets` → `node` → `devnet` → `cli`.
Start reading at `docs/architecture.md`.
"""

__version__ = "0.1.0"
