import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from p2pos.errors import UnavailableError
from p2pos.ledger.relayer_http import MAX_BODY
from scripts import make_dashboard
from scripts.make_dashboard import RELAYERS
from tests.ledger.chains import ALICE, BOB, CAROL, Ground, person
from tests.ledger.services import RelayerProcess

LIMITS = ("--signer-waiting", "4", "--signer-rate", "1", "--signer-burst", "6")
FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def relayer(ground, tmp_path_factory) -> Iterator[RelayerProcess]:
    secret = ground.anvil.url.replace("//", "//me:hush@")
    service = RelayerProcess(ground, tmp_path_factory.mktemp("relayer"), *LIMITS, rpc_url=secret)
    service.ready()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def sound(ground) -> dict:
    """An intent that would be taken."""
    ground.give_lanterns(ALICE.address, 100)
    return ground.transfer(BOB.address).as_json()


CLIENT = httpx.Client(timeout=30)


def post(relayer: RelayerProcess, content: bytes) -> httpx.Response:
    return CLIENT.post(f"{relayer.client.url}/intents", content=content)


def is_one_line(response: httpx.Response) -> bool:
    message = response.json()["error"]["message"]
    return 0 < len(message) < 1000 and message.isprintable()


LETTERS = "аᎪ０１２ⅹ𝟎\u200b\u202e\ud800\x00\n’"
"""Homoglyphs, digits of other kinds, an invisible letter, a direction mark, half a pair, control letters."""
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 300), 1 << 300),
    st.floats(),
    st.text(max_size=80),
    st.text(LETTERS, max_size=10),
    st.sampled_from(["-1", "+1", "1e3", "1_000", " 1", "0x1", "01", "1" * 80, "١"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@FAST
@given(data=st.data())
def test_odd_fields_are_refused_in_one_line(relayer, sound, data):
    """A field of another type, a huge number, a letter that looks like another: 422, and one printable line."""
    intent = json.loads(json.dumps(sound))
    place = data.draw(st.sampled_from([intent, intent["message"], intent["domain"]]))
    name = data.draw(st.sampled_from(sorted(place)))
    value = data.draw(ODD)
    if str(value).lstrip("0") == str(place[name]).lstrip("0"):
        return  # the same number: as an integer, or with zeros before it
    place[name] = value
    response = post(relayer, json.dumps(intent).encode())
    assert response.status_code == 422, response.text
    assert is_one_line(response)


@FAST
@given(at=st.integers(0, 41), letter=st.sampled_from(LETTERS + "aAbBcCdDeEfFgG"), name=st.sampled_from(["from", "to"]))
def test_odd_addresses_are_refused(relayer, sound, at, letter, name):
    """One letter of an address changed, to a homoglyph or another case: refused, never read as something else."""
    intent = json.loads(json.dumps(sound))
    text = intent["message"][name]
    changed = text[:at] + letter + text[at + 1 :]
    if changed == text:
        return
    intent["message"][name] = changed
    response = post(relayer, json.dumps(intent).encode())
    assert response.status_code == 422
    assert response.json()["error"]["refusal"] in {"malformed", "tampered"}
    assert is_one_line(response)


@FAST
@given(body=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode(errors="replace"))))
def test_odd_bodies_are_refused(relayer, body):
    """Any bytes at all are answered in the 400s, in one line."""
    response = post(relayer, body)
    assert response.status_code == 422
    assert is_one_line(response)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 2000,
        b"1" * 10_000,
        b"NaN",
        b'{"format": "p2pos-intent-1", "format": "p2pos-intent-1"}',
        b"[]",
        b"[" + b"{}," * 100 + b"{}]",
        b'"\\ud800"',
    ],
)
def test_hostile_bodies_are_refused(relayer, body):
    """What is made to break parsers is refused as malformed, and the service goes on."""
    response = post(relayer, body)
    assert response.status_code == 422
    assert response.json()["error"]["refusal"] == "malformed"
    assert is_one_line(response)
    assert CLIENT.get(f"{relayer.client.url}/healthz").status_code == 200


def test_a_body_that_is_too_large(relayer):
    """It is refused by its stated size before it is read, and by what came where it states none."""

    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BODY // (1 << 16) + 2):
            yield b" " * (1 << 16)

    assert post(relayer, b" " * (MAX_BODY + 1)).status_code == 413
    connection = http.client.HTTPConnection(urlsplit(relayer.client.url).netloc, timeout=30)
    connection.request("POST", "/intents", headers={"Content-Length": str(1 << 40)})
    assert connection.getresponse().status == 413
    connection.close()
    with contextlib.suppress(httpx.WriteError):  # it may close the connection while we still write
        assert CLIENT.post(f"{relayer.client.url}/intents", content=endless()).status_code == 413
    assert CLIENT.get(f"{relayer.client.url}/healthz").status_code == 200


