import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from p2pos.errors import UserError
from p2pos.models import DEFAULT
from p2pos.shard import architecture
from p2pos.shard.checkpoint import Checkpoint, parse_header, read_at
from p2pos.types import LayerSpan
from tests import checkpoints


def test_headers_describe_every_tensor(checkpoint_of) -> None:
    """The bytes of a tensor, read by its header, are the tensor."""
    from safetensors.torch import load_file

    checkpoint = Checkpoint.open(checkpoint_of("llama"))
    loaded = load_file(checkpoint.directory / "model.safetensors")
    assert set(checkpoint.tensors) == set(loaded)
    for name, tensor in loaded.items():
        info = checkpoint.tensors[name]
        assert read_at(info, 0, 4) + read_at(info, 4, info.nbytes - 4) == tensor.numpy().tobytes()


def test_a_sharded_checkpoint_is_one_model(tmp_path: Path, checkpoint_of) -> None:
    """Several files with an index hold the same tensors as one file."""
    model = checkpoints.whole(checkpoint_of("llama"))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    sharded, single = Checkpoint.open(tmp_path), Checkpoint.open(checkpoint_of("llama"))
    assert len({tensor.file for tensor in sharded.tensors.values()}) > 1
    assert set(sharded.tensors) == set(single.tensors)
    assert sharded.total_bytes == single.total_bytes


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A directory that isn't there is said to be missing."""
    with pytest.raises(UserError, match=f"there is no model directory at {tmp_path / 'gone'}"):
        Checkpoint.open(tmp_path / "gone")


def test_a_path_that_cannot_be_looked_at_is_one_line() -> None:
    """A name that no system takes is the person's mistake, and not quoted at length."""
    with pytest.raises(UserError, match="^a{200} can't be looked at: File name too long") as refusal:
        Checkpoint.open(Path("a" * 5000))
    assert len(str(refusal.value)) < 400


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    """A directory with no config.json isn't a model."""
    with pytest.raises(UserError, match="has no config.json"):
        Checkpoint.open(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    """A config alone isn't a model."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no safetensors weights"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    """A file cut anywhere is found out by its header, before any weight is read."""
    file = checkpoints.save(tmp_path, "llama") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="truncated"):
        Checkpoint.open(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """A file that the index names and the directory lacks is named."""
    checkpoints.whole(checkpoints.save(tmp_path / "a", "llama")).save_pretrained(tmp_path / "b", max_shard_size="200KB")
    (tmp_path / "b" / "model-00002-of-00005.safetensors").unlink(missing_ok=True)
    lost = next(file for file in sorted((tmp_path / "b").glob("model-*.safetensors")))
    lost.unlink()
    with pytest.raises(UserError, match="lacks model-0000"):
        Checkpoint.open(tmp_path / "b")


def test_an_index_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    """A path in the index that leaves the directory is refused."""
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="weight_map"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {}}', "names no weights"),
        ('{"weight_map": {"a": 5}}', "no weight_map"),
        ('{"weight_map": {"a": ".."}}', "no weight_map"),
        ('{"weight_map": {"a": "config.json"}}', "no weight_map"),
        ('{"weight_map": {"a": "/x.safetensors"}}', "no weight_map"),
        ('{"weight_map": {"a": "x\\ny.safetensors"}}', "no weight_map"),
        ('{"weight_map": {"a": "' + "x" * 250 + '.safetensors"}}', "no weight_map"),
        ('{"weight_map": {"a": "other.safetensors"}}', "lacks other.safetensors"),
        ('{"weight_map": {"nonesuch": "model.safetensors"}}', "nonesuch is in model.safetensors, which lacks it"),
    ],
    ids=range(14),
)
def test_a_broken_index_is_refused(tmp_path: Path, checkpoint_of, index: str, says: str) -> None:
    """An index that can't be read, leaves the directory, or names what isn't there is refused, in one line."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(checkpoint_of("llama") / name)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=says) as refusal:
        Checkpoint.open(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, checkpoint_of) -> None:
    """A file that the system keeps from us is the person's to see to, whatever its fault."""
    (tmp_path / "config.json").mkdir()  # unlike a mode of 0, this holds for the superuser too
    with pytest.raises(UserError, match=r"config.json can't be read: Is a directory"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]},
        [],
    ],
    ids=range(8),
)
def test_a_header_that_lies_is_refused(entry: Any) -> None:
    """Shapes and offsets that no tensor has are found in the header."""
    with pytest.raises(UserError):
        parse_header(Path("m.safetensors"), json.dumps({"a": entry}).encode(), 100)


@pytest.mark.parametrize(
    ("offsets", "metadata", "data"),
    [
        ([(0, 4), (0, 4)], {}, 4),
        ([(0, 4), (2, 6)], {}, 6),
        ([(0, 4), (8, 12)], {}, 12),
        ([(4, 8)], {}, 8),
        ([(0, 4)], {}, 8),
        ([], {}, 4),
        ([(0, 4)], {"a": 1}, 4),
        ([(0, 4)], [], 4),
    ],
    ids=range(8),
)
def test_tensors_fill_the_file_each_byte_once(offsets: list[tuple[int, int]], metadata: Any, data: int) -> None:
    """Tensors that overlap or leave a gap, and metadata that isn't text, are damage; safetensors refuses them too."""
    tensors = {str(at): {"dtype": "U8", "shape": [e - b], "data_offsets": [b, e]} for at, (b, e) in enumerate(offsets)}
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    with pytest.raises(UserError, match="truncated or not a safetensors file"):
        parse_header(Path("m.safetensors"), header, 8 + len(header) + data)


