import re
import shutil
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from p2pos.errors import P2posError, UnavailableError, UserError
from p2pos.shard import hub, hub_http, manifest, stage
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.hub import HubId
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan
from tests import checkpoints, hubs

NAME = HubId("org/small")
MIDDLE = LayerSpan(2, 4)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in several files."""
    directory = tmp_path_factory.mktemp("small")
    checkpoints.whole(checkpoints.save(directory / "one", "llama")).save_pretrained(
        directory / "many", max_shard_size="400KB"
    )
    return directory / "many"


@pytest.fixture
def served(small: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubs.Hub]:
    """A hub that has it, which this process asks."""
    with hubs.serve(small=small) as found:
        point_at(found.url, monkeypatch)
        yield found


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which is read when the library is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def fetched(cache: Path, span: LayerSpan | None = None, *, offline: bool = False) -> tuple[Checkpoint, int]:
    """A model's directory with what a span needs, and the bytes that came."""
    checkpoint = Checkpoint.open(hub.resolve(NAME, cache, offline=offline))
    wanted = stage.needed(checkpoint, span)
    return checkpoint, hub.fetch(checkpoint, wanted, offline=offline, progress=lambda *_: lambda _: None)


def header_bytes(directory: Path) -> int:
    """Of all its weight files."""
    return sum(8 + struct.unpack("<Q", path.read_bytes()[:8])[0] for path in directory.glob("*.safetensors"))


def test_a_span_fetches_its_own_bytes_and_the_headers(served: hubs.Hub, small: Path, tmp_path: Path) -> None:
    """The middle third's node fetches what its layers hold, each file's header, and nothing else."""
    checkpoint, count = fetched(tmp_path, MIDDLE)
    report = Stage.load(checkpoint.directory, MIDDLE, dtype="f32").report
    assert count == report.bytes_read == report.span_bytes
    assert served.weight_bytes == report.span_bytes + header_bytes(small)
    assert report.total_bytes > 2.5 * report.span_bytes
    assert 512 * sum(path.stat().st_blocks for path in checkpoint.directory.iterdir()) < 0.6 * report.total_bytes


def test_what_came_is_what_the_hub_has(served: hubs.Hub, small: Path, tmp_path: Path) -> None:
    """A model fetched whole, span by span, is the one that transformers loads from the hub's own files."""
    for span in (LayerSpan(0, 2), MIDDLE, LayerSpan(4, 6)):
        checkpoint, _ = fetched(tmp_path, span)
    for path in small.glob("*.safetensors"):
        assert (checkpoint.directory / path.name).read_bytes() == path.read_bytes()
    ids = torch.arange(3, 40)
    with torch.no_grad():
        expected = checkpoints.whole(small)(ids[None]).logits[0, -1]
    loaded = Stage.load(checkpoint.directory, dtype="f32", manifest=manifest.make(checkpoint))
    torch.testing.assert_close(loaded.run(ids, loaded.new_cache(), want_logits=True), expected, atol=1e-5, rtol=1e-5)


def test_nothing_is_fetched_twice(served: hubs.Hub, tmp_path: Path) -> None:
    """What one span brought is not asked for again, by it or by another that shares it."""
    fetched(tmp_path, MIDDLE)
    served.forget()
    assert fetched(tmp_path, MIDDLE)[1] == 0
    assert served.weight_bytes == 0
    _, count = fetched(tmp_path, LayerSpan(2, 5))
    assert served.weight_bytes == count == checkpoints_layer_bytes(tmp_path)


def checkpoints_layer_bytes(cache: Path) -> int:
    """Of one layer."""
    checkpoint = Checkpoint.open(hub.resolve(NAME, cache, offline=True))
    return sum(each.nbytes for each in checkpoint.tensors.values() if each.name.startswith("model.layers.4."))


