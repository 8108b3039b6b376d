"""`p2pos relayer`: the service that submits what owners have signed."""

import errno
import functools
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.table import Table
from trio_typing import TaskStatus

from p2pos import leash, log
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option, get_passphrase
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import relayer as service
from p2pos.ledger.chain import Chain
from p2pos.ledger.client import RelayerClient
from p2pos.ledger.fees import from_gwei
from p2pos.ledger.limits import Limits
from p2pos.ledger.queue import MAX_WAITING, Queue
from p2pos.ledger.relayer_http import application
from p2pos.ledger.submitter import MAX_BATCH, Submitter
from p2pos.ledger.wallet import Wallets
from p2pos.types import Address

SIGNER_WAITING = MAX_WAITING // 2
"""Nobody fills the queue alone."""
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}


@click.group()
def relayer() -> None:
    """The service that submits signed intents and pays their gas."""


@relayer.command()
@click.option("--queue", type=click.Path(path_type=Path, dir_okay=False), help="Default: relayer/queue.sqlite at home.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT, of loopback; port 0 is any free.")
@click.option(
    "--wallet",
    "names",
    multiple=True,
    default=("operator",),
    show_default=True,
    help="The wallet that pays for gas. Given several times: they send side by side. One passphrase opens them all.",
)
@click.option(
    "--max-batch", type=click.IntRange(1, MAX_BATCH), default=MAX_BATCH, show_default=True, help="Intents per batch."
)
@click.option(
    "--signer-waiting",
    type=click.IntRange(0),
    default=SIGNER_WAITING,
    show_default=True,
    help="Intents of one signer that may wait. 0: no limit.",
)
@click.option(
    "--signer-rate", type=click.FloatRange(0), default=0.0, help="Intents of one signer per minute. Default: no limit."
)
@click.option(
    "--signer-burst",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Intents of one signer that may come at once, where --signer-rate is given.",
)
@click.option("--leash", "leashed", is_flag=True, help="Shut down when standard input ends.")
@fd_option
@with_settings("rpc_url", "contract", "passphrase_file", "max_fee")
def run(
    settings: Settings,
    queue: Path | None,
    listen: str,
    names: tuple[str, ...],
    max_batch: int,
    signer_waiting: int,
    signer_rate: float,
    signer_burst: int,
    leashed: bool,
    passphrase_fd: int | None,
) -> None:
    """Run it. Prints one line of JSON when it is ready."""
    address = _loopback(listen)
    wallets = Wallets(settings.wallets)
    names = tuple(dict.fromkeys(names))
    for name in names:
        wallets.address(name)  # an unknown name is said before a passphrase is asked for
    passphrase = get_passphrase(settings, passphrase_fd, f"wallet {' and '.join(names)}")
    signers = [wallets.unlock(name, passphrase) for name in names]
    chain = Chain.connect(settings.rpc_url, chain_id=settings.chain_id, contract=settings.contract)
    if not settings.contract:
        raise UserError("no asset contract is set", hint="give --contract, or --home of a devnet")
    listener = _bind(*address)
    store = Queue(queue or settings.home / "relayer" / "queue.sqlite")
    try:
        submitter = Submitter(
            chain,
            store,
            *signers,
            confirmations=settings.confirmations,
            max_batch=max_batch,
            max_fee=from_gwei(settings.max_fee),
        )
        submitter.bind()
        limits = Limits(signer_waiting, signer_rate, signer_burst)
        relayer_ = service.Relayer(chain, store, submitter, limits=limits, process=True)
        service.spare_collector()
        trio.run(_serve, relayer_, submitter.senders, listener, leashed)
    finally:
        store.close()
        listener.close()


@relayer.command()
@json_option
@with_settings("relayer_url")
def status(settings: Settings, as_json: bool) -> None:
    """Show what a relayer has in hand."""
    summary = RelayerClient(settings.relayer_url).summary()
    if as_json:
        print_json(summary)
        return
    rows = _rows(summary)
    if sys.stdout.isatty():
        table = Table(box=None, show_header=False, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    else:
        for key, value in rows:
            click.echo(f"{key}\t{value}")


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What `status` shows, line by line."""
    since = summary["since_start"]
    refused = ", ".join(f"{count} {reason}" for reason, count in since["refused"].items() if count)
    return [
        ("chain", f"{summary['chain_id']}, block {summary['head']}, the last {summary['no_block_for_s']:.0f} s ago"),
        ("contract", summary["contract"]),
        *[("end point", _end_point(each)) for each in summary["rpc"]],
        *[
            ("sender", f"{one['address']}, coin {_coin(one['balance_wei'])}, {one['open_batches']} batches under way")
            for one in summary["senders"]
        ],
        *[(state, str(count)) for state, count in summary["intents"].items()],
        ("oldest waits", f"{summary['queue_age_s']:.0f} s; room for {summary['room']} more"),
        ("since start", f"{since['accepted']} accepted, {since['settled']} settled, {since['failed']} failed"),
        ("refused", refused or "none"),
        (
            "spent",
            f"{_coin(since['fee_wei'])} for {since['gas']} gas; {since['transactions']} transactions signed",
        ),
        ("replaced", f"{since['replacements']} transactions, by ones with a higher fee"),
        ("trouble", summary["trouble"] or "none"),
    ]


def _end_point(each: dict[str, Any]) -> str:
    words = [each["name"], each["state"]]
    if each["in_use"]:
        words.append("in use")
    if each["because"]:
        words.append(each["because"])
    return ", ".join(words)


async def _serve(relayer_: service.Relayer, senders: list[Address], listener: socket.socket, leashed: bool) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, stop)
        if leashed:
            nursery.start_soon(_stop_at_end_of_input, stop)
        await _run_service(relayer_, senders, listener, stop)
        nursery.cancel_scope.cancel()


async def _run_service(
    relayer_: service.Relayer, senders: list[Address], listener: socket.socket, stop: trio.Event
) -> None:
    app: Any = application(relayer_)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(functools.partial(service.run, relayer_, app, listener=listener, stop=stop))
        click.echo(json.dumps({"ready": True, "url": url, "senders": senders}))
        await stop.wait()
        log.get("relayer").info("stopping")


async def _stop_on_signal(stop: trio.Event, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()
            return


async def _stop_at_end_of_input(stop: trio.Event) -> None:
    await leash.let_go()
    stop.set()


def _loopback(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or not host:
        raise UserError(f"“{listen}” is not HOST:PORT", hint="for example 127.0.0.1:8080")
    if host not in LOOPBACK:
        raise UserError(
            f"a relayer listens on loopback only, not on {host}",
            hint="put a reverse proxy that limits requests in front of it",
        )
    return host, int(port)


def _bind(host: str, port: int) -> socket.socket:
    """A socket on this address. Raises UserError where the port can't be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as exc:
        listener.close()
        why = "is in use" if exc.errno == errno.EADDRINUSE else f"can't be used: {exc.strerror}"
        raise UserError(f"port {port} on {host} {why}", hint="give --listen another") from exc
    return listener


def _coin(wei: str | None) -> str:
    return "unknown" if wei is None else f"{int(wei) / 10**18:.6f}"
