"""What an item is, beyond a number on a ledger. Pure.

`descriptor` is the document whose hash stands on chain. May import `p2pos.content` and the ledger's pure types.
"""
