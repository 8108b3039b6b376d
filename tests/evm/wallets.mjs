// Wallets' libraries of other makes (ethers, viem): hash and sign what they are given, and judge others' signatures
// and keystores. JSON in on standard input, JSON out.
import { readFileSync } from "node:fs";
import { TypedDataEncoder, Wallet, encryptKeystoreJson, verifyTypedData } from "ethers";
import { hashTypedData, recoverTypedDataAddress } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const { intents, keystore, passphrase, key } = JSON.parse(readFileSync(0, "utf8"));

/** viem wants its numbers as BigInt where JSON has decimal strings. */
function withNumbers(value, type, types) {
  if (type.endsWith("[]")) return value.map((one) => withNumbers(one, type.slice(0, -2), types));
  if (type.startsWith("uint")) return BigInt(value);
  if (!(type in types)) return value;
  return Object.fromEntries(types[type].map((field) => [field.name, withNumbers(value[field.name], field.type, types)]));
}

const seen = [];
for (const { typed, keys, signatures } of intents) {
  const { domain, types, primaryType, message } = typed;
  const { EIP712Domain, ...named } = types;
  const forViem = { domain, types, primaryType, message: withNumbers(message, primaryType, types) };
  seen.push({
    ethers: {
      digest: TypedDataEncoder.hash(domain, named, message),
      signatures: await Promise.all(keys.map((one) => new Wallet(one).signTypedData(domain, named, message))),
      signers: signatures.map((one) => verifyTypedData(domain, named, message, one)),
    },
    viem: {
      digest: hashTypedData(forViem),
      signatures: await Promise.all(keys.map((one) => privateKeyToAccount(one).signTypedData(forViem))),
      signers: await Promise.all(signatures.map((signature) => recoverTypedDataAddress({ ...forViem, signature }))),
    },
  });
}

const opened = await Wallet.fromEncryptedJson(keystore, passphrase);
const light = { scrypt: { N: 4096, r: 8, p: 6 } }; // geth's light ones
process.stdout.write(
  JSON.stringify({
    intents: seen,
    opened: { address: opened.address, key: opened.privateKey },
    keystore: await encryptKeystoreJson(new Wallet(key), passphrase, light),
  }),
);
