from p2pos.assets.metadata import metadata
from p2pos.content.store import Store
from tests.assets.items import lantern


def test_wallets_that_know_nothing_of_us_find_what_they_look_for(tmp_path):
    """Name, picture, model, properties and traits stand where ERC-1155 and marketplaces look for them."""
    descriptor = lantern(Store(tmp_path / "content"), tmp_path)
    made = metadata(descriptor)
    model, image, audio = descriptor.files
    assert (made["name"], made["image"], made["animation_url"]) == (
        "Bronze Lantern",
        f"ipfs://{image.cid}",
        f"ipfs://{model.cid}",
    )
    assert made["properties"] == {
        "kind": "item",
        "light": 3,
        "mass": {"name": "mass", "value": 1200, "display_value": "1200 g", "unit": "g"},
    }
    assert made["attributes"] == [{"trait_type": "light", "value": 3}, {"trait_type": "mass", "value": "1200 g"}]
    assert [file["uri"] for file in made["files"]] == [f"ipfs://{file.cid}" for file in (model, image, audio)]
    assert "decimals" not in made


def test_a_currency_has_decimals(tmp_path):
    """The attribute that says so becomes the standard's field."""
    descriptor = lantern(Store(tmp_path / "content"), tmp_path)
    coin = descriptor.make(name="Crown", kind="currency", attributes={"decimals": 2})
    assert metadata(coin)["decimals"] == 2
