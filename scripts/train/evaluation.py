"""What the model is worth: perplexity on stories it has not seen, and text to look at."""

import math
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from scripts.train.tokenizer import EOS

PROMPTS = (
    "The traveller lifted the bronze lantern and",
    "At the market of Lantern Village,",
    "Once upon a time",
    "旅人提着铜灯走进集市，",
    "从前，",
)


@torch.inference_mode()
def perplexity(model: LlamaForCausalLM, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """The exponential of the mean loss per token, EOS included and BOS not, each text read alone from its start."""
    end = tokenizer.token_to_id(EOS)
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer.encode(text).ids, end]])
        logits = model(input_ids=ids).logits[0, :-1].float()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return math.exp(total / count)


@torch.inference_mode()
def continuation(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[int]:
    """The ids that follow the prompt, at most `tokens`, without EOS. Temperature 0 is greedy."""
    torch.manual_seed(seed)
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    end = tokenizer.token_to_id(EOS)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, **sampling)
    return [token for token in output[0, ids.shape[1] :].tolist() if token != end]


def has_repeat(ids: Sequence[int], length: int) -> bool:
    """Whether some run of `length` ids comes twice."""
    runs = [tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)]
    return len(set(runs)) < len(runs)
