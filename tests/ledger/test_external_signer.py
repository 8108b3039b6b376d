import http.client
import json
import socket
import threading
from urllib.parse import urlsplit

import pytest

from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.ledger.external_signer import ExternalSigner, end_point_of
from p2pos.ledger.signatures import recover
from p2pos.ledger.typed_data import BatchTransfer, Domain, Item, Lock, Spend, Swap, Transfer, Unlock, digest
from tests.ledger.chains import ALICE, BOB, CAROL, FAR
from tests.ledger.clef_server import running_signer

DOMAIN = Domain(31337, CAROL.address)
GIFT = Transfer(ALICE.address, BOB.address, 1 << 255, 2, 3, FAR)
STRUCTS = (
    GIFT,
    BatchTransfer(ALICE.address, BOB.address, (1, 2), (3, 4), 5, FAR),
    Lock(ALICE.address, BOB.address, 1, 2, 3, 4, FAR),
    Unlock(BOB.address, ALICE.address, 1, 2, FAR),
    Spend(ALICE.address, BOB.address, 1, 2, 3, 4, FAR),
    Swap(ALICE.address, BOB.address, (Item(1, 2),), (Item(3, 4), Item(5, 6)), 7, 8, FAR),
)
FIELDS = {
    "type": 2,
    "chainId": 31337,
    "nonce": 0,
    "to": BOB.address,
    "value": 0,
    "data": b"\x01\x02",
    "gas": 50_000,
    "maxFeePerGas": 10**10,
    "maxPriorityFeePerGas": 10**9,
}


@pytest.fixture(scope="module")
def clef(tmp_path_factory):
    with running_signer("alice", tmp_path_factory.mktemp("clef")) as (url, path):
        yield url, path


@pytest.fixture(params=["http", "unix"])
def signer(request, clef):
    url, path = clef
    behave(url, "sign")
    return external(end_point_of(url, None) if request.param == "http" else end_point_of(None, path))


def external(end_point: str, **options) -> ExternalSigner:
    return ExternalSigner("cold", ALICE.address, end_point, tell=lambda _: None, **options)


def behave(url: str, how: str) -> list:
    """Set the server's behaviour; returns what it was asked since the last time."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "test_behave", "params": [how]})
    connection.request("POST", "/", body, {"Content-Type": "application/json"})
    try:
        return json.loads(connection.getresponse().read())["result"]
    finally:
        connection.close()


def test_it_is_there_and_has_the_account(signer):
    """`check` says the API's version where the signer lists the account."""
    assert signer.check() == "6.1.0"


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: type(struct).__name__)
def test_every_kind_of_struct_is_signed(clef, struct):
    """A struct's JSON means to an independent encoder what our digest means: its signature is the account's."""
    behave(clef[0], "sign")
    signature = external(clef[0]).sign_typed(DOMAIN, struct)
    assert recover(digest(DOMAIN, struct), signature) == ALICE.address


def test_a_transaction_is_the_same_as_a_key_would_make(signer):
    """For the same fields an external signer and a key in memory give the same bytes and the same hash."""
    assert signer.sign_transaction(FIELDS) == ALICE.sign_transaction(FIELDS)
    deploying = FIELDS | {"to": b"", "nonce": 7}
    assert signer.sign_transaction(deploying) == ALICE.sign_transaction(deploying)


def test_requests_are_as_clef_documents_them(clef):
    """Numbers are hex, a transaction's data is its `input`, and nothing else is asked."""
    url = clef[0]
    behave(url, "sign")
    external(url).sign_transaction(FIELDS)
    [[method, [asked]]] = behave(url, "sign")
    assert method == "account_signTransaction"
    assert asked == {
        "from": ALICE.address,
        "to": BOB.address,
        "chainId": "0x7a69",
        "nonce": "0x0",
        "value": "0x0",
        "gas": "0xc350",
        "maxFeePerGas": "0x2540be400",
        "maxPriorityFeePerGas": "0x3b9aca00",
        "input": "0x0102",
        "accessList": [],
    }


