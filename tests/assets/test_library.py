import io

import pytest

from p2pos.assets import library
from p2pos.assets.descriptor import Descriptor, FileRef
from p2pos.content import car, cid, unixfs
from p2pos.content.car import Car
from p2pos.content.store import Store
from p2pos.errors import UnavailableError, UserError
from tests.assets.items import SAMPLES, lantern, large_glb


@pytest.fixture(scope="module")
def library_of_one(tmp_path_factory):
    """A store with a lantern in it, its descriptor, and a CAR of both."""
    directory = tmp_path_factory.mktemp("library")
    store = Store(directory / "content")
    descriptor = lantern(store, directory)
    library.write_car(directory / "lantern.car", descriptor, store.get)
    return store, descriptor, directory / "lantern.car"


def test_files_are_named_by_what_they_are(library_of_one):
    """The descriptor has each file's size, type and CID, and the store gives its bytes back."""
    store, descriptor, _ = library_of_one
    found = {file.role: file for file in descriptor.files}
    assert found["image"].media_type == "image/png"
    assert found["image"].cid == cid.of((SAMPLES / "lantern.png").read_bytes())
    assert cid.codec(found["model"].cid) == "dag-pb"
    assert b"".join(unixfs.read(found["model"].cid, found["model"].size, store.get)) == large_glb()
    assert library.look(found["model"], store.get).text == "GLB, 1 meshes"
    assert found["model"].licence == "CC0-1.0"


def test_a_file_of_another_type_is_not_added(tmp_path):
    """A name that claims another type than the bytes have is one line."""
    (tmp_path / "lantern.png").write_bytes((SAMPLES / "lantern.jpg").read_bytes())
    with pytest.raises(UserError, match=r"lantern.png is not image/png: it doesn't begin as a PNG does") as caught:
        library.add_file(Store(tmp_path / "content"), tmp_path / "lantern.png", "image")
    assert "\n" not in str(caught.value)
    assert list(Store(tmp_path / "content")) == []


@pytest.mark.parametrize("name", ["not-there.png", "."])
def test_what_is_no_file_is_one_line(tmp_path, name):
    """A path that leads to none is said."""
    with pytest.raises(UserError, match="No such file|is not a file"):
        library.add_file(Store(tmp_path / "content"), tmp_path / name, "image")


def test_a_car_carries_an_item(library_of_one, tmp_path):
    """What one home exports another imports, whole: descriptor and every file."""
    _, descriptor, path = library_of_one
    store = Store(tmp_path / "content")
    with path.open("rb") as file:
        found = Car(file)
        assert found.roots == [descriptor.cid(), *(one.cid for one in descriptor.files)]
        (taken,) = library.take_in(found, store)
    assert taken == (descriptor.cid(), descriptor, ())
    assert all(library.look(file, store.get).checked for file in descriptor.files)


def without(path, name):
    """A CAR that lacks one block."""
    with path.open("rb") as file:
        found = Car(file)
        out = io.BytesIO()
        car.write(out, found.roots, [(each, found.get(each)) for each in found._sections if each != name])
    return out


def test_a_car_that_lacks_a_block_is_taken_in_as_far_as_it_goes(library_of_one, tmp_path):
    """The file that isn't whole is named; a later CAR, or a peer, brings the rest."""
    store, descriptor, path = library_of_one
    model = descriptor.files[0]
    leaf = unixfs.links_of(store.get(model.cid))[1].cid
    (taken,) = library.take_in(Car(without(path, leaf)), Store(tmp_path / "content"))
    assert taken.missing == (model,)
    with pytest.raises(UnavailableError, match=leaf):
        library.look(model, Store(tmp_path / "content").get)
    with path.open("rb") as file:
        assert library.take_in(Car(file), Store(tmp_path / "content"))[0].missing == ()


def test_blocks_that_belong_to_nothing_are_left_out(library_of_one, tmp_path):
    """A CAR can't fill a home with what no descriptor of its asks for."""
    _, descriptor, path = library_of_one
    junk = b"junk" * 1000
    with path.open("rb") as file:
        found = Car(file)
        out = io.BytesIO()
        named = [(each, found.get(each)) for each in found._sections]
        car.write(out, found.roots, [*named, (cid.of(junk), junk)])
    store = Store(tmp_path / "content")
    library.take_in(Car(out), store)
    assert cid.of(junk) not in store
    assert descriptor.cid() in store


def test_a_car_without_a_descriptor_is_refused(tmp_path):
    """Whose roots are something else has nothing for us."""
    out = io.BytesIO()
    car.write(out, [cid.of(b"[]")], [(cid.of(b"[]"), b"[]")])
    with pytest.raises(UserError, match="no root of this CAR is an item's descriptor"):
        library.take_in(Car(out), Store(tmp_path / "content"))
    assert list(Store(tmp_path / "content")) == []


def test_an_export_that_fails_leaves_nothing(library_of_one, tmp_path):
    """Where a block is missing, neither the CAR nor its draft remains; a file that is there is not written over."""
    store, descriptor, path = library_of_one
    with pytest.raises(UnavailableError, match="is not here"):
        library.write_car(tmp_path / "x.car", descriptor, Store(tmp_path / "empty").get)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="already there"):
        library.write_car(path, descriptor, store.get)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"size": 445}, "446 bytes where the file is said to have 445"),
        ({"size": 1 << 39}, "446 bytes where the file is said to have"),
        ({"media_type": "audio/ogg"}, "is not audio/ogg"),
    ],
)
def test_a_descriptor_that_lies_of_a_file_is_found_out(library_of_one, change, fault):
    """Another size or another type than the file's own is said."""
    store, descriptor, _ = library_of_one
    image = descriptor.files[1]
    with pytest.raises(UserError, match=fault):
        library.look(FileRef(**(image.model_dump() | change)), store.get)


def test_the_same_file_twice_is_carried_once(tmp_path):
    """A CAR has every block once, whoever names it."""
    store = Store(tmp_path / "content")
    files = [library.add_file(store, SAMPLES / "lantern.png", role) for role in ("image", "lod-1")]
    made = Descriptor.make(name="x", files=files)
    library.write_car(tmp_path / "x.car", made, store.get)
    with (tmp_path / "x.car").open("rb") as file:
        assert len(Car(file)) == 2
