"""A signer whose key is with another program: Clef, or what speaks its JSON-RPC, and the hardware wallets behind it.

Each request waits for a person who reads and confirms, on a screen that this program does not control. What comes
back is checked (`clef`) before anyone sees it. Synchronous; one request at a time.
"""

import http.client
import itertools
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from p2pos.content import strict_json
from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.ledger import clef
from p2pos.ledger.signer import SignedTransaction
from p2pos.ledger.typed_data import Domain, Signable
from p2pos.types import Address

CONFIRM_S = 300.0
"""How long a person has: to fetch the device, unlock it, read page after page, and press."""
CONNECT_S = 5.0
"""It is on this machine."""
VERSION_S = 10.0
"""For `account_version`, which asks nobody."""
MAX_ANSWER = 2 << 20
"""Bytes. A transaction of 128 KiB comes back twice, in hex."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
UNIX = "unix:"
DENIED = -32000
"""The code with which Clef says “request denied”."""


def end_point_of(url: str | None, ipc: Path | None) -> str:
    """The end point that one of two options means. Raises UserError where it can't be one."""
    if (url is None) == (ipc is None):
        raise UserError("give either --url or --ipc")
    if ipc is not None:
        return UNIX + str(ipc.absolute())
    parts = urlsplit(str(url))
    try:
        sound = parts.scheme == "http" and parts.hostname is not None and (parts.port or 80) > 0
    except ValueError:  # a port that is none
        sound = False
    if not sound or parts.username is not None:
        raise UserError(f"“{url}” is not an http URL", hint="for example http://127.0.0.1:8550")
    if parts.hostname not in LOOPBACK:
        raise UserError(
            f"an external signer is on this machine, not at {parts.hostname}",
            hint="what is signed would travel unencrypted; forward a port, for example with ssh -L",
        )
    return str(url)


class ExternalSigner:
    """One account of an external signer."""

    def __init__(
        self,
        name: str,
        address: Address,
        end_point: str,
        *,
        tell: Callable[[str], None],
        confirm_s: float = CONFIRM_S,
    ) -> None:
        """Nothing is asked of it yet.

        Args:
            name: what the wallet is called here.
            address: the account; signatures of another are refused.
            end_point: as `end_point_of` gives it.
            tell: shows a line to the person who must confirm.
            confirm_s: seconds to wait for that person.

        """
        self._address = address
        self._end_point = end_point
        self._tell = tell
        self._confirm_s = confirm_s
        self._where = f"the signer at {end_point}"
        self._name = name
        self._ids = itertools.count(1)

    @property
    def address(self) -> Address:
        """The account's."""
        return self._address

    def check(self) -> str:
        """Make sure that the signer is there and has the account. Returns its API's version.

        Raises UserError where it hasn't, and as `sign_typed`.
        """
        version = self._call("account_version", [], VERSION_S)
        if not isinstance(version, str) or not version.isprintable():
            raise PeerError(self._where, f"{self._where} is none: it states no version")
        listed = clef.accounts(self._ask("account_list", []), self._where)
        if self._address not in listed:
            raise UserError(
                f"{self._where} shows no account {self._address}",
                hint=f"it shows {', '.join(listed[:5]) or 'none'}; check --address",
            )
        return version[:40]

    def sign_typed(self, domain: Domain, struct: Signable) -> bytes:
        """The 65 bytes (r, s, v) over the struct's EIP-712 digest.

        Raises:
            UserError: the person refused.
            UnavailableError: the signer is not there, or nobody confirmed in time.
            PeerError: it answered nonsense, or signed something else or with another account.

        """
        answer = self._ask("account_signTypedData", [self._address, clef.typed_data(domain, struct)])
        return clef.signature(answer, domain, struct, self._address, self._where)

    def sign_transaction(self, fields: dict[str, Any]) -> SignedTransaction:
        """Sign an EIP-1559 transaction, given in the fields of `Chain.transaction_fields`. Raises as `sign_typed`."""
        answer = self._ask("account_signTransaction", [clef.transaction(fields, self._address)])
        return clef.signed_transaction(answer, fields, self._address, self._where)

    def __repr__(self) -> str:
        return f"ExternalSigner({self._name}, {self.address}, {self._end_point})"

    # ----

    def _ask(self, method: str, params: list[Any]) -> Any:
        self._tell(f"waiting up to {self._confirm_s / 60:g} minutes for you to confirm at {self._end_point} …")
        return self._call(method, params, self._confirm_s)

    def _call(self, method: str, params: list[Any], limit_s: float) -> Any:
        number = next(self._ids)
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
        ends_s = time.monotonic() + limit_s
        try:
            if self._end_point.startswith(UNIX):
                data = _over_unix(self._end_point.removeprefix(UNIX), body, ends_s)
            else:
                data = _over_http(self._end_point, body, ends_s)
            answer = strict_json.loads(data)
        except TimeoutError:
            raise UnavailableError(
                f"nobody confirmed at {self._end_point} within {limit_s:.0f} s: nothing was signed",
                hint="try again, with the device at hand",
            ) from None
        except (OSError, http.client.HTTPException) as exc:
            raise UnavailableError(
                f"{self._where} can't be reached ({type(exc).__name__})", hint="is it running?"
            ) from exc
        except ValueError as exc:
            raise PeerError(self._where, f"{self._where} does not speak Clef's JSON-RPC") from exc
        return self._result(answer, number)

    def _result(self, answer: Any, number: int) -> Any:
        if not isinstance(answer, dict) or answer.get("id") != number:
            raise PeerError(self._where, f"{self._where} does not speak Clef's JSON-RPC")
        error = answer.get("error")
        if error is None:
            return answer.get("result")
        code = error.get("code") if isinstance(error, dict) else None
        said = str(error.get("message") if isinstance(error, dict) else error)[:200]
        if code == DENIED and "denied" in said.lower():
            raise UserError("this was refused at the external signer: nothing was signed", wallet=self._name)
        raise UserError(f"{self._where} did not sign: {said}", hint="see what it says there", wallet=self._name)


def _over_http(url: str, body: bytes, ends_s: float) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 80, timeout=CONNECT_S)
    try:
        try:
            connection.connect()
        except TimeoutError as exc:
            raise ConnectionRefusedError from exc
        _limit(connection.sock, ends_s)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", parts.path or "/", body, headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise ValueError(f"HTTP status {response.status}")
        data = b""
        while chunk := response.read1(64 << 10):
            data = _with(data, chunk)
            if connection.sock is not None:
                _limit(connection.sock, ends_s)
        return data
    finally:
        connection.close()


def _over_unix(path: str, body: bytes, ends_s: float) -> bytes:
    """Geth's IPC: JSON texts one after another, each ended by a line feed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_S)
        try:
            connection.connect(path)
        except TimeoutError as exc:
            raise ConnectionRefusedError from exc
        _limit(connection, ends_s)
        connection.sendall(body + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            _limit(connection, ends_s)
            chunk = connection.recv(64 << 10)
            if not chunk:
                break
            data = _with(data, chunk)
        if not data:
            raise ConnectionResetError
        return data


def _limit(connection: socket.socket, ends_s: float) -> None:
    left_s = ends_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    connection.settimeout(left_s)


def _with(data: bytes, chunk: bytes) -> bytes:
    if len(data) + len(chunk) > MAX_ANSWER:
        raise ValueError("an endless answer")
    return data + chunk
