"""Descriptors and files at the command line: issued, proven, exported, imported, against a real chain."""

import json
import shutil
from collections.abc import Iterator

import pytest

from p2pos.assets.descriptor import Descriptor
from p2pos.content import cid, unixfs
from p2pos.content.store import Store
from p2pos.ledger import calldata
from p2pos.ledger.terms import Policy, Terms
from tests.assets.items import SAMPLES, large_glb
from tests.cli.homes import Home
from tests.ledger.chains import OPERATOR, Ground, running_ground

NAME = "Bronze Lantern"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with running_ground() as made, made.anvil.mining():
        yield made


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    return tmp_path_factory.mktemp("asset") / "home"


def configured(path, capsys, ground) -> Home:
    made = Home(path, capsys)
    made.configure(
        rpc_url=ground.anvil.url,
        chain_id=31337,
        contract=ground.chain.contract,
        passphrase_file=str(made.passphrase),
    )
    return made


@pytest.fixture
def home(ground, where, capsys) -> Home:
    """A home whose operator issued a lantern with files, of which alice has two."""
    fresh = not where.exists()
    made = configured(where, capsys, ground)
    if fresh:
        for name in ("operator", "alice"):
            made.wallet(name)
        (where / "lantern.glb").write_bytes(large_glb())
        files = {"model": where / "lantern.glb", "image": SAMPLES / "lantern.png", "audio": SAMPLES / "bell.ogg"}
        options = [part for role, path in files.items() for part in ("--file", f"{role}={path}")]
        options += ["--attribute", "mass=1200", "--unit", "mass=g", "--licence", "CC0-1.0", "--yes"]
        made.json("asset", "class", "new", NAME, "--wallet", "operator", *options)
        made.json("asset", "mint", NAME, "--to", "alice", "--amount", "2", "--wallet", "operator", "--yes")
    return made


def links(home: Home, code: int, *arguments: str) -> dict[str, tuple[str, str]]:
    """What `asset verify` says of each link."""
    assert home.run("asset", "verify", *arguments, "--json") == code, home.err
    answer = json.loads(home.out)
    assert answer["proven"] == (code == 0)
    return {one["link"]: (one["state"], one["found"]) for one in answer["links"]}


def issued(home: Home, ground: Ground, data: bytes, *, policy: Policy = Policy.FROZEN) -> str:
    """A class on chain with the digest of these bytes, which are put into the home's store. Returns its id."""
    Store(home.path / "content").put(data)
    terms = Terms(0, policy=policy)
    return (
        f"0x{ground.chain.create_class(OPERATOR, bytes([len(data) % 256]) * 32, terms, cid.digest(cid.of(data))):064x}"
    )


def described(home: Home) -> Descriptor:
    found = home.json("asset", "show", NAME)
    return Descriptor.parse(Store(home.path / "content").get(found["cid"]))


def test_an_item_is_proven_to_the_last_byte(home):
    """Every link from the contract's code to each file and the holder's balance holds, and is told."""
    found = links(home, 0, NAME, "--wallet", "alice")
    assert {state for state, _ in found.values()} == {"proven"}
    assert [*found] == [
        "contract", "class", "version", "digest", "descriptor", "canonical",
        "file model", "file image", "file audio", "holder",
    ]  # fmt: skip
    assert "alice holds 2" in found["holder"][1]
    assert "PNG, 48 × 32, RGBA" in found["file image"][1]
    assert home.run("asset", "verify", NAME) == 0
    assert all(line.startswith("✓ ") for line in home.out.splitlines())


