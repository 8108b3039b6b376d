"""A node on the network: identity, host, streams, links, discovery, and the daemon that joins them.

`libp2p_patches` and `libp2p_yamux` mend the library, `host` wraps it, and nobody else here speaks to libp2p
(`identity` uses its keys). On top of a host, `streams` carries frames over one stream, `links` keeps one
long-lived stream per direction between neighbours, `table` believes signed announcements and `discovery` passes
them on. May import everything below the command line. Start reading at `host`.
"""
