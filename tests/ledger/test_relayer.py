import dataclasses
import itertools
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import trio

from p2pos.errors import ChainError, UnavailableError
from p2pos.ledger import queue as queue_module
from p2pos.ledger import relayer as relayer_module
from p2pos.ledger.client import RelayerClient
from p2pos.ledger.events import NonceSpent
from p2pos.ledger.intents import Refusal, RefusedError, SignedIntent
from p2pos.ledger.queue import Queue
from p2pos.ledger.relayer import MAX_ARRIVING, Relayer
from p2pos.ledger.submitter import Submitter
from p2pos.ledger.typed_data import Transfer
from tests.ledger.chains import ALICE, BOB, CAROL, OPERATOR, SESAME, contract_wallet, person, running_ground
from tests.ledger.services import RelayerProcess

WAIT_S = 60.0


@pytest.fixture(scope="module")
def relayer(ground, tmp_path_factory) -> Iterator[RelayerProcess]:
    service = RelayerProcess(ground, tmp_path_factory.mktemp("relayer"))
    service.ready()
    with ground.anvil.mining():
        yield service
        assert service.stop() == 0


@pytest.fixture
def lanterns(ground, relayer) -> None:
    """Alice has some to give."""
    ground.chain.mint(person("operator"), ALICE.address, ground.lantern, 10)


def refused(relayer: RelayerProcess, intent: SignedIntent) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        relayer.client.submit(intent)
    return caught.value


def test_a_transfer_by_relayer(ground, relayer, lanterns):
    """A signed transfer that is handed in moves the item, and the relayer pays the gas."""
    before, coin = ground.balance(BOB), ground.chain.native_balance(ALICE.address)
    intent = ground.transfer(BOB.address, 2)
    assert relayer.client.submit(intent).state in {"accepted", "submitted"}
    status = relayer.client.wait(intent.id, WAIT_S)
    assert ground.balance(BOB) - before == 2
    assert ground.chain.native_balance(ALICE.address) == coin
    assert ground.chain.receipts([status.transaction])[0].block == status.block


def test_handing_in_again_is_harmless(ground, relayer, lanterns):
    """While it is under way the same intent gives the same status; once settled it is refused as replayed."""
    before = ground.balance(BOB)
    intent = ground.transfer(BOB.address)
    first = relayer.client.submit(intent)
    try:
        assert relayer.client.submit(intent).accepted_s == first.accepted_s
    except RefusedError as exc:
        assert exc.refusal is Refusal.REPLAYED  # noqa: PT017 - a block came in between
    status = relayer.client.wait(intent.id, WAIT_S)
    again = refused(relayer, intent)
    assert again.refusal is Refusal.REPLAYED
    assert status.transaction in again.message
    assert ground.balance(BOB) - before == 1


def test_the_six_refusals(ground, relayer, lanterns):
    """Replayed, tampered, expired, wrong chain, wrong contract, wrong signer: each its own message, nothing lost."""
    before = ground.balance(ALICE), ground.balance(BOB)
    sound = ground.transfer(BOB.address)
    domain = ground.chain.domain
    used = ground.transfer(BOB.address, 0)
    relayer.client.submit(used)
    relayer.client.wait(used.id, WAIT_S)

    def elsewhere(**changes) -> SignedIntent:
        other = dataclasses.replace(domain, **changes)
        return SignedIntent.of(other, sound.struct, ALICE.sign_typed(other, sound.struct))

    cases = {
        Refusal.REPLAYED: used,
        Refusal.TAMPERED: dataclasses.replace(sound, struct=dataclasses.replace(sound.struct, amount=9)),
        Refusal.EXPIRED: ground.transfer(BOB.address, deadline=1),
        Refusal.WRONG_CHAIN: elsewhere(chain_id=1),
        Refusal.WRONG_CONTRACT: elsewhere(contract=BOB.address),
        Refusal.WRONG_SIGNER: dataclasses.replace(sound, signatures=(BOB.sign_typed(domain, sound.struct),)),
    }
    errors = {refusal: refused(relayer, intent) for refusal, intent in cases.items()}
    assert {refusal: error.refusal for refusal, error in errors.items()} == {refusal: refusal for refusal in cases}
    assert len({error.message for error in errors.values()}) == 6
    assert all("\n" not in str(error) for error in errors.values())
    assert (ground.balance(ALICE), ground.balance(BOB)) == before
    assert not ground.chain.is_nonce_used(ALICE.address, sound.struct.nonce)
    relayer.client.submit(sound)
    relayer.client.wait(sound.id, WAIT_S)