def test_the_link_that_is_broken_is_named(home, ground):
    """A damaged file, one of another type or size, and what is no descriptor: each is told at its own link."""
    descriptor = described(home)
    model, image, audio = descriptor.files
    (path,) = (home.path / "content").rglob(image.cid)
    kept = path.read_bytes()
    path.write_bytes(b"other")
    found = links(home, 1, NAME)
    assert found["file image"][0] == "broken"
    assert "is damaged on disk" in found["file image"][1]
    assert {found[name][0] for name in ("file model", "file audio", "canonical")} == {"proven"}
    path.write_bytes(kept)

    lying = [image.model_copy(update={"media_type": "audio/ogg"}), audio.model_copy(update={"size": 12})]
    found = links(home, 1, issued(home, ground, Descriptor.make(name="Liar", files=lying).canonical()))
    assert "is not audio/ogg" in found["file image"][1]
    assert "where the file is said to have 12" in found["file audio"][1]

    loose = b'{"name": "Loose"}'
    found = links(home, 1, issued(home, ground, loose))
    assert found["descriptor"][0] == "proven"
    assert found["canonical"] == ("broken", "the descriptor is not in canonical form (RFC 8785)")
    assert found["the rest"][0] == "unknown"
    assert model.role not in found


def test_what_could_not_be_looked_at_is_no_proof(home, ground, tmp_path, capsys):
    """A descriptor or a file that isn't here is unknown, exit 3, and not called broken; so is a chain that is away."""
    other = configured(tmp_path / "other", capsys, ground)
    item = home.json("asset", "show", NAME)["id"]
    found = links(other, 3, item)
    assert found["digest"][0] == "proven"
    assert found["descriptor"][0] == "unknown"
    found = links(home, 3, NAME, "--rpc-url", "http://127.0.0.1:1")
    assert found["contract"][0] == "unknown"
    assert links(home, 1, NAME, "--contract", OPERATOR.address)["contract"][0] == "broken"


def test_who_holds_none_is_told(home):
    """The last link is the holder's balance."""
    found = links(home, 1, NAME, "--wallet", "operator")
    assert found["holder"][0] == "broken"
    assert {state for name, (state, _) in found.items() if name != "holder"} == {"proven"}


def test_a_file_of_an_unknown_type_is_told(home, ground, tmp_path):
    """Size and hash hold, and that nobody looked inside is said; it is no fault."""
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    home.json(
        "asset", "class", "new", "Film", "--wallet", "operator", "--yes", "--file", f"animation={tmp_path / 'clip.mp4'}"
    )
    found = links(home, 0, "Film")
    assert found["file animation"][0] == "beware"
    assert "not looked at" in found["file animation"][1]


def test_a_name_that_looks_like_another_is_warned_of(home):
    """Cyrillic letters in a Latin name are told to the issuer, and to whoever verifies."""
    name = "Вronze Lantern"
    assert home.run("asset", "class", "new", name, "--wallet", "operator", "--yes") == 0
    assert "beware: “Вronze” mixes letters of Cyrillic and Latin" in home.err
    assert f"looks like “{NAME}”" in home.err
    found = links(home, 0, name)
    assert found["name"][0] == "beware"


def test_versions_are_proven_one_by_one(home, ground):
    """An updated class is proven against its current digest, and with --version against an earlier one."""
    first, second = (Descriptor.make(name=f"Sword {number}").canonical() for number in (1, 2))
    item = issued(home, ground, first, policy=Policy.ISSUER)
    assert links(home, 0, item)["version"][1].startswith("1 of 1")
    Store(home.path / "content").put(second)
    ground.chain.transact(OPERATOR, calldata.update_class(int(item, 16), cid.digest(cid.of(second))))
    found = links(home, 0, item)
    assert found["version"][1].startswith("2 of 2")
    assert "“Sword 2”" in found["canonical"][1]
    assert "“Sword 1”" in links(home, 0, item, "--version", "1")["canonical"][1]
    found = links(home, 1, item, "--version", "3")
    assert "has 2 versions" in found["version"][1]


