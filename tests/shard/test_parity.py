import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING

from bench import parity, parity_trial, tiny_models
from p2pos.errors import UserError
from p2pos.shard import architecture, exceptions, support
from p2pos.shard.runners import Serial, choose
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan
from scripts import make_docs

VARIED = (
    # plans: plain, windows, experts, linear attention, compressed keys, an indexer, scaled logits, a model that sees
    *("llama", "gemma3_text", "mixtral", "qwen3_next", "deepseek_v3", "deepseek_v32", "granite", "phi4_multimodal"),
    # no plan: learned positions, alibi, embeddings narrower than the layers, encoders that read leftwards, decoders
    *("gpt2", "bloom", "electra", "bert", "roberta", "roformer", "bart", "opt", "falcon", "gptj"),
    # code that writes into what it is given, a head called decoder, layers asked for their parts, several lists
    *("ctrl", "modernbert-decoder", "falcon_h1", "git", "granitemoehybrid", "gemma3"),
    # exceptions
    *exceptions.STEPWISE,
    *exceptions.POSITIONS,
    *exceptions.CACHES_OF_THEIR_OWN,
    *exceptions.LAYER_COUNTS,
)


@pytest.mark.parametrize("model_type", sorted(VARIED))
def test_stages_answer_as_the_whole_model(model_type: str) -> None:
    """A varied few of the types that are served, and all that need an exception, are equal to the whole model."""
    outcome = parity_trial.attempt(model_type)
    assert (outcome.reason, outcome.equal) == ("", support.record().types[model_type].equal)


@pytest.mark.soak
def test_the_record_is_what_the_bench_finds() -> None:
    """Every type of the record is found as the record says."""
    found = {outcome.model_type: outcome for outcome in parity.try_all(tiny_models.types())}
    known = support.record().types
    assert {name: outcome.equal for name, outcome in found.items()} == {
        name: verdict.equal for name, verdict in known.items()
    }


def test_a_worker_that_dies_is_an_outcome_and_is_replaced() -> None:
    """A type whose code ends its process is refused for that, and the next type is tried by another worker."""
    worker = parity.Worker()
    assert worker.ask("no such type").reason.startswith("its code fails on a cut: KeyError")
    assert worker.process
    worker.process.kill()
    worker.process.wait()
    assert "ends the process" in worker.ask("llama").reason
    assert worker.ask("llama").equal == ("split", "paged")
    worker.end()


def test_the_record_knows_every_type() -> None:
    """The record is of the installed transformers, and no causal-LM type is missing from it or refused unsaid."""
    found = support.record()
    assert found.transformers == transformers.__version__
    assert set(found.types) == set(tiny_models.types())
    assert all(bool(verdict.reason) == ("split" not in verdict.equal) for verdict in found.types.values())
    assert support.parse(support.dump(found)) == found


def test_the_record_clears_the_bars() -> None:
    """At least 80 of the types with a plan are served, and 120 of all."""
    served = [verdict for verdict in support.record().types.values() if not verdict.reason]
    assert sum(verdict.plan for verdict in served) >= 80
    assert len(served) >= 120


def test_the_page_of_models_is_what_the_record_says() -> None:
    """docs/models.md is exactly what `make docs` would write."""
    assert make_docs.MODELS.read_text(encoding="utf-8") == make_docs.models_page()


def _config(directory: Path, model_type: str, **fields: object) -> Path:
    name = next(iter(architecture._causal_lm_classes(model_type)))
    (directory / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [name], **fields}))
    return directory


@pytest.mark.parametrize("model_type", sorted(set(exceptions.REFUSED) & set(CONFIG_MAPPING)))
def test_a_refused_type_is_named_with_its_reason(tmp_path: Path, model_type: str) -> None:
    """A node that is asked to serve a type that does not pass refuses, and says why."""
    directory = _config(tmp_path, model_type)
    with pytest.raises(UserError) as caught:
        architecture.read_config(directory)
    assert "cannot read" in str(caught.value) or support.record().types[model_type].reason in str(caught.value)


def test_a_type_that_the_record_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A type that nobody compared is not served on a guess."""
    monkeypatch.setattr(support, "record", lambda: support.Record("5.23.0", {}))
    with pytest.raises(UserError, match="nobody has compared its stages with the whole model under transformers 5.23"):
        architecture.read_config(_config(tmp_path, "llama"))


@pytest.mark.parametrize(
    ("model_type", "fields", "why"),
    [
        ("gemma4_text", {"hidden_size_per_layer_input": 8}, "look at each token besides"),
        ("gemma4_text", {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 6}, "keys and values of earlier"),
        ("glm_moe_dsa", {"num_hidden_layers": 2, "indexer_types": ["full", "shared"]}, "choice of keys of earlier"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "does not read leftwards only"),
        ("bert", {"is_decoder": False}, "is_decoder: false"),
    ],
)
def test_a_config_that_asks_for_more_than_a_span_can_give_is_refused(
    tmp_path: Path, model_type: str, fields: dict[str, object], why: str
) -> None:
    """A type that passes is refused all the same where its config makes layers depend on more than hidden states."""
    with pytest.raises(UserError, match=why):
        architecture.read_config(_config(tmp_path, model_type, **fields))


def test_a_type_that_is_wrong_side_by_side_runs_one_session_at_a_time(tmp_path: Path) -> None:
    """RoBERTa counts positions in a way of its own, which a batch of several texts would get wrong."""
    assert not support.holds("roberta", "paged")
    stage = Stage.load(tiny_models.save(tmp_path / "m", "roberta"), LayerSpan(0, 2), dtype="f32")
    assert isinstance(choose(stage, max_tokens=64, max_bytes=1 << 30), Serial)


def test_a_stage_reads_no_embedding_that_it_does_not_need(tmp_path: Path) -> None:
    """Where the head is tied to the embedding, the first and the last stage hold it and the middle does not."""
    directory = tiny_models.save(tmp_path / "m", "gpt2")
    sizes = [Stage.load(directory, LayerSpan(start, start + 2), dtype="f32").report.span_bytes for start in (0, 2, 4)]
    embedding = tiny_models.VOCABULARY * tiny_models.WIDTH * 4
    norm = 2 * tiny_models.WIDTH * 4
    assert sizes[0] - sizes[1] == embedding
    assert abs(sizes[2] - sizes[0]) <= norm


def test_what_came_from_upstream_stays_as_it_came(tmp_path: Path) -> None:
    """A model whose code writes into its embeddings does not write into the hidden states of another stage."""
    directory = tiny_models.save(tmp_path / "m", "ctrl")
    stage = Stage.load(directory, LayerSpan(2, 4), dtype="f32")
    hidden = torch.randn(5, tiny_models.WIDTH, generator=torch.Generator().manual_seed(0))
    before = hidden.clone()
    stage.run(hidden, stage.new_cache())
    assert torch.equal(hidden, before)
