from concurrent.futures import ThreadPoolExecutor

import pytest

from p2pos.errors import UserError
from p2pos.ledger.nonces import WORD, NonceBook
from p2pos.ledger.typed_data import Domain
from tests.ledger.chains import ALICE, BOB

DOMAIN = Domain(31337, BOB.address)


def test_nonces_fill_a_word_and_go_on_in_another(tmp_path):
    """A book's nonces never repeat; they follow one another within a word of storage."""
    book = NonceBook(tmp_path)
    taken = [book.take(DOMAIN, ALICE.address) for _ in range(WORD + 10)]
    assert len(set(taken)) == WORD + 10
    assert [nonce // WORD for nonce in taken[:WORD]] == [taken[0] // WORD] * WORD
    assert [nonce % WORD for nonce in taken] == [at % WORD for at in range(WORD + 10)]
    assert taken[WORD] // WORD != taken[0] // WORD


def test_each_chain_and_owner_has_its_own(tmp_path):
    """Another owner, chain or home begins elsewhere."""
    book = NonceBook(tmp_path)
    starts = {
        book.take(DOMAIN, ALICE.address),
        book.take(DOMAIN, BOB.address),
        book.take(Domain(1, BOB.address), ALICE.address),
        NonceBook(tmp_path / "other").take(DOMAIN, ALICE.address),
    }
    assert len(starts) == 4


def test_two_at_once_never_take_the_same(tmp_path):
    """Signers that run at the same time get different nonces."""
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: NonceBook(tmp_path).take(DOMAIN, ALICE.address), range(100)))
    assert len(set(taken)) == 100


def test_a_book_cut_off_or_damaged(tmp_path):
    """An empty book is begun anew, with a fresh word; one with nonsense in it is refused."""
    book = NonceBook(tmp_path)
    first = book.take(DOMAIN, ALICE.address)
    (path,) = tmp_path.iterdir()
    path.write_text("")
    assert book.take(DOMAIN, ALICE.address) // WORD != first // WORD
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        book.take(DOMAIN, ALICE.address)


def test_what_was_signed_with_is_known(tmp_path):
    """A nonce that was taken is known to have been; the next one, and those of others, are not."""
    book = NonceBook(tmp_path)
    assert not book.gave(DOMAIN, ALICE.address, 5)
    taken = book.take(DOMAIN, ALICE.address)
    assert book.gave(DOMAIN, ALICE.address, taken)
    assert not book.gave(DOMAIN, ALICE.address, taken + 1)
    assert not book.gave(DOMAIN, BOB.address, taken)
