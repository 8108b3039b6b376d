"""A module that ends with its parent, even while it starts."""

import subprocess
import sys

import psutil

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "p2pos.devnet.tie", sys.argv[1], "timeit", "-n1", "-r1", "input()"])
print(child.pid, flush=True)
sys.stdin.readline()
"""


def test_an_orphan_ends() -> None:
    """A module that watches nothing itself ends when its parent is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.replace("sys.argv[1]", "str(__import__('os').getpid())")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        _, alive = psutil.wait_procs([child], timeout=20)
        assert all(each.status() == psutil.STATUS_ZOMBIE for each in alive)


def test_the_module_gets_its_arguments() -> None:
    """The module runs as under `python -m`: its own arguments, its own exit code."""
    import os

    done = subprocess.run(
        [sys.executable, "-m", "p2pos.devnet.tie", str(os.getpid()), "p2pos", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("p2pos")
    done = subprocess.run(
        [sys.executable, "-m", "p2pos.devnet.tie", str(os.getpid()), "p2pos", "nonsense"], check=False
    )
    assert done.returncode == 2
