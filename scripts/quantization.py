"""`python -m scripts.quantization`: what int8 and int4 cost in accuracy and save in memory; the table of the docs.

Every row of numbers compares a way of holding the weights with the same checkpoint in fp32. For the default model the
text is stories that it was not trained on; for models of random weights it is random tokens. A whole text passes at
once, so products of many rows are what is measured; those of few rows differ from them by bf16's rounding.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config

from p2pos.models import DEFAULT
from p2pos.shard.stage import Stage
from p2pos.wire.messages import Quantization
from scripts.train.corpus import held_out_set, training_set
from scripts.train.training import Plan

WAYS: tuple[tuple[str, Quantization], ...] = (
    ("f32", "int8"),
    ("f32", "int4"),
    ("bf16", "none"),
    ("bf16", "int8"),
    ("bf16", "int4"),
)
"""What a stage computes in, and how it holds its weights."""
STORIES = 50
"""Per language."""
ROWS, TEXTS = 256, 8
"""Random tokens per text, and texts, for models of random weights."""
RANDOM: dict[str, PreTrainedConfig] = {
    "random Llama, 1024 wide, 8 layers": LlamaConfig(
        hidden_size=1024,
        num_hidden_layers=8,
        intermediate_size=4096,
        num_attention_heads=16,
        num_key_value_heads=4,
        vocab_size=8192,
        tie_word_embeddings=True,
    ),
    "random Qwen3, 1024 wide, 8 layers": Qwen3Config(
        hidden_size=1024,
        num_hidden_layers=8,
        intermediate_size=3072,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=8192,
        tie_word_embeddings=False,
    ),
}


@dataclass
class Errors:
    """Sums over rows of logits, each row compared with fp32's."""

    rows: int = 0
    largest: float = 0.0
    """|error|, in standard deviations of the row's fp32 logits; so are the next two."""
    absolute: float = 0.0
    squared: float = 0.0
    agreed: int = 0
    divergence: float = 0.0
    """Nats."""
    losses: list[torch.Tensor] = field(default_factory=list)

    def add(self, exact: torch.Tensor, found: torch.Tensor, ids: torch.Tensor) -> None:
        """Take in the logits (rows, vocabulary) of one text, fp32."""
        off = ((found - exact) / exact.std(1, keepdim=True)).abs()
        self.rows += len(off)
        self.largest = max(self.largest, off.max().item())
        self.absolute += off.mean(1).sum().item()
        self.squared += off.pow(2).mean(1).sum().item()
        self.agreed += int((found.argmax(1) == exact.argmax(1)).sum())
        log, exact_log = found.log_softmax(1), exact.log_softmax(1)
        self.divergence += functional.kl_div(log, exact_log, reduction="sum", log_target=True).item()
        self.losses.append(functional.nll_loss(log[:-1], ids[1:], reduction="none"))

    @property
    def perplexity(self) -> float:
        """Per token of the texts."""
        return torch.cat(self.losses).mean().exp().item()

    def cells(self) -> list[str]:
        """For the table."""
        root = (self.squared / self.rows) ** 0.5
        return [
            f"{root:.4f}",
            f"{self.absolute / self.rows:.4f}",
            f"{self.largest:.2f}",
            f"{100 * self.agreed / self.rows:.1f} %",
            f"{self.divergence / self.rows:.5f}",
        ]


def default_texts() -> Iterator[torch.Tensor]:
    """Token ids of stories in both languages that the default model has not seen."""
    plan = Plan()
    seen = set(training_set(plan.seed, plan.stories))
    tokenizer = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
    for stories in held_out_set(plan.seed, STORIES, seen).values():
        yield from (torch.tensor(tokenizer.encode(story).ids) for story in stories)


def measure(name: str, directory: Path, texts: list[torch.Tensor], *, has_text: bool) -> None:
    """Print the lines of one model."""
    exact = Stage.load(directory, dtype="f32")
    stages = [Stage.load(directory, dtype=dtype, quantize=mode) for dtype, mode in WAYS]
    errors = [Errors() for _ in WAYS]
    plain = Errors()
    for ids in texts:
        expected = logits(exact, ids)
        plain.add(expected, expected, ids)
        for stage, each in zip(stages, errors, strict=True):
            each.add(expected, logits(stage, ids), ids)
    full = {dtype: stage for (dtype, mode), stage in zip(WAYS, stages, strict=True) if mode == "none"} | {"f32": exact}
    perplexity = f"{plain.perplexity:.4f}" if has_text else "–"
    row(name, "f32", "none", megabytes(exact), "–", "0", "0", "0", "100 %", "0", perplexity)
    for (dtype, mode), stage, each in zip(WAYS, stages, errors, strict=True):
        saved = 1 - stage.report.span_bytes / full[dtype].report.span_bytes
        perplexity = f"{each.perplexity:.4f}" if has_text else "–"
        row(name, dtype, mode, megabytes(stage), f"{100 * saved:.0f} %" if saved else "–", *each.cells(), perplexity)


@torch.inference_mode()
def logits(stage: Stage, ids: torch.Tensor) -> torch.Tensor:
    """Of every position: (rows, vocabulary) fp32."""
    hidden = stage.run(ids, stage.new_cache())
    head: torch.nn.Module = stage._model.get_output_embeddings()  # type: ignore[operator]  # transformers ships no types
    return head(hidden).float()  # type: ignore[no-any-return]  # as above


def megabytes(stage: Stage) -> str:
    """Of weights in memory."""
    return f"{stage.report.span_bytes / 1e6:.1f} MB"


def row(*cells: str) -> None:
    """One line of the table, on standard output."""
    print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


def main() -> None:
    """Measure the default model, the random ones, and what the command line adds."""
    parser = argparse.ArgumentParser(prog="python -m scripts.quantization", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="model directories to measure too, on random tokens")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    row("model", "computes in", "weights", "bytes", "saved", "RMS", "mean", "max", "top-1", "KL, nats", "perplexity")
    row(*["---"] * 11)
    measure("default model", DEFAULT, list(default_texts()), has_text=True)
    with tempfile.TemporaryDirectory() as parent:
        directories = {}
        for number, (name, config) in enumerate(RANDOM.items()):
            torch.manual_seed(number)
            directories[name] = Path(parent) / str(number)
            AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directories[name])
        given = {str(model): model for model in arguments.models}
        for name, directory in itertools.chain(directories.items(), given.items()):
            vocabulary = Stage.load(directory).vocabulary
            generator = torch.Generator().manual_seed(0)
            texts = [torch.randint(vocabulary, (ROWS,), generator=generator) for _ in range(TEXTS)]
            measure(name, directory, texts, has_text=False)


if __name__ == "__main__":
    main()