def test_a_nonce_used_elsewhere(ground, relayer, lanterns):
    """An intent that another relayer carried out is refused as replayed by the contract's word."""
    intent = ground.transfer(BOB.address)
    ground.chain.submit(ALICE, intent)
    error = refused(relayer, intent)
    assert error.refusal is Refusal.REPLAYED
    assert f"nonce {intent.struct.nonce}" in error.message


def test_an_amount_above_the_balance(ground, relayer, lanterns):
    """What the owner hasn't got is refused at the door, with both figures."""
    error = refused(relayer, ground.transfer(BOB.address, 10**6))
    assert error.refusal is Refusal.BALANCE
    assert "not the 1000000 wanted" in error.message


def test_two_intents_with_one_nonce(ground, relayer, lanterns):
    """A second intent with a nonce that is waiting already is refused as a conflict, or as used where it settled."""
    one = ground.transfer(BOB.address)
    relayer.client.submit(one)
    other = ground.transfer(CAROL.address, nonce=one.struct.nonce)
    assert refused(relayer, other).refusal in {Refusal.CONFLICT, Refusal.REPLAYED}
    relayer.client.wait(one.id, WAIT_S)
    assert refused(relayer, other).refusal is Refusal.REPLAYED


def test_a_contract_wallet_signs(ground, relayer):
    """A contract wallet's own rule (ERC-1271) decides, whatever its signature looks like."""
    wallet = person("contract wallet")
    contract_wallet(ground.anvil, wallet.address)
    ground.chain.mint(person("operator"), wallet.address, ground.lantern, 3)
    struct = Transfer(wallet.address, BOB.address, ground.lantern, 3, 1, 1 << 40)
    domain = ground.chain.domain
    wrong = SignedIntent.of(domain, struct, b"\x00" * 32)
    assert refused(relayer, wrong).refusal is Refusal.WRONG_SIGNER
    right = dataclasses.replace(wrong, signatures=(SESAME,))
    relayer.client.submit(right)
    relayer.client.wait(right.id, WAIT_S)
    assert ground.balance(wallet) == 0


def test_what_is_not_an_intent(relayer):
    """Nonsense and bodies that are too large get an error body, not a crash."""
    for content, code in ((b"{", 422), (b"[", 422), (b"[]", 422), (b" " * 40_000, 413), (b"[" + b" " * 600_000, 413)):
        response = httpx.post(f"{relayer.client.url}/intents", content=content)
        assert response.status_code == code
        assert response.json()["error"]["refusal"] == "malformed"
    assert httpx.get(f"{relayer.client.url}/intents/0x12").status_code == 404


def test_many_in_one_request(ground, relayer, lanterns):
    """An array of intents is taken in one request; each has its own outcome, in its place."""
    good = [ground.transfer(BOB.address) for _ in range(3)]
    late, rival = ground.transfer(BOB.address, deadline=1), ground.transfer(CAROL.address, nonce=good[0].struct.nonce)
    first, expired, second, conflict, third = relayer.client.submit_many([good[0], late, good[1], rival, good[2]])
    assert [one.id for one in (first, second, third)] == [one.id for one in good]
    assert (expired.refusal, conflict.refusal) == (Refusal.EXPIRED, Refusal.CONFLICT)
    for intent in good:
        relayer.client.wait(intent.id, WAIT_S)
    body = [good[0].as_json(), {"format": "?"}, 7]
    answer = httpx.post(f"{relayer.client.url}/intents", json=body)
    assert [one["error"]["refusal"] for one in answer.json()] == ["replayed", "malformed", "malformed"]
    assert httpx.post(f"{relayer.client.url}/intents", json=[1] * 101).status_code == 422


