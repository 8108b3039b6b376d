import time
from collections.abc import Iterator

import pytest

from p2pos.errors import UnavailableError, UserError
from p2pos.ledger.rpc import Rpc, RpcError
from p2pos.ledger.rpc_http import Bounds, check_url, public_name
from tests.ledger.faulty import Faulty, faulty

SHORT = Bounds(connect_s=1.0, silence_s=0.2, total_s=0.4)


@pytest.fixture(scope="module")
def proxy(ground) -> Iterator[Faulty]:
    with faulty(ground.anvil.url) as made:
        yield made


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_request_has_a_deadline(proxy, fault):
    """An end point that says nothing, or a byte now and then, is given up when the request's time is over."""
    proxy.let(fault)
    began_s = time.monotonic()
    with pytest.raises(UnavailableError, match="can't be reached"):
        Rpc(proxy.url, SHORT).call("eth_chainId")
    assert time.monotonic() - began_s < 5.0


def test_a_caller_may_ask_for_less_time(proxy):
    """A call's own limit is kept where it is below the end point's."""
    proxy.let("drip")
    began_s = time.monotonic()
    with pytest.raises(UnavailableError):
        Rpc(proxy.url, Bounds(silence_s=20.0, total_s=20.0)).call("eth_chainId", within_s=0.2)
    assert time.monotonic() - began_s < 5.0


def test_an_answer_without_end(proxy):
    """An answer is read up to a bound; beyond it the end point is said to answer too much."""
    proxy.let("endless")
    with pytest.raises(RpcError, match="the answer is larger than 3 MiB"):
        Rpc(proxy.url, Bounds(answer_bytes=3 << 20)).call("eth_chainId")


@pytest.mark.parametrize("fault", ["500", "nonsense", "cut", "lose", "half"])
def test_what_is_broken_is_unavailable(proxy, fault):
    """Whatever breaks between us and the chain is one kind of error, and the next request works."""
    rpc = Rpc(proxy.url, SHORT)
    proxy.let(fault)
    with pytest.raises(UnavailableError):
        rpc.call("eth_chainId")
    assert rpc.trouble
    proxy.let("pass")
    assert rpc.call("eth_chainId") == "0x7a69"
    assert not rpc.trouble
    assert (rpc.requests, rpc.failures) == (2, 1)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "http://",
        "http://x:y",
        "http://x:99999",
        "http://[",
        "http://a b",
        "http://ä",
        "http://x/ä",
        "http://x\n",
    ],
)
def test_odd_urls(url):
    """What can't be an end point's URL is refused before anything is asked."""
    with pytest.raises(UserError, match="not an http or https URL"):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://127.0.0.1:8545/", "http://127.0.0.1:8545"),
        ("https://eth.example/v2/secret", "https://eth.example/…"),
        ("https://me:secret@eth.example", "https://eth.example"),
        ("https://eth.example?key=secret", "https://eth.example/…"),
    ],
)
def test_a_name_without_secrets(url, name):
    """Providers' keys stand in the URL; what is shown of it has none."""
    assert public_name(url) == name


def test_errors_keep_the_secret():
    """The error for an end point that is away names it without its key."""
    with pytest.raises(UnavailableError) as caught:
        Rpc("http://me:password@127.0.0.1:1/v2/secret").call("eth_chainId")
    assert "http://127.0.0.1:1/…" in str(caught.value)
    assert "secret" not in str(caught.value)
