"""Whether a file's bytes are what its media type says: one module per family of formats. Pure.

Each check reads a file once, forward, with no more than `reader.PIECE` bytes held (a document that is parsed whole:
`MAX_DOCUMENT`), and answers with a few words on what it is. Start reading at `p2pos.assets.files`.
"""