def test_a_forgery_does_not_hold_a_nonce(ground, relayer, lanterns):
    """Who hands in an unsigned intent with another's nonce in the same moment does not keep the owner's out."""
    sound = ground.transfer(BOB.address)
    forged = ground.transfer(CAROL.address, nonce=sound.struct.nonce)
    forged = dataclasses.replace(forged, signatures=sound.signatures)
    refusal, taken = relayer.client.submit_many([forged, sound])
    assert refusal.refusal is Refusal.WRONG_SIGNER
    assert taken.id == sound.id
    relayer.client.wait(sound.id, WAIT_S)


def test_codes_over_http(ground, relayer, lanterns):
    """202 for what is taken, 409 for a spent nonce, 422 for what is unsound; the body has the refusal's name."""

    def post(intent: SignedIntent) -> tuple[int, str]:
        response = httpx.post(f"{relayer.client.url}/intents", json=intent.as_json())
        return response.status_code, response.json().get("error", {}).get("refusal", "")

    intent = ground.transfer(BOB.address)
    assert post(intent) == (202, "")
    relayer.client.wait(intent.id, WAIT_S)
    assert post(intent) == (409, "replayed")
    assert post(dataclasses.replace(intent, signatures=(bytes(65),))) == (409, "replayed")
    assert post(ground.transfer(BOB.address, deadline=1)) == (422, "expired")


def test_too_much_at_once(ground, tmp_path, monkeypatch):
    """Where the queue is full, or more arrives than can be looked at, the sender is told to come back."""
    ground.give_lanterns(ALICE.address, 2)
    queue = Queue(tmp_path / "queue.sqlite")
    service = Relayer(ground.chain, queue, Submitter(ground.chain, queue, OPERATOR))
    one, two = ground.transfer(BOB.address), ground.transfer(BOB.address)

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.admit_forever)
            monkeypatch.setattr(queue_module, "MAX_WAITING", 1)
            assert (await service.submit(one)).state == "accepted"
            with pytest.raises(UnavailableError, match="waiting already"):
                await service.submit(two)
            assert (await service.submit(one)).state == "accepted"
            nursery.cancel_scope.cancel()
        for _ in range(MAX_ARRIVING):
            service._arriving_send.send_nowait(None)
        with pytest.raises(UnavailableError, match="too many intents arrive"):
            await service.submit(two)

    trio.run(scenario)
    assert queue.status(two.id) is None
    queue.close()


def test_status_health_and_metrics(ground, relayer):
    """The service says what it serves, that it is well, and its counts in Prometheus' format."""
    summary = relayer.client.summary()
    assert summary["contract"] == ground.chain.contract
    assert [sender["address"] for sender in summary["senders"]] == [relayer.sender]
    assert httpx.get(f"{relayer.client.url}/healthz").json() == {"ok": True}
    metrics = httpx.get(f"{relayer.client.url}/metrics").text
    assert f'p2pos_relayer_intents{{state="settled"}} {summary["intents"]["settled"]:.1f}' in metrics


def test_a_chain_that_stops(ground, tmp_path, monkeypatch):
    """While something waits and no block comes, that is said with the seconds; what waits goes in when one does."""
    monkeypatch.setattr(relayer_module, "STALLED_S", 0.0)
    ground.give_lanterns(ALICE.address, 1)
    queue = Queue(tmp_path / "queue.sqlite")
    submitter = Submitter(ground.chain, queue, OPERATOR)
    submitter.bind()
    service = Relayer(ground.chain, queue, submitter)
    intent = ground.transfer(BOB.address)
    queue.accept([intent], 0.0)
    service._tick()
    assert service.trouble.startswith("no block for ")
    assert "what waits goes in when it goes on" in service.trouble
    with ground.anvil.mining():
        while service._tick():
            pass
    assert service.trouble == ""
    assert queue.status(intent.id).state == "settled"
    queue.close()


