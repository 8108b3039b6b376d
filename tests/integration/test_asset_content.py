"""An item's files, from the nodes of a swarm to the home of somebody who has only the chain's word for them."""

import json
from pathlib import Path

from p2pos.assets.descriptor import Descriptor
from p2pos.content import unixfs
from p2pos.content.store import Store
from p2pos.ledger.terms import Terms
from tests.assets.items import lantern
from tests.checkpoints import save
from tests.ledger.chains import OPERATOR, Ground, running_ground, toml
from tests.swarms import Node, node, p2pos


def visitor(directory: Path, ground: Ground, door: Node) -> Path:
    """A home that knows the chain and a node, and nothing else."""
    home = directory / "visitor"
    home.mkdir()
    toml(
        home / "p2pos.toml",
        {"rpc_url": ground.anvil.url, "chain_id": 31337, "contract": ground.chain.contract},
    )
    with (home / "p2pos.toml").open("a") as file:
        file.write(f"bootstrap = [{json.dumps(door.address)}]\n")
    return home


def issue(ground: Ground, descriptor: Descriptor) -> str:
    """A class with this descriptor. Returns its id."""
    with ground.anvil.mining():
        return f"0x{ground.chain.create_class(OPERATOR, descriptor.digest(), Terms(0), descriptor.digest()):064x}"


def test_nodes_serve_what_lies_in_their_homes(tmp_path: Path) -> None:
    """Two nodes, one with a damaged block and one that joined through it: verify fetches what it lacks and proves all.

    Interrupted halfway, which is what a home with some of the blocks is, a fetch brings the rest alone.
    """
    model = save(tmp_path / "model", "llama")
    store = Store(tmp_path / "whole" / "content")
    descriptor = lantern(store, tmp_path)
    leaves = [link.cid for link in unixfs.links_of(store.get(descriptor.files[0].cid) or b"")]
    spoilt = Store(tmp_path / "spoilt" / "content")
    for name in store:
        spoilt.put(store.get(name) or b"", "dag-pb" if name == descriptor.files[0].cid else "raw")
    (path,) = spoilt.directory.rglob(leaves[1])
    path.write_bytes(b"other")
    with (
        running_ground() as ground,
        node(tmp_path / "spoilt", model, "--layers", "0:3") as door,
        node(tmp_path / "whole", model, "--layers", "3:6", "--bootstrap", door.address),
    ):
        id_ = issue(ground, descriptor)
        home = visitor(tmp_path, ground, door)
        done = json.loads(p2pos("asset", "verify", id_, "--json", home=home).stdout)
        found = {link["link"]: link["state"] for link in done["links"]}
        assert done["proven"]
        assert set(found.values()) == {"proven"}
        assert {"peers", "canonical", "file model", "file image", "file audio"} <= set(found)
        assert set(Store(home / "content")) == set(store)

        for name in leaves[2:]:
            next(iter((home / "content").rglob(name))).unlink()
        rest = sum(len(store.get(name) or b"") for name in leaves[2:])
        again = json.loads(p2pos("asset", "fetch", id_, "--json", home=home).stdout)
        assert (again["bytes"], again["lacking"]) == (rest, [])
