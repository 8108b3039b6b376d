"""A node's key is made once, kept from others, and signs what only its peer could have said."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import PeerError, UserError
from p2pos.node.identity import Identity, verify

ONE = Identity(bytes(range(32)))


def test_known_peer_id() -> None:
    """A seed gives the peer id that any libp2p derives from it."""
    assert ONE.peer == "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"
    assert len(ONE.public_key) == 36


def test_the_same_after_a_restart(tmp_path: Path) -> None:
    """The second run finds the identity that the first one made."""
    path = tmp_path / "node" / "identity.key"
    assert Identity.load_or_create(path).peer == Identity.load_or_create(path).peer


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """The key file has mode 0600, whatever the umask, and no draft of it is left."""
    path = tmp_path / "identity.key"
    Identity.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["identity.key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602, 0o601])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    """A key that others can read, write or run is refused in one line that says what to do."""
    path = tmp_path / "identity.key"
    Identity.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(UserError, match="can be used by others") as caught:
        Identity.load_or_create(path)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda data: b"",
        lambda data: b"\x08\x02" + data[2:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:10] + bytes([data[10] ^ 1]) + data[11:],
        lambda data: b"x" * len(data),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change) -> None:
    """A key file with any byte wrong, missing or added is refused, and left as it is."""
    path = tmp_path / "identity.key"
    Identity.load_or_create(path)
    damaged = change(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged"):
        Identity.load_or_create(path)
    assert path.read_bytes() == damaged


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """A path that is no file is the user's mistake, not a traceback."""
    with pytest.raises(UserError, match="can't be used"):
        Identity.load_or_create(tmp_path)


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Processes that start at once on one path agree on one identity."""
    path = tmp_path / "identity.key"
    code = (
        "import sys; from pathlib import Path; from p2pos.node.identity import Identity; "
        "print(Identity.load_or_create(Path(sys.argv[1])).peer)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert len({process.communicate()[0] for process in started}) == 1
    assert all(process.returncode == 0 for process in started)


@given(st.binary(max_size=200))
def test_a_signature_names_its_peer(body: bytes) -> None:
    """What an identity signed is verified as that peer's."""
    assert verify(ONE.public_key, body, ONE.sign(body)) == ONE.peer


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_changed_byte_is_seen(body: bytes, data: st.DataObject) -> None:
    """One bit changed in body, signature or key makes verification fail."""
    parts = [bytearray(ONE.public_key), bytearray(body), bytearray(ONE.sign(body))]
    which = data.draw(st.integers(0, 2))
    at = data.draw(st.integers(0, len(parts[which]) - 1))
    parts[which][at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PeerError):
        verify(*(bytes(part) for part in parts))


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_noise_is_a_peer_error(key: bytes, body: bytes, signature: bytes) -> None:
    """Arbitrary bytes raise PeerError and nothing else."""
    with pytest.raises(PeerError):
        verify(key, body, signature)
