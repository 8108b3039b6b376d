"""ERC-1155 metadata of a descriptor, as wallets and marketplaces that know nothing of p2pos read it. Pure.

The descriptor is such metadata already, as far as the standard goes. What marketplaces expect besides is added here:
`properties` by the standard's richer form, `attributes` as the list that OpenSea made customary, and `files`.
"""

from typing import Any

from p2pos.assets.descriptor import Descriptor

DECIMALS = "decimals"
"""The attribute of a currency that says how many of its last digits stand behind the point; ERC-1155 has a field."""


def metadata(descriptor: Descriptor) -> dict[str, Any]:
    """The document, as JSON values."""
    made: dict[str, Any] = {"name": descriptor.name, "description": descriptor.description}
    for field in ("image", "animation_url"):
        if uri := getattr(descriptor, field):
            made[field] = uri
    decimals = descriptor.attributes.get(DECIMALS)
    if type(decimals) is int:
        made["decimals"] = decimals
    properties: dict[str, Any] = {}
    attributes: list[dict[str, Any]] = []
    for key, value in descriptor.attributes.items():
        unit = descriptor.units.get(key)
        shown = f"{value} {unit}"
        properties[key] = {"name": key, "value": value, "display_value": shown, "unit": unit} if unit else value
        attributes.append({"trait_type": key, "value": shown if unit else value})
    made["properties"] = {"kind": descriptor.kind, **properties}
    made["attributes"] = attributes
    made["files"] = [
        {"role": file.role, "uri": f"ipfs://{file.cid}", "type": file.media_type, "size": file.size}
        for file in descriptor.files
    ]
    return made