def test_one_relayer_per_queue(ground, relayer):
    """A second relayer on the same queue is refused with a line and exit code 2."""
    command = [relayer.process.args[0], "-m", "p2pos", "relayer", "run", *relayer.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another relayer runs on" in done.stderr
    assert done.stdout == ""


def test_a_client_says_what_is_wrong(relayer):
    """A relayer that is away, or something else that answers, is told apart from a refusal."""
    with pytest.raises(UnavailableError, match="can't be reached"):
        RelayerClient("http://127.0.0.1:1").summary()
    with pytest.raises(UnavailableError, match="doesn't answer as a relayer"):
        RelayerClient(relayer.ground.anvil.url).summary()
    with pytest.raises(ChainError, match="does not know intent"):
        relayer.client.wait("0x12", WAIT_S)


def test_the_chain_goes_away(tmp_path):
    """Without its chain a relayer refuses what comes, keeps what it has, and says why."""
    with running_ground() as ground:
        service = RelayerProcess(ground, tmp_path)
        service.ready()
        ground.give_lanterns(ALICE.address, 1)
        kept, late = ground.transfer(BOB.address), ground.transfer(BOB.address)
        service.client.submit(kept)
    with pytest.raises(UnavailableError, match="can't be reached"):
        service.client.submit(late)
    assert service.client.status(kept.id).state in {"accepted", "submitted"}
    assert service.client.status(late.id) is None
    assert service.stop() == 0


def test_killed_ten_times_under_two_hundred_transfers(tmp_path):
    """Killed with -9 at ten random moments, a relayer brings all it accepted on chain, each once."""
    rng = random.Random(20260401)
    with running_ground() as ground:
        ground.give_lanterns(ALICE.address, 200)
        intents = [ground.transfer(BOB.address) for _ in range(200)]
        service = RelayerProcess(ground, tmp_path, "--max-batch", "4")
        todo = iter(intents)
        for arriving in (60, 70, 70, 0, 0, 0, 0, 0, 0, 0):  # three kills while it accepts, seven while it submits
            service.ready()
            killer = threading.Timer(rng.uniform(0.0, 0.5), service.process.kill)
            killer.start()
            todo = itertools.chain(hand_in(service.client, itertools.islice(todo, arriving)), todo)
            while service.process.poll() is None:
                ground.anvil.mine()
            killer.join()
            service.kill()
            service.start()
        service.ready()
        with ground.anvil.mining():
            assert hand_in(service.client, todo) == []
            statuses = [service.client.wait(intent.id, WAIT_S) for intent in intents]
            assert service.stop() == 0
        assert {status.state for status in statuses} == {"settled"}
        assert ground.balance(BOB) == 200
        spent = [event.nonce for event in ground.chain.logs(0, 10**6) if isinstance(event, NonceSpent)]
        assert sorted(spent) == [intent.struct.nonce for intent in intents]


def hand_in(client: RelayerClient, intents: Iterator[SignedIntent]) -> list[SignedIntent]:
    """Hand in, four at a time. Returns those of which the answer never came, to be handed in again."""

    def one(intent: SignedIntent) -> SignedIntent | None:
        try:
            client.submit(intent)
        except UnavailableError:
            return intent
        except RefusedError as exc:
            if exc.refusal is not Refusal.REPLAYED:  # it was on disk when the answer was lost, and is settled by now
                raise
        return None

    with ThreadPoolExecutor(4) as pool:
        return [intent for intent in pool.map(one, intents) if intent is not None]
