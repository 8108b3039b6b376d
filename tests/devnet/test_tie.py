"""A module that ends with its parent, even while it starts."""

import os
import subprocess
import sys

import psutil

from p2pos.devnet.home import Alive, outlive

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "p2pos.devnet.tie", str(os.getpid()), "timeit", "input()"])
print(child.pid, flush=True)
sys.stdin.readline()
"""


def test_an_orphan_ends() -> None:
    """A module that watches nothing itself ends when its parent is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        assert outlive([Alive(child.pid, child.create_time())], 20) == []


def test_the_module_gets_its_arguments() -> None:
    """The module runs as under `python -m`: its own arguments, its own exit code."""
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
