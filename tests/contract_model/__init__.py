"""The contract against a model of it: random calls to both, and what each answers must be the same.

The model (`ledger`, `movement`, `signing`, `contract`) is a state machine in plain Python, written from the contract's
documentation alone. It says of a call whether it takes effect, with which value and which events, or by which of its
rules it fails. `machine` runs the same call on the compiled contract in an EVM (revm) and compares; `choices` picks the
calls; `mutants` breaks the contract's source, one rule at a time, to see that the comparison notices. Start reading at
`contract`, then `machine`.
"""