def test_a_device_that_counts_from_zero(clef):
    """A signature whose v is 0 or 1 is given the v that contracts want."""
    behave(clef[0], "low-v")
    assert external(clef[0]).sign_typed(DOMAIN, GIFT)[64] in {27, 28}


@pytest.mark.parametrize(
    ("behaviour", "error", "line"),
    [
        ("deny", UserError, "refused at the external signer"),
        ("locked", UserError, "did not sign: could not decrypt key"),
        ("other", PeerError, "did not sign with 0x"),
        ("change", PeerError, "nothing was sent"),
        ("nonsense", PeerError, "does not speak Clef's JSON-RPC"),
        ("endless", PeerError, "does not speak Clef's JSON-RPC"),
    ],
)
def test_what_comes_back_is_not_believed(signer, clef, behaviour, error, line):
    """A refusal, another account, another transaction, nonsense or an endless answer: a line each, and no signature."""
    behave(clef[0], behaviour)
    for ask in (lambda: signer.sign_typed(DOMAIN, GIFT), lambda: signer.sign_transaction(FIELDS)):
        with pytest.raises(error, match=line) as caught:
            ask()
        assert "\n" not in str(caught.value)
    behave(clef[0], "sign")


def test_what_was_changed_is_named(clef):
    """A transaction that the signer altered is refused with the field that differs."""
    behave(clef[0], "change")
    with pytest.raises(PeerError, match="changed the transaction's gas limit: nothing was sent"):
        external(clef[0]).sign_transaction(FIELDS)


def test_an_account_that_it_lacks(clef):
    """A signer that lists other accounts only is refused, with what it lists."""
    behave(clef[0], "other")
    with pytest.raises(UserError, match="shows no account") as caught:
        external(clef[0]).check()
    assert "it shows 0x" in str(caught.value)


def test_nobody_confirms(clef):
    """Where nobody confirms in time, that is said, and that nothing was signed."""
    behave(clef[0], "hang")
    for end_point in (clef[0], f"unix:{clef[1]}"):
        with pytest.raises(UnavailableError, match=r"nobody confirmed .* nothing was signed"):
            external(end_point, confirm_s=0.05).sign_typed(DOMAIN, GIFT)


def test_it_is_gone(tmp_path):
    """A signer that is not running is said to be unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for end_point in (f"http://127.0.0.1:{port}", f"unix:{tmp_path / 'none'}"):
        with pytest.raises(UnavailableError, match="can't be reached"):
            external(end_point).check()


def test_it_goes_away_before_it_answers(tmp_path):
    """A connection that closes without an answer is a signer that is gone."""
    path = tmp_path / "clef.ipc"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def hang_up() -> None:
            listener.accept()[0].close()

        closer = threading.Thread(target=hang_up)
        closer.start()
        with pytest.raises(UnavailableError, match="can't be reached"):
            external(f"unix:{path}").check()
        closer.join()


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:8550", "ftp://x", "http://", "http://127.0.0.1:99999", "http://u:p@127.0.0.1", "clef"]
)
def test_what_is_no_end_point(url):
    """What is no plain http URL is refused."""
    with pytest.raises(UserError, match="is not an http URL"):
        end_point_of(url, None)


def test_a_signer_elsewhere_is_refused():
    """Another machine's address is refused: what is signed would travel unencrypted."""
    with pytest.raises(UserError, match="is on this machine"):
        end_point_of("http://192.0.2.1:8550", None)
    with pytest.raises(UserError, match="either"):
        end_point_of(None, None)


def test_the_person_is_told_where_to_confirm(clef):
    """Before it waits, it says where and for how long."""
    behave(clef[0], "sign")
    lines: list[str] = []
    ExternalSigner("cold", ALICE.address, clef[0], tell=lines.append).sign_typed(DOMAIN, GIFT)
    assert lines == [f"waiting up to 5 minutes for you to confirm at {clef[0]} …"]
