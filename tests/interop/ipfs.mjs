// IPFS's own tools against ours: reads a CAR and the files in it, and writes a CAR of a file.
//   node ipfs.mjs read FILE.car DIRECTORY   the roots and, in DIRECTORY, each root's bytes under its CID
//   node ipfs.mjs write FILE.car NAME…      a CAR whose roots are these files, cut as the profile unixfs-v1-2025 says
//   node ipfs.mjs cut FILE.car NAME CHUNK WIDTH   the same of one file, cut otherwise
import { createReadStream, createWriteStream } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CarReader, CarWriter } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { exporter } from 'ipfs-unixfs-exporter'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { sha256 } from 'multiformats/hashes/sha2'
import { equals } from 'multiformats/bytes'

async function read (car, directory) {
  const reader = await CarReader.fromIterable(createReadStream(car))
  const store = new MemoryBlockstore()
  let blocks = 0
  for await (const { cid, bytes } of reader.blocks()) {
    if (!equals((await sha256.digest(bytes)).digest, cid.multihash.digest)) throw new Error(`${cid} does not hash`)
    await store.put(cid, bytes)
    blocks += 1
  }
  const roots = (await reader.getRoots()).map(String)
  const sizes = {}
  for (const root of await reader.getRoots()) {
    const entry = await exporter(root, store)
    const pieces = []
    for await (const piece of entry.content()) pieces.push(piece)
    await writeFile(`${directory}/${root}`, Buffer.concat(pieces))
    sizes[root] = Number(entry.size)
  }
  return { version: reader.version, blocks, roots, sizes }
}

async function write (car, names, chunkSize = 1 << 20, maxChildrenPerNode = 1024) {
  const store = new MemoryBlockstore()
  const order = []
  const put = store.put.bind(store)
  store.put = (cid, bytes, options) => { order.push([cid, bytes]); return put(cid, bytes, options) }
  const options = {
    cidVersion: 1,
    rawLeaves: true,
    reduceSingleLeafToSelf: true,
    wrapWithDirectory: false,
    chunker: fixedSize({ chunkSize }),
    layout: balanced({ maxChildrenPerNode })
  }
  const roots = []
  for (const name of names) {
    for await (const entry of importer([{ content: await readFile(name) }], store, options)) roots.push(entry.cid)
  }
  const { writer, out } = CarWriter.create(roots)
  const written = pipeline(Readable.from(out), createWriteStream(car))
  for (const [cid, bytes] of order) await writer.put({ cid, bytes })
  await writer.close()
  await written
  return { roots: roots.map(String) }
}

const [what, car, ...rest] = process.argv.slice(2)
const actions = {
  read: () => read(car, rest[0]),
  write: () => write(car, rest),
  cut: () => write(car, rest.slice(0, 1), Number(rest[1]), Number(rest[2]))
}
console.log(JSON.stringify(await actions[what]()))
