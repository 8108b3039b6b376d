"""What an item is, beyond a number on a ledger. No sockets, no clock, no chain.

`descriptor` is the document whose hash stands on chain, `files` and `formats` look at what it names, `library` puts
both into a store and a CAR. May import `p2pos.content` and the ledger's pure types. Start reading at `descriptor`.
"""
