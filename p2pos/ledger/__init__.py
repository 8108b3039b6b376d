"""The EVM: what owners sign, their wallets, the contract, and the relayer that submits for them.

Pure: `typed_data` (EIP-712), `intents` (a signed intent and its refusals), `calldata`, `events`, `reverts`, `records`,
`transaction` and `fees` (the contract and the chain, as bytes and back), `settlement` (what became of an intent),
`batching` (which share a transaction), `lines` (a sender's nonces), `packed` (an intent in the queue). Before signing:
`plain_words` (an intent in a sentence), `deeds` (a transaction in one), `cautions` (what is unusual), `naming` (what
may be a name). Keys: `keystore`, `mnemonic`, `clef` (what an external signer says).

I/O: `signer` (who signs), `wallet` (the files of wallets), `external_signer`, `contacts`, `people` (both by name),
`private_file`, `passphrase`, `nonces`; `rpc` (JSON-RPC in arrays, from one end point or a `rpc_pool`) and
`chain` (the only importer of web3, synchronous); `queue` (what a relayer has promised), `admission` (what it takes in),
`submitter` (from queue to chain), `judge` (what became of it), `relayer` and `relayer_http` (the service), `client`;
`index` and `indexer` (events in SQLite). `contracts` holds the ABI and the bytecode.

May import `p2pos.content`, `p2pos.wire`, settings, types and errors. Start reading at `intents`, then `submitter`.
"""
