// A peer of another make: js-libp2p. Dials a node of ours, finds another one in the DHT, and asks that one for its
// status. Prints what it saw as one line of JSON. Usage: node client.mjs ADDRESS PEER
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

// It identifies whom it dials by itself, one at a time, and keeps the answer.
async function identified (node, connection) {
  for (;;) {
    const peer = await node.peerStore.get(connection.remotePeer).catch(() => null)
    if (peer?.metadata.has('AgentVersion')) return peer
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

const [address, wanted] = process.argv.slice(2)
const node = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    dht: kadDHT({ protocol: KAD, clientMode: true, peerInfoMapper: info => info })
  }
})
try {
  const connection = await node.dial(multiaddr(address), WITHIN)
  const said = await identified(node, connection)
  const pinged = await node.services.ping.ping(connection.remotePeer, WITHIN)
  const found = await node.peerRouting.findPeer(peerIdFromString(wanted), WITHIN)
  const direct = await node.dial(found.multiaddrs, WITHIN)
  const [kind, known] = await ask(direct, STATUS, ['StatusRequest', null, ''])
  console.log(JSON.stringify({
    peer: node.peerId.toString(),
    encryption: connection.encryption,
    multiplexer: connection.multiplexer,
    agent: new TextDecoder().decode(said.metadata.get('AgentVersion')),
    protocols: said.protocols,
    listening: said.addresses.map(each => String(each.multiaddr)),
    pinged,
    found: { peer: found.id.toString(), addresses: found.multiaddrs.map(String) },
    answered: { by: direct.remotePeer.toString(), kind, known: known.map(([body]) => decode(body)) }
  }))
} finally {
  await node.stop()
}
