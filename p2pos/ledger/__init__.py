"""The EVM: what owners sign, their wallets, the contract, and the relayer that submits for them.

Pure: `typed_data` (EIP-712), `intents` (a signed intent and its refusals), `reverts`, `events`, `fees`. I/O: `wallet`
(keystores), `rpc` (raw JSON-RPC), `chain` (the only importer of web3, synchronous), `queue` and `relayer`, `indexer`.
`contracts` holds the ABI and the bytecode. May import `p2pos.content`, `p2pos.wire`, settings, types and errors.
Start reading at `intents`.
"""