def test_a_car_goes_from_home_to_home(home, ground, tmp_path, capsys):
    """What one exports another imports, and can prove; nothing but the file passed between them."""
    path = str(tmp_path / "lantern.car")
    done = home.json("asset", "export", NAME, path)
    assert done["bytes"] == (tmp_path / "lantern.car").stat().st_size
    other = configured(tmp_path / "other", capsys, ground)
    (item,) = other.json("asset", "import", path)["items"]
    assert (item["name"], item["missing"], item["cid"]) == (NAME, [], done["cid"])
    assert {state for state, _ in links(other, 0, NAME).values()} == {"proven"}
    assert "already there" in home.fails(2, "asset", "export", NAME, path)


def test_a_car_that_is_damaged_is_refused_whole(home, tmp_path, capsys):
    """The line says where the fault lies, and nothing is kept."""
    path = tmp_path / "lantern.car"
    home.json("asset", "export", NAME, str(path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    other = Home(tmp_path / "other", capsys)
    line = other.fails(2, "asset", "import", str(path))
    assert "at byte" in line
    assert "does not hash to its name" in line
    path.write_bytes(data[: len(data) // 2])
    assert "it ends within block" in other.fails(2, "asset", "import", str(path))
    assert not (tmp_path / "other" / "content").exists()


def test_what_is_missing_is_said_to_be_fetched(home, ground, tmp_path, capsys):
    """An export without all blocks, and a fetch without a swarm, say what to do."""
    other = configured(tmp_path / "other", capsys, ground)
    item = home.json("asset", "show", NAME)["id"]
    assert "see p2pos asset fetch" in other.fails(3, "asset", "export", item, str(tmp_path / "x.car"))
    assert "no peer to join through" in other.fails(2, "asset", "fetch", item)
    shutil.copytree(home.path / "content", other.path / "content")
    model = described(home).files[0]
    leaf = unixfs.links_of(Store(other.path / "content").get(model.cid))[2].cid
    (path,) = (other.path / "content").rglob(leaf)
    path.unlink()
    assert f"block {leaf} of model is not here: p2pos asset fetch" in other.fails(
        3, "asset", "export", item, str(tmp_path / "x.car")
    )


def test_metadata_is_for_other_wallets(home):
    """ERC-1155 metadata of a class, by its name or its descriptor's CID."""
    assert home.run("asset", "metadata", NAME) == 0
    made = json.loads(home.out)
    assert made["name"] == NAME
    assert made["image"] == f"ipfs://{described(home).files[1].cid}"
    assert home.run("asset", "metadata", described(home).cid()) == 0
    assert json.loads(home.out) == made


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--file", "model"], "not of the form KEY=VALUE"),
        (["--file", "model=not-there.glb"], "No such file"),
        (["--file", "Model=x"], "No such file"),
        (["--unit", "mass=g"], "“mass” is no attribute that is a whole number"),
    ],
)
def test_a_descriptor_that_cannot_be_made_is_one_line(home, options, fault):
    """What the issuer got wrong is told before anything is signed."""
    assert fault in home.fails(2, "asset", "class", "new", "Thing", "--wallet", "operator", "--yes", *options)


def test_an_authors_document_is_read(home, tmp_path):
    """A descriptor of the author's own may leave out what has a default; files are added to it."""
    (tmp_path / "torch.json").write_text('{"attributes": {"light": 9}, "name": "Torch"}')
    files = ("--descriptor", str(tmp_path / "torch.json"), "--file", f"image={SAMPLES / 'lantern.png'}")
    home.json("asset", "class", "new", "--wallet", "operator", "--yes", *files)
    found = home.json("asset", "show", "Torch")["descriptor"]
    assert found["attributes"] == {"light": 9}
    assert found["image"] == f"ipfs://{found['files'][0]['cid']}"
    (tmp_path / "twice.json").write_text('{"name": "Torch", "name": "Sun"}')
    line = home.fails(
        2, "asset", "class", "new", "--wallet", "operator", "--yes", "--descriptor", str(tmp_path / "twice.json")
    )
    assert "names “name” twice" in line
