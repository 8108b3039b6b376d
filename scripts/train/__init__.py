"""How the default model is made: sentences from a grammar, a tokenizer, a small Llama, all from one seed.

`python -m scripts.train` runs the whole of it and writes `p2pos/models/lantern`. Reading order: `grammar` (a line of
text with choices), `cast` (who and what a story is about), `teller` with `english` and `chinese` (how they are named
as the story goes on), `story` (which events follow which), `corpus` (many stories, split), `tokenizer`, `model`,
`training`, `evaluation`, `release` (the directory that ships). More to learn means more sections in `data/` and more
plots in `story`, or another source of texts beside `corpus.stories`; nothing after `corpus` knows what they are about.

It imports torch, transformers and tokenizers, and nothing of `p2pos`.
"""