def test_several_processes_may_fetch_one_model(served: hubs.Hub, small: Path, tmp_path: Path) -> None:
    """Spans that are fetched into one cache at the same time, and share layers, all come whole."""
    spans = (LayerSpan(0, 3), LayerSpan(2, 5), LayerSpan(2, 6), LayerSpan(0, 6))
    with ThreadPoolExecutor(len(spans)) as pool:
        found = list(pool.map(lambda span: fetched(tmp_path, span), spans))
    for (checkpoint, _), span in zip(found, spans, strict=True):
        Stage.load(checkpoint.directory, span, dtype="f32")
    for path in small.glob("*.safetensors"):
        assert (checkpoint.directory / path.name).read_bytes() == path.read_bytes()
    assert [each.name for each in hub.kept(tmp_path)] == ["org/small"]


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(served: hubs.Hub, tmp_path: Path) -> None:
    """A 503 in the middle of a download does not end it."""
    served.busy = 1
    assert fetched(tmp_path, MIDDLE)[1] > 0
    assert served.busy == 0


def test_the_model_id_needs_no_weights(served: hubs.Hub, tmp_path: Path) -> None:
    """Nodes with different spans of one commit, and one with none, have the same name for the model."""
    ids = []
    for number, span in enumerate((None, MIDDLE, LayerSpan(0, 2))):
        cache = tmp_path / str(number)
        checkpoint = Checkpoint.open(hub.resolve(NAME, cache, offline=False))
        if span is not None:
            fetched(cache, span)
        ids.append(manifest.make(checkpoint).model_id)
    assert len(set(ids)) == 1


def test_a_tensor_that_did_not_come_is_refused(served: hubs.Hub, tmp_path: Path) -> None:
    """A hole in the file is never taken for weights."""
    checkpoint, _ = fetched(tmp_path, MIDDLE)
    with pytest.raises(UserError, match=r"which have not been fetched: p2pos model fetch org/small@"):
        Stage.load(checkpoint.directory, LayerSpan(3, 5), dtype="f32")


def test_a_broken_connection_is_taken_up_where_it_broke(served: hubs.Hub, small: Path, tmp_path: Path) -> None:
    """Bytes that came before a connection was lost don't come again."""
    served.break_after = 150_000
    checkpoint, count = fetched(tmp_path, MIDDLE)
    assert served.break_after is None
    assert served.weight_bytes <= count + header_bytes(small)
    Stage.load(checkpoint.directory, MIDDLE, dtype="f32")


def test_offline_uses_what_is_here(served: hubs.Hub, tmp_path: Path) -> None:
    """Without asking anyone, the spans that came can be served, and another is said to be missing, by how much."""
    fetched(tmp_path, MIDDLE)
    served.forget()
    assert fetched(tmp_path, MIDDLE, offline=True)[1] == 0
    with pytest.raises(UserError, match=r"^[\d,]+ bytes of org/small that this needs are not here: p2pos model fetch"):
        fetched(tmp_path, LayerSpan(0, 2), offline=True)
    with pytest.raises(UserError, match="org/other is not here: p2pos model fetch org/other, while online"):
        hub.resolve(HubId("org/other"), tmp_path, offline=True)
    assert served.requests == []


