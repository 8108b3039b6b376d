"""The stock library, put back for one fault, so that a test can show it."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pos.node import libp2p_patches
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.streams import FrameStream

IDLE_S = 0.02
"""Seconds of real time in which nothing at all happens, after which the tests' clock jumps to the next deadline."""
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def put_back(monkeypatch: pytest.MonkeyPatch, *faults: str) -> None:
    """Undo the patches of these faults until the test ends."""
    libp2p_patches.apply()
    for fault in faults:
        for owner, name, _ in libp2p_patches.PATCHES[fault]:
            original = libp2p_patches._stock[owner, name]
            if original is libp2p_patches.MISSING:
                monkeypatch.delattr(owner, name)
            else:
                monkeypatch.setattr(owner, name, original)


def run(test: Callable[..., Any], *, idle_s: float = IDLE_S) -> Any:
    """Run a test whose time passes only when nothing else happens, so that it waits for no deadline."""
    return trio.run(test, clock=MockClock(autojump_threshold=idle_s))


def host(listen: tuple[str, ...] = LOOPBACK) -> Any:
    """A host of its own identity, on loopback."""
    return open_host(Identity.new(), listen)


async def echo(stream: FrameStream) -> None:
    """A handler that sends back what comes."""
    while (frame := await stream.receive()) is not None:
        await stream.send(frame.message, frame.payload)


def library(of: Host) -> Any:
    """The library's host inside ours."""
    return of._host


def network(of: Host) -> Any:
    """The library's swarm inside our host."""
    return of._network


def library_id(of: Host) -> Any:
    """The library's peer id of our host."""
    return library(of).get_id()


def muxed(stream: FrameStream) -> Any:
    """The library's yamux stream inside ours."""
    return stream._stream._muxed  # type: ignore[attr-defined]


class Turns(trio.abc.Instrument):
    """Counts how often a task gets its turn."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.count = 0
        self._task = task

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task