def test_a_body_that_does_not_come(relayer):
    """A client that stops in mid-body is answered 408, and its connection closed."""
    parts = urlsplit(relayer.client.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as client:
        client.sendall(b"POST /intents HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not come within 10 s" in answer


def test_one_signer_may_not_have_too_much_waiting(ground: Ground, relayer):
    """Over its limit a signer gets 429 with Retry-After; others are taken meanwhile."""
    ground.give_lanterns(CAROL.address, 10)
    ground.give_lanterns(ALICE.address, 10)
    for _ in range(4):
        relayer.client.submit(ground.transfer(BOB.address, by=CAROL))
    late = ground.transfer(BOB.address, by=CAROL)
    response = post(relayer, json.dumps(late.as_json()).encode())
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert "are waiting already, and 4 may" in response.json()["error"]["message"]
    with pytest.raises(UnavailableError, match="try again in"):
        relayer.client.submit(late)
    other = ground.transfer(BOB.address)
    assert relayer.client.submit(other).state == "accepted"
    with ground.anvil.mining():
        relayer.client.wait(other.id, 60.0)


def test_one_signer_may_not_come_too_fast(ground: Ground, relayer):
    """Beyond the burst a signer is held to its rate; what is refused for other reasons counts for nothing."""
    giver = person("a fast giver")
    ground.give_lanterns(giver.address, 10)
    forged = ground.transfer(BOB.address, by=giver).as_json() | {"signatures": ["0x" + "11" * 65]}
    for _ in range(10):
        assert post(relayer, json.dumps(forged).encode()).json()["error"]["refusal"] == "wrong-signer"
    with ground.anvil.mining():
        for _ in range(6):
            relayer.client.wait(relayer.client.submit(ground.transfer(BOB.address, by=giver)).id, 60.0)
    response = post(relayer, json.dumps(ground.transfer(BOB.address, by=giver).as_json()).encode())
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert "hands in more than 1 intents per minute" in response.json()["error"]["message"]


def test_the_metrics_are_prometheus(ground: Ground, relayer):
    """What is counted is there under its name, with labels that no stranger made up, and as `/status` says it."""
    text = CLIENT.get(f"{relayer.client.url}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    summary = relayer.client.summary()
    value = {name: family.samples[0].value for name, family in families.items() if family.samples}
    since = summary["since_start"]
    assert value["p2pos_relayer_accepted"] == since["accepted"] > 0
    assert value["p2pos_relayer_gas"] == since["gas"] > 50_000
    assert value["p2pos_relayer_fee_ether"] == pytest.approx(int(since["fee_wei"]) / 10**18)
    assert value["p2pos_relayer_fee_ether"] > 0
    assert value["p2pos_relayer_settled"] == since["settled"] == summary["intents"]["settled"]
    refused = {sample.labels["reason"]: sample.value for sample in families["p2pos_relayer_refused"].samples}
    assert refused["limited"] == since["refused"]["limited"] > 0
    assert set(refused) > {"malformed", "replayed", "balance", "unavailable"}
    sizes = families["p2pos_relayer_batch_intents"].samples
    assert {sample.name for sample in sizes} == {
        f"p2pos_relayer_batch_intents_{end}" for end in ("bucket", "sum", "count")
    }
    assert [sample.labels["sender"] for sample in families["p2pos_relayer_sender_balance_ether"].samples] == [
        relayer.sender
    ]
    (end_point,) = families["p2pos_relayer_rpc_good"].samples
    assert end_point.labels == {"endpoint": f"1 {ground.anvil.url}"}
    assert all(re.fullmatch(r"p2pos_relayer_\w+|process_\w+|python_\w+", name) for name in families)


def families(relayer: RelayerProcess) -> dict[str, Metric]:
    """What it offers, by the names that Prometheus stores."""
    found = text_string_to_metric_families(CLIENT.get(f"{relayer.client.url}/metrics").text)
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {family.name + end: family for family in found for end in ends.get(family.type, ("",))}


def test_the_dashboard_asks_for_what_is_there(relayer):
    """What its panels ask for is in a relayer's answer, and all that is ours is shown."""
    offered, shown = families(relayer), set()
    for panel in make_dashboard.dashboard(RELAYERS)["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\b((?:p2pos|process)_\w+)[{]", target["expr"])
            assert names
            assert set(names) <= set(offered), target["expr"]
            shown |= {offered[name].name for name in names}
    assert {family.name for name, family in offered.items() if name.startswith("p2pos_")} <= shown


def test_the_manual_names_every_metric(relayer):
    """docs/relayer.md has each of ours, under the name that Prometheus stores, and none that isn't there."""
    kinds = {"counter": "_total"}
    ours = {family.name + kinds.get(family.type, "") for family in families(relayer).values()}
    page = (make_dashboard.PAGE.parent.parent / "relayer.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(p2pos_\w+)`", page)) == {name for name in ours if name.startswith("p2pos_")}


def test_the_providers_key_is_kept(ground: Ground, relayer):
    """What is secret of an end point's URL is in no answer and no line of the log."""
    text = json.dumps(relayer.client.summary()) + CLIENT.get(f"{relayer.client.url}/metrics").text
    assert ground.anvil.url in text
    assert "hush" not in text + (relayer.home / "relayer.log").read_text()


def test_requests_under_way_are_finished(ground: Ground, relayer):
    """On SIGTERM a request that came is answered before the service ends."""
    ground.give_lanterns(BOB.address, 1)
    body = json.dumps(ground.transfer(ALICE.address, by=BOB).as_json()).encode()
    connection = http.client.HTTPConnection(urlsplit(relayer.client.url).netloc, timeout=30)
    connection.putrequest("POST", "/intents")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:-1])
    relayer.client.summary()  # by now it has seen the other's headers
    relayer.process.terminate()
    connection.send(body[-1:])
    assert connection.getresponse().status == 202
    assert relayer.process.wait(30) == 0
