import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from p2pos.models import DEFAULT
from scripts.train.corpus import held_out_set
from scripts.train.evaluation import PROMPTS, continuation, has_repeat, perplexity
from scripts.train.training import Plan, one_core_per_operation

MAX_BYTES = 16 * 10**6
MAX_PERPLEXITY = 2.6


@pytest.fixture(scope="module")
def model():
    with one_core_per_operation():
        yield AutoModelForCausalLM.from_pretrained(DEFAULT, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))


def test_the_model_is_small():
    """The whole directory is at most 16 MB."""
    assert sum(path.stat().st_size for path in DEFAULT.iterdir()) <= MAX_BYTES


def test_it_can_be_cut_among_three_nodes(model):
    """It has a pipeline plan and six layers or more, so that each of three nodes holds two."""
    assert model.config.base_model_pp_plan
    assert model.config.num_hidden_layers >= 6
    assert model.config.max_position_embeddings >= 1024


def test_both_libraries_read_the_tokenizer_alike(tokenizer):
    """tokenizers and transformers give the same ids, BOS first, and the text comes back."""
    other = AutoTokenizer.from_pretrained(DEFAULT)
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt).ids
        assert other(prompt).input_ids == ids
        assert ids[0] == other.bos_token_id
        assert tokenizer.decode(ids) == prompt


@pytest.mark.parametrize("language", ["en", "zh"])
def test_stories_it_has_not_seen_surprise_it_little(model, tokenizer, language):
    """Its perplexity per token on held-out stories is under the bound."""
    texts = held_out_set(Plan().seed, 20, set())[language]
    assert perplexity(model, tokenizer, texts) < MAX_PERPLEXITY


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_does_not_go_round_in_circles(model, tokenizer, prompt, temperature):
    """No run of eight tokens comes twice in 64, and the text does not end at once."""
    ids = continuation(model, tokenizer, prompt, temperature=temperature)
    assert not has_repeat(ids, 8)
    assert len(ids) >= 32
