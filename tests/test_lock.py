import subprocess
import sys
from pathlib import Path

import pytest

from p2pos import lock
from p2pos.errors import UserError

HOLD = "import sys; from pathlib import Path; from p2pos import lock; from p2pos.errors import UserError\n"
HOLD += "with lock.held(Path(sys.argv[1]), UserError('taken')): print('held', flush=True); sys.stdin.read()"


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    """While a process holds the directory, nobody else can; when it is killed, the next one can at once."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "d")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout
    assert holder.stdin
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="taken"), lock.held(tmp_path / "d", UserError("taken")):
        pass
    holder.kill()
    holder.wait(30)
    holder.stdout.close()
    holder.stdin.close()
    with lock.held(tmp_path / "d", UserError("taken")):
        assert (tmp_path / "d").is_dir()


def test_a_directory_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError, match="choose another with --home"), lock.held(tmp_path / "f", UserError("taken")):
        pass