def test_the_environment_can_say_offline(served: hubs.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE means the same as --offline."""
    fetched(tmp_path, MIDDLE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetched(tmp_path, MIDDLE)[1] == 0
    with pytest.raises(UserError, match="are not here"):
        fetched(tmp_path, LayerSpan(0, 2))


def test_a_commit_that_is_here_is_asked_of_nobody(served: hubs.Hub, tmp_path: Path) -> None:
    """A commit never changes, so a node that names one needs no hub."""
    checkpoint, _ = fetched(tmp_path, MIDDLE)
    served.forget()
    named = HubId("org/small", served.commit("org/small"))
    assert hub.resolve(named, tmp_path, offline=False) == checkpoint.directory
    assert served.requests == []


def test_a_flipped_byte_in_a_whole_file_is_found(served: hubs.Hub, tmp_path: Path) -> None:
    """Once all of a file came it must be what the hub says; where it isn't, all of it is fetched again."""
    served.flip = -10
    with pytest.raises(UnavailableError, match=r"what came as \S+ of org/small is not what the hub says it is"):
        fetched(tmp_path)
    served.flip = None
    checkpoint, count = fetched(tmp_path)
    assert count > 0
    Stage.load(checkpoint.directory, dtype="f32")


def test_a_byte_flipped_on_disk_is_found_and_mended(served: hubs.Hub, tmp_path: Path) -> None:
    """Damage on disk is found while the span loads; the next fetch brings that tensor again, and no more."""
    checkpoint, _ = fetched(tmp_path, MIDDLE)
    tensor = checkpoint.tensors["model.layers.2.mlp.up_proj.weight"]
    with tensor.file.open("r+b") as file:
        file.seek(tensor.offset)
        byte = file.read(1)[0]
        file.seek(tensor.offset)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(UserError, match="is damaged on disk"):
        Stage.load(checkpoint.directory, MIDDLE, dtype="f32")
    assert fetched(tmp_path, MIDDLE)[1] == tensor.nbytes
    Stage.load(checkpoint.directory, MIDDLE, dtype="f32")


def test_the_token_goes_to_the_hub_alone(served: hubs.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private model comes with HF_TOKEN, which is not shown to the server that the weights come from."""
    served.token = "hf_secret"
    with pytest.raises(UserError, match="there is no model org/small on .*, or it is private") as refusal:
        fetched(tmp_path, MIDDLE)
    assert "hf_" not in str(refusal.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetched(tmp_path, MIDDLE)[1] > 0
    assert not served.cdn_saw_token


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("org/none", UserError, r"there is no model org/none on 127.0.0.1:\d+, or it is private"),
        ("org/small@none", UserError, "the model org/small has no revision none"),
        ("org/gated", UserError, "the model org/gated is gated"),
        ("org/pickled", UserError, "org/pickled has no safetensors weights"),
        ("org/empty", UserError, "org/empty has no config.json"),
        ("org/lost", UserError, "org/lost lacks model-00002-of-00002.safetensors"),
        ("org/short", UserError, "truncated or not a safetensors file"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[P2posError], says: str
) -> None:
    """A repository that isn't there, is gated, or holds no model is refused with what is the matter."""
    repos = {each: tmp_path / each for each in ("pickled", "empty", "lost", "short")}
    for path in repos.values():
        path.mkdir()
        (path / "config.json").write_bytes((small / "config.json").read_bytes())
    (repos["pickled"] / "pytorch_model.bin").write_bytes(b"pickle")
    (repos["empty"] / "config.json").unlink()
    (repos["empty"] / "README.md").write_text("none")
    index = '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'
    (repos["lost"] / "model.safetensors.index.json").write_text(index)
    (repos["short"] / "model.safetensors").write_bytes(b"\xff" * 20)
    with hubs.serve(small=small, gated=small, **repos) as served:
        served.gated = {"org/gated"}
        point_at(served.url, monkeypatch)
        model = HubId.parse(name)
        assert model is not None
        with pytest.raises(kind, match=says) as refusal:
            hub.resolve(model, tmp_path / "cache", offline=False)
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "cache").rglob("p2pos-hub.json"))


def test_a_hub_that_is_not_there_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody at the address is the network's fault, exit code 3."""
    with hubs.serve() as gone:
        url = gone.url
    point_at(url, monkeypatch)
    with pytest.raises(UnavailableError, match=r"^the hub at 127.0.0.1:\d+ can't be reached") as refusal:
        hub.resolve(NAME, tmp_path, offline=False)
    assert refusal.value.exit_code == 3


