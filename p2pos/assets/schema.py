"""The descriptor's JSON Schema, for authors' editors and other people's programs. Pure.

Made of the model, so that it says what the parser does as far as a schema can. What it can't say: the composed form of
Unicode and characters that don't show, that a number is written without a point, that `image` and `animation_url` are
those of the files, that a unit is an attribute's that is a whole number, the canonical form and its size.
"""

from typing import Any

from p2pos.assets.descriptor import Descriptor

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema of a document as an author writes it; the canonical form has every field."""
    made = Descriptor.model_json_schema()
    head = {"$schema": DIALECT, "title": "p2pos-descriptor-1"}
    return {**head, **{key: value for key, value in _untitled(made).items() if key != "title"}}


def _untitled(value: Any) -> Any:
    """The same without the titles, which only repeat the names."""
    if isinstance(value, dict):
        return {key: _untitled(each) for key, each in value.items() if not (key == "title" and isinstance(each, str))}
    return [_untitled(each) for each in value] if isinstance(value, list) else value
