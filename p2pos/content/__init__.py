"""Bytes named by their hash. May import `wire`, `config`, `types`, `errors`. Start reading at `cid`.

A model's weights: `chunks`, then `exchange`.
"""
