// Peers of another make: js-libp2p. One identifies and pings a node of ours; one finds another node in the DHT, and
// asks that for its status. Prints what they saw as one line of JSON. Usage: node client.mjs ADDRESS PEER
import { once } from 'node:events'
import { identify } from '@libp2p/identify'
import { kadDHT } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { decode, encode } from '@msgpack/msgpack'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const KAD = '/p2pos/kad/1.0.0'
const STATUS = '/p2pos/status/1.0.0'
const WITHIN = { signal: AbortSignal.timeout(60_000) }

// A frame: bytes that follow (u32), bytes of the header (u32), the header in msgpack, the payload. Big-endian.
function frame (message) {
  const header = encode(message)
  const head = new DataView(new ArrayBuffer(8))
  head.setUint32(0, 4 + header.length)
  head.setUint32(4, header.length)
  return Uint8Array.from([...new Uint8Array(head.buffer), ...header])
}

function unframe (bytes) {
  const head = new DataView(bytes.buffer, bytes.byteOffset)
  if (head.getUint32(0) !== bytes.length - 4) throw new Error('a frame of another length')
  return decode(bytes.subarray(8, 8 + head.getUint32(4)))
}

async function ask (connection, protocol, message) {
  const stream = await connection.newStream(protocol, WITHIN)
  stream.send(frame(message))
  await stream.close(WITHIN)
  const parts = []
  for await (const part of stream) parts.push(part.subarray())
  return unframe(Buffer.concat(parts))
}

function create (services) {
  return createLibp2p({
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false }, // pings every ten seconds, and hangs up when that ping is refused
    services: { identify: identify(), ping: ping(), ...services }
  })
}

// js-libp2p allows one outbound identify and one outbound ping at a time on a connection, and runs both by itself:
// identify on whatever it dials, ping before its DHT takes a peer in. So its own identify is listened to, not run
// again, and the ping is sent by a peer without a DHT. Beside the DHT's ping, the later of the two would be refused:
// ours with an error, the DHT's without a word, and then its table stays empty and finds nobody.
async function meet (address) {
  const node = await create({})
  try {
    const identified = once(node, 'peer:identify', WITHIN)
    const connection = await node.dial(multiaddr(address), WITHIN)
    const [{ detail: said }] = await identified
    const pinged = await node.services.ping.ping(connection.remotePeer, WITHIN)
    const open = connection.streams.filter(stream => stream.direction === 'outbound')
    const ends = await Promise.all(open.map(stream => once(stream, 'close', WITHIN)))
    return {
      encryption: connection.encryption,
      multiplexer: connection.multiplexer,
      agent: said.agentVersion,
      protocols: said.protocols,
      listening: said.listenAddrs.map(String),
      pinged,
      broken: ends.map(([{ error }]) => error).filter(error => error != null).map(String)
    }
  } finally {
    await node.stop()
  }
}

async function seek (address, wanted) {
  const node = await create({ dht: kadDHT({ protocol: KAD, clientMode: true, peerInfoMapper: info => info }) })
  try {
    await node.dial(multiaddr(address), WITHIN)
    const found = await node.peerRouting.findPeer(peerIdFromString(wanted), WITHIN)
    const direct = await node.dial(found.multiaddrs, WITHIN)
    const [kind, known] = await ask(direct, STATUS, ['StatusRequest', null, ''])
    return {
      peer: node.peerId.toString(),
      found: { peer: found.id.toString(), addresses: found.multiaddrs.map(String) },
      answered: { by: direct.remotePeer.toString(), kind, known: known.map(([body]) => decode(body)) }
    }
  } finally {
    await node.stop()
  }
}

const [address, wanted] = process.argv.slice(2)
console.log(JSON.stringify({ ...await meet(address), ...await seek(address, wanted) }))
