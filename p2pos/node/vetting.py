"""A stranger's tokenizer is tried in a process of its own: `python -m p2pos.node.vetting`, its bytes on standard input.

tokenizers' Rust code panics on some malformed files and ends the whole process on others (version 0.23: a merge whose
prefix is cut within a character). Better this process than the node's, or the client's.
"""

import resource
import subprocess
import sys

import trio
from tokenizers import Tokenizer

from p2pos.errors import PeerError
from p2pos.types import PeerId

CPU_S = 60
"""Seconds of processor time. The largest tokenizer in use, 34 MB, takes some three."""
MEMORY = 8 << 30
"""Bytes of address space; the same one takes some hundred MB, and threads reserve more than they use."""
DEADLINE_S = 120.0
"""Seconds on a busy machine."""
SAMPLE = "Hello, wörld! 灯笼 \n\n\t  x=1234567890 <s></s>"


async def vet(tokenizer: bytes, *, peer: PeerId) -> None:
    """Raise PeerError where a tokenizer can't be read, or can't write and read a line."""
    command = [sys.executable, "-m", "p2pos.node.vetting"]
    with trio.move_on_after(DEADLINE_S):
        done = await trio.run_process(command, stdin=tokenizer, check=False, stderr=subprocess.DEVNULL)
        if done.returncode == 0:
            return
    raise PeerError(peer, "serves a model whose tokenizer can't be used")


def main() -> None:
    """Exit 0 where the tokenizer works; whatever else happens is its fault."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    tokenizer = Tokenizer.from_buffer(sys.stdin.buffer.read())
    for special in (True, False):
        ids = tokenizer.encode(SAMPLE, add_special_tokens=special).ids
        tokenizer.decode(ids, skip_special_tokens=special)
    tokenizer.decode(list(range(tokenizer.get_vocab_size())))


if __name__ == "__main__":
    main()
