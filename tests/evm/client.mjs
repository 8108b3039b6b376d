// An Ethereum client of another make (EthereumJS): carries out transactions, block by block, and tells what came of
// each. JSON in on standard input, JSON out.
import { readFileSync } from "node:fs";
import { createBlock } from "@ethereumjs/block";
import { Common, Mainnet } from "@ethereumjs/common";
import { createTxFromRLP } from "@ethereumjs/tx";
import { Account, bytesToHex, createAddressFromString, hexToBytes } from "@ethereumjs/util";
import { createVM, runTx } from "@ethereumjs/vm";

const { chainId, hardfork, accounts, blocks } = JSON.parse(readFileSync(0, "utf8"));

const common = new Common({ chain: { ...Mainnet, chainId }, hardfork });
const vm = await createVM({ common, activatePrecompiles: true });
for (const { address, balance, code } of accounts) {
  const at = createAddressFromString(address);
  await vm.stateManager.putAccount(at, new Account(0n, BigInt(balance)));
  if (code) await vm.stateManager.putCode(at, hexToBytes(code));
}

const receipts = [];
for (const { header, transactions } of blocks) {
  const block = createBlock({ header }, { common });
  for (const raw of transactions) {
    const tx = createTxFromRLP(hexToBytes(raw), { common });
    const { receipt, totalGasSpent } = await runTx(vm, { tx, block });
    receipts.push({
      status: receipt.status,
      gasUsed: Number(totalGasSpent),
      logs: receipt.logs.map(([address, topics, data]) => ({
        address: bytesToHex(address),
        topics: topics.map((topic) => bytesToHex(topic)),
        data: bytesToHex(data),
      })),
    });
  }
}
process.stdout.write(JSON.stringify(receipts));
