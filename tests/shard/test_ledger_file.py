from pathlib import Path

from p2pos.shard.ledger_file import LedgerFile


def lines_of(file: LedgerFile) -> list[bytes]:
    found: list[bytes] = []
    file.read(found.append)
    return found


def test_each_line_is_read_once_by_each_reader(tmp_path: Path) -> None:
    """Whoever appends, every reader is told of every line, in order and once."""
    path = tmp_path / "ledger"
    one, other = LedgerFile(path), LedgerFile(path)
    assert lines_of(one) == []
    one.append([b"a\n", b"b\n"])
    assert lines_of(other) == [b"a", b"b"]
    other.append([b"c\n"])
    assert lines_of(one) == [b"a", b"b", b"c"]
    assert lines_of(other) == [b"c"]


def test_half_a_line_is_waited_for(tmp_path: Path) -> None:
    """What has no end yet is told when it has."""
    path = tmp_path / "ledger"
    path.write_bytes(b"whole\nhal")
    file = LedgerFile(path)
    assert lines_of(file) == [b"whole"]
    with path.open("ab") as more:
        more.write(b"f\n")
    assert lines_of(file) == [b"half"]
