"""A private swarm: its key, its cipher, and that nobody gets in without."""

import stat
from pathlib import Path

import pytest

from p2pos.errors import UnavailableError, UserError
from p2pos.node import private, swarm_key
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from tests.node.stock import LOOPBACK, echo, put_back, run

KEY = bytes(range(32))


def test_the_cipher_is_nacl_s() -> None:
    """HSalsa20 gives the key of the example in "Cryptography in NaCl" (§8)."""
    first = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d6")
    assert private.hsalsa20(first, nonce).hex() == "dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4"


def test_a_key_file(tmp_path: Path) -> None:
    """A new key's file is libp2p's format, for its owner alone, and is never written over."""
    path = tmp_path / "swarm.key"
    swarm_key.make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header, encoding, digits = path.read_text().splitlines()
    assert (header, encoding) == ("/key/swarm/psk/1.0.0/", "/base16/")
    assert swarm_key.read(path) == bytes.fromhex(digits)
    with pytest.raises(UserError, match="exists"):
        swarm_key.make(path)


@pytest.mark.parametrize(
    "text", ["", "x", "/key/swarm/psk/1.0.0/\n/base16/\nzz\n", "/key/swarm/psk/1.0.0/\n/base16/\nab"]
)
def test_no_key(tmp_path: Path, text: str) -> None:
    """A file that holds anything else is the user's mistake."""
    path = tmp_path / "swarm.key"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(UserError, match="holds no swarm key"):
        swarm_key.read(path)


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    """A key that others on the machine can read is refused, and one that isn't there."""
    path = tmp_path / "swarm.key"
    with pytest.raises(UserError, match="can't be read"):
        swarm_key.read(path)
    swarm_key.make(path)
    path.chmod(0o644)
    with pytest.raises(UserError, match="can be used by others"):
        swarm_key.read(path)


async def _join(here: bytes | None, there: bytes | None) -> None:
    async with (
        open_host(Identity.new(), LOOPBACK, swarm_key=there) as server,
        open_host(Identity.new(), swarm_key=here) as client,
    ):
        server.serve("/echo", echo)
        await client.connect_to(server.addresses[0])
        stream = await client.open(server.peer, "/echo")
        await stream.close()
        assert await stream.receive() is None


def test_with_the_key() -> None:
    """Two hosts with the same key speak to one another."""
    run(lambda: _join(KEY, KEY))


@pytest.mark.parametrize(("here", "there"), [(KEY, bytes(32)), (KEY, None), (None, KEY)])
def test_without_the_key(here: bytes | None, there: bytes | None) -> None:
    """With another key or none nobody gets in, from either side, and one line says why."""
    with pytest.raises(UnavailableError, match="is in another swarm.*--swarm-key-file"):
        run(lambda: _join(here, there))


@pytest.mark.parametrize("mended", [True, False])
def test_the_nonce_is_the_specification_s(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """The first bytes on the wire are 24 of a nonce; the stock library sends 8, for a cipher of its own."""
    if not mended:
        put_back(monkeypatch, "a private swarm's cipher is its own")
    from libp2p.network import swarm

    sent: list[bytes] = []

    class Wire:
        async def write(self, data: bytes) -> None:
            sent.append(data)

    async def body() -> None:
        await swarm.new_protected_conn(Wire(), KEY.hex()).write(b"greeting")

    run(body)
    assert len(b"".join(sent)) == (24 if mended else 8) + len(b"greeting")
