import pytest
import torch
from transformers import AutoTokenizer

from scripts.train.__main__ import make
from scripts.train.corpus import training_set
from scripts.train.model import Shape, build_model
from scripts.train.release import digest, save
from scripts.train.tokenizer import BOS, EOS, train_tokenizer
from scripts.train.training import Plan, pack, rate_share

TINY = Shape(layers=2, hidden=32, mlp=64, heads=2, kv_heads=1, context=512)
SHORT = Plan(seed=7, stories=60, batch=4, sequence=64)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(training_set(1, 300), 1500)


def test_equal_seeds_make_equal_models(tmp_path):
    """Two runs with one seed give the same bytes; another seed gives others."""
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        make(tmp_path / name, TINY, Plan(seed=seed, stories=60, batch=4, sequence=64), held_out=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_training_lowers_the_perplexity(tmp_path):
    """A longer run is better on what neither has seen."""
    short = make(tmp_path / "short", TINY, SHORT, held_out=3)
    long = make(tmp_path / "long", TINY, Plan(seed=7, stories=300, batch=4, sequence=64), held_out=3)
    assert long.english < short.english / 2
    assert long.chinese < short.chinese / 2


@pytest.mark.parametrize("text", ["The bronze lantern", "旅人提着铜灯，", "0x9fE3 costs 1207 gold\n龘 🏮 é\t  x"])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    """What is encoded is decoded to the same text, known to the corpus or not."""
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_each_han_character_and_digit_is_a_token(tokenizer):
    """No token holds two Han characters or two digits."""
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token])
        assert sum("\u4e00" <= character <= "\u9fff" or character.isdigit() for character in text) <= 1


def test_transformers_reads_the_tokenizer_alike(tokenizer, tmp_path):
    """transformers' AutoTokenizer gives the same ids, BOS first."""
    save(build_model(TINY, tokenizer, 0), tokenizer, tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    for text in training_set(3, 20):
        assert other(text).input_ids == tokenizer.encode(text).ids
    assert other.bos_token == BOS
    assert other.eos_token == EOS
    assert other("x").input_ids[0] == tokenizer.token_to_id(BOS)


def test_packing_keeps_every_token_in_order(tokenizer):
    """Rows are the texts one after another, each between BOS and EOS."""
    texts = training_set(4, 6)
    rows = pack(texts, tokenizer, 32)
    expected = [i for text in texts for i in (*tokenizer.encode(text).ids, tokenizer.token_to_id(EOS))]
    assert rows.dtype == torch.int64
    assert rows.flatten().tolist() == expected[: rows.numel()]
    assert len(expected) - rows.numel() < 32


def test_the_rate_rises_then_falls_to_its_floor():
    """The learning rate's share is 1 after the warm-up and the floor at the end."""
    shares = [rate_share(step, 100, SHORT) for step in range(101)]
    assert max(shares) == shares[4] == 1
    assert shares[:5] == sorted(shares[:5])
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert shares[100] == pytest.approx(SHORT.floor_share)
