"""A local network of real processes: a chain, a relayer, nodes.

Start reading at `supervisor`: it owns every process. `plan` says what is started, `processes` how one process
is started and ended, `control` how `status`, `kill`, `start` and `down` reach a running supervisor, `tools`
where the chain's binary comes from. May import everything below the command line.
"""
