"""`python -m scripts.train`: make the default model and write it to `p2pos/models/lantern`."""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from scripts.train.corpus import held_out_set, training_set
from scripts.train.evaluation import PROMPTS, continuation, perplexity
from scripts.train.model import Shape, build_model
from scripts.train.release import Figures, digest, save, write_card
from scripts.train.tokenizer import train_tokenizer
from scripts.train.training import Plan, one_core_per_operation, pack, train

OUT = Path(__file__).parents[2] / "p2pos" / "models" / "lantern"
VOCABULARY = 4096
"""An upper bound; the corpus has fewer pairs that come twice."""
HELD_OUT = 100
"""Stories per language; their perplexity moves by less than a hundredth with more."""


def make(out: Path, shape: Shape, plan: Plan, *, held_out: int = HELD_OUT) -> Figures:
    """Generate, tokenize, train, measure, write. Returns the figures of the card."""
    stories = training_set(plan.seed, plan.stories)
    tokenizer = train_tokenizer(stories, VOCABULARY)
    rows = pack(stories, tokenizer, plan.sequence)
    model = build_model(shape, tokenizer, plan.seed)
    print(f"{model.num_parameters():,} parameters, {len(stories):,} stories, {rows.numel():,} tokens", file=sys.stderr)
    loss = train(model, rows, plan)
    print(f"final training loss {loss:.3f} nats/token", file=sys.stderr)
    save(model, tokenizer, out)
    unseen = held_out_set(plan.seed, held_out, set(stories))
    with one_core_per_operation():
        english, chinese = (round(perplexity(model, tokenizer, unseen[language]), 3) for language in ("en", "zh"))
        for prompt in PROMPTS:
            print(f"\n{prompt}|{tokenizer.decode(continuation(model, tokenizer, prompt))}", file=sys.stderr)
    figures = Figures(rows.numel(), english, chinese)
    write_card(out, model, shape, plan, figures)
    return figures


def main() -> None:
    """Read the command line, make the model, print its figures."""
    default = Plan()
    parser = argparse.ArgumentParser(prog="python -m scripts.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the directory to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--stories", type=int, default=default.stories, help="how many to train on (default: %(default)s)"
    )
    arguments = parser.parse_args()
    start_s = time.monotonic()
    plan = replace(default, seed=arguments.seed, stories=arguments.stories)
    figures = make(arguments.out, Shape(), plan)
    print(f"held-out perplexity per token: {figures.english} English, {figures.chinese} Chinese")
    print(f"sha256 of weights and tokenizer: {digest(arguments.out)}")
    print(f"{(time.monotonic() - start_s) / 60:.1f} minutes on {plan.threads} threads")


if __name__ == "__main__":
    main()
