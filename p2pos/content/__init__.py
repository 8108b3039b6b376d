"""Bytes named by their hash. May import `wire`, `config`, `types`, `errors`. Start reading at `cid`.

Files: `unixfs` cuts them into blocks, `store` keeps them, `car` carries them. A model's weights: `chunks`. Who is asked
for what, of either: `exchange`.
"""
