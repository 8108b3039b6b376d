import os

import pytest

from p2pos.errors import UserError
from p2pos.ledger import passphrase


def test_the_first_line_of_a_private_file(tmp_path):
    """The first line counts; the rest and the line end don't."""
    file = tmp_path / "passphrase"
    file.write_text("päss phrase \r\nnot this\n")
    file.chmod(0o600)
    assert passphrase.from_file(file) == "päss phrase "


def test_a_file_that_others_can_read_is_refused(tmp_path):
    """Loose permissions are refused with the command that mends them."""
    file = tmp_path / "passphrase"
    file.write_text("secret")
    file.chmod(0o644)
    with pytest.raises(UserError, match=f"chmod 600 {file}"):
        passphrase.from_file(file)


@pytest.mark.parametrize("content", [b"", b"\nsecret", b"\xff\n", b"a" * 5000])
def test_what_is_no_passphrase(tmp_path, content):
    """An empty, over-long or non-text first line is refused."""
    file = tmp_path / "passphrase"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(UserError, match="passphrase"):
        passphrase.from_file(file)


def test_a_missing_file(tmp_path):
    """A file that isn't there is named."""
    with pytest.raises(UserError, match="No such file"):
        passphrase.from_file(tmp_path / "none")


def test_a_descriptor(tmp_path):
    """An open descriptor gives the passphrase; a closed one is an error."""
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    os.close(writing)
    assert passphrase.from_descriptor(reading) == "secret"
    os.close(reading)
    with pytest.raises(UserError, match="Bad file descriptor"):
        passphrase.from_descriptor(reading)