@pytest.mark.parametrize(("stored", "called"), [("float16", "f16"), ("bfloat16", "bf16"), ("float32", "f32")])
def test_a_checkpoint_says_what_it_is_stored_as(tmp_path: Path, stored: str, called: str) -> None:
    """The dtype that a stage computes in by itself is the one that most weights have."""
    directory = checkpoints.save(tmp_path, "llama", dtype=getattr(torch, stored), num_hidden_layers=1)
    assert Checkpoint.open(directory).dtype == called


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, checkpoint_of) -> None:
    """A tokenizer with more ids than the model is another's; one with fewer belongs to a padded vocabulary."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(checkpoint_of("llama") / name)
    (tmp_path / "tokenizer.json").write_bytes((DEFAULT / "tokenizer.json").read_bytes())
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.check_tokenizer(4096)
    with pytest.raises(
        UserError, match=r"tokenizer.json does not fit the model: it has the token id \d+, the model 256"
    ):
        checkpoint.check_tokenizer(256)


def test_an_added_token_beyond_the_vocabulary_is_let_be(tmp_path: Path, checkpoint_of) -> None:
    """Gemma 3's tokenizer has a token for images that its text models have no row for."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(checkpoint_of("llama") / name)
    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 255}, unk_token="a"))
    tokenizer.add_special_tokens(["<image>"])
    assert tokenizer.token_to_id("<image>") == 2
    written = json.loads(tokenizer.to_str())
    written["added_tokens"][0]["id"] = 256
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    Checkpoint.open(tmp_path).check_tokenizer(256)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"not JSON",
        b"\xff",
        b'{"model": {"type": "BPE"}}',
        # these two end in a panic of its Rust, the last when it is first used
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}',
        (
            b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "post_processor": {"type": '
            b'"TemplateProcessing", "single": [{"SpecialToken": {"id": "q", "type_id": 0}}], "pair": [], '
            b'"special_tokens": {}}}'
        ),
    ],
    ids=range(7),
)
def test_a_broken_tokenizer_is_refused(tmp_path: Path, checkpoint_of, data: bytes) -> None:
    """A tokenizer.json that holds no tokenizer is named."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(checkpoint_of("llama") / name)
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(UserError, match="tokenizer.json can't be used"):
        Checkpoint.open(tmp_path).check_tokenizer(256)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever a weights file holds, opening it raises nothing but a UserError."""
    directory = tmp_path_factory.mktemp("junk")
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(data)
    with suppress(UserError):
        assert Checkpoint.open(directory).tensors == {}


def test_a_model_that_is_not_causal_is_refused(tmp_path: Path) -> None:
    """An encoder's checkpoint is refused as what it is."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(UserError, match=r"not a causal language model \(BertForMaskedLM\)"):
        architecture.read_config(tmp_path)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    """A model type that transformers doesn't know is named."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonesuch"}))
    with pytest.raises(UserError, match="nonesuch"):
        architecture.read_config(tmp_path)


def test_a_quantized_checkpoint_is_refused(tmp_path: Path) -> None:
    """Quantized weights are not silently misread."""
    config = checkpoints.config("llama", architectures=["LlamaForCausalLM"]).to_dict()
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is quantized"):
        architecture.read_config(tmp_path)


@pytest.mark.parametrize(
    "change", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"hidden_act": "nonesuch"}, {"architectures": 5}]
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Numbers and names that no model can be made of are the directory's fault, not ours."""
    config = checkpoints.config("llama", architectures=["LlamaForCausalLM"]).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError):
        architecture.build(architecture.read_config(tmp_path), LayerSpan(0, 2), torch.float32)


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("num_hidden_layers", 10**9, "at most 4096"),
        ("num_hidden_layers", 0, "at least 1"),
        ("max_position_embeddings", 0, "at least 1"),
        ("vocab_size", 0, "at least 1"),
    ],
)
def test_a_size_that_no_model_has_is_named(tmp_path: Path, name: str, value: int, bound: str) -> None:
    """A config without layers, context or vocabulary, or with too many layers to look at, is refused by that number."""
    config = checkpoints.config("llama", architectures=["LlamaForCausalLM"]).to_dict()
    config.pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(UserError, match=f"config.json says {name}: {value}; it can be {bound}"):
        architecture.read_config(tmp_path)


def test_building_takes_no_memory_for_weights(checkpoint_of) -> None:
    """Until it is filled, every parameter of a span lies on the meta device."""
    config = architecture.read_config(checkpoint_of("llama"))
    from p2pos.types import LayerSpan

    model = architecture.build(config, LayerSpan(2, 4), torch.float32)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {name.split(".")[2] for name, _ in model.named_parameters()} == {"2", "3"}