def test_a_hub_that_ignores_ranges_is_not_believed(
    served: hubs.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another range than was asked for is never written where the asked one belongs."""
    file = hub_http.HubFile("org/small", served.commit("org/small"), "config.json", 5)
    monkeypatch.setattr(hub_http, "BACKOFF_S", (0.0,) * hub_http.RETRIES)
    with pytest.raises(UnavailableError, match="answered something else than was asked for"):
        hub_http.read(file, 0, 4)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Qwen/Qwen3-0.6B", HubId("Qwen/Qwen3-0.6B")),
        ("a/b@refs/pr/1", HubId("a/b", "refs/pr/1")),
        ("a/b@0123abc", HubId("a/b", "0123abc")),
        ("./a/b", None),
        ("../b", None),
        ("a/..", None),
        ("/a/b", None),
        ("a/b/c", None),
        ("a", None),
        ("", None),
        ("a/b@", None),
        ("a/b c", None),
        ("bafkrei", None),
        ("a/b@" + "x" * 256, None),
    ],
)
def test_a_name_on_a_hub_looks_like_nothing_else(text: str, found: HubId | None) -> None:
    """ORG/NAME and ORG/NAME@REVISION are models' names; paths and ids are not."""
    assert HubId.parse(text) == found
    assert found is None or re.fullmatch(r"\S+/\S+", str(found))


def test_a_weight_file_that_was_deleted_comes_again(served: hubs.Hub, tmp_path: Path) -> None:
    """A file of a fetched model that someone removed is not here; the next fetch brings its tensors, and no others."""
    checkpoint, _ = fetched(tmp_path)
    lost = min(checkpoint.directory.glob("*.safetensors"))
    lost.unlink()
    with pytest.raises(UserError, match="org/small is not here"):
        fetched(tmp_path, offline=True)
    checkpoint, count = fetched(tmp_path)
    assert count == sum(each.nbytes for each in checkpoint.tensors.values() if each.file == lost)
    Stage.load(checkpoint.directory, dtype="f32")


def test_a_file_name_may_have_spaces(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came of a weight file with a space in its name counts as come."""
    spaced = tmp_path / "spaced"
    shutil.copytree(small, spaced)
    index = spaced / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-0", "model 0"))
    for path in spaced.glob("model-*.safetensors"):
        path.rename(path.with_name(path.name.replace("model-0", "model 0")))
    with hubs.serve(small=spaced) as served:
        point_at(served.url, monkeypatch)
        assert fetched(tmp_path / "cache")[1] > 0
        assert fetched(tmp_path / "cache")[1] == 0


def test_named_chat_templates_make_the_model_what_it_is(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come with config and tokenizer, and a model with another has another id; other files there don't count."""
    ids = []
    for name, text in (("tool_use.jinja", "a"), ("tool_use.jinja", "b"), ("a b.jinja", "b")):
        repo = tmp_path / f"repo{len(ids)}"
        shutil.copytree(small, repo)
        (repo / "additional_chat_templates").mkdir()
        (repo / "additional_chat_templates" / name).write_text(text)
        with hubs.serve(small=repo) as served:
            point_at(served.url, monkeypatch)
            checkpoint = Checkpoint.open(hub.resolve(NAME, tmp_path / "cache", offline=False))
        ids.append(manifest.make(checkpoint).model_id)
        assert set(checkpoint.side_files()) == set(Checkpoint.open(repo).side_files())
        assert ("additional_chat_templates/tool_use.jinja" in checkpoint.side_files()) == (name == "tool_use.jinja")
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://user:hunter2@127.0.0.1:1", "127.0.0.1:1"),
        ("https://user:hunter2@hub.example", "hub.example"),
        ("http://user:hunter2#@127.0.0.1:1", "HF_ENDPOINT"),
        ("http://user:hunter2@[::1", "HF_ENDPOINT"),
        ("", "HF_ENDPOINT"),
    ],
    ids=range(5),
)
def test_a_password_in_the_address_is_not_shown(monkeypatch: pytest.MonkeyPatch, endpoint: str, shown: str) -> None:
    """Of HF_ENDPOINT, messages name host and port alone."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert hub_http._host() == shown


def test_a_fault_in_one_header_ends_the_others() -> None:
    """The first fault is raised, and work that was not begun is not begun any more."""
    done = []

    def work(name: str, stop: threading.Event) -> None:
        if name == "0":
            raise UserError("no")
        assert stop.wait(60)
        done.append(name)

    with pytest.raises(UserError, match="no"):
        hub._at_once(work, [str(number) for number in range(100)])
    assert len(done) < hub.HEADERS_AT_ONCE
