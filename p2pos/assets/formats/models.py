"""3-D models: glTF 2.0, as JSON and as GLB. Pure."""

from typing import Any

from p2pos.assets.formats.reader import MAX_DOCUMENT, FormatError, Reader
from p2pos.content import strict_json

JSON_CHUNK = 0x4E4F534A
BIN_CHUNK = 0x004E4942
MAX_CHUNKS = 16
"""Of a GLB: it has two; extensions may add some."""
MAX_BUFFERS = 1 << 16
"""Buffers or images of a scene."""


def glb(reader: Reader) -> str:
    """A GLB: its header's length is the file's, its chunks fill it, and its scene refers to nothing outside."""
    head = reader.exactly(12, "header")
    if head[:4] != b"glTF":
        raise FormatError("it doesn't begin as a GLB does")
    version, length = _word(head, 4), _word(head, 8)
    if version != 2:
        raise FormatError(f"it is a GLB of version {version}, not 2")
    if length != reader.size:
        raise FormatError(f"its header says {length} bytes, and it has {reader.size}")
    scene: dict[str, Any] | None = None
    binary = -1
    chunks = 0
    while reader.left:
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise FormatError(f"it has more than {MAX_CHUNKS} chunks")
        head = reader.exactly(8, "chunk's header")
        count, kind = _word(head, 0), _word(head, 4)
        if count % 4:
            raise FormatError(f"its chunk {chunks} has {count} bytes, which is not a multiple of 4")
        if chunks == 1:
            if kind != JSON_CHUNK:
                raise FormatError("its first chunk is not the scene's JSON")
            scene = _scene(reader.exactly(count, "scene"))
            continue
        if kind == BIN_CHUNK:
            if chunks != 2:
                raise FormatError("its binary chunk is not the second one")
            binary = count
        reader.skip(count, f"chunk {chunks}")
    if scene is None:
        raise FormatError("it has no scene")
    return "GLB, " + _look(scene, binary)


def gltf(reader: Reader) -> str:
    """A glTF scene as JSON, which refers to nothing outside."""
    return "glTF, " + _look(_scene(reader.exactly(reader.size, "scene")), -1)


def _scene(data: bytes) -> dict[str, Any]:
    try:
        value = strict_json.loads(data)
    except ValueError as exc:
        raise FormatError(f"its scene is not JSON: {str(exc)[:100]}") from exc
    asset = value.get("asset") if isinstance(value, dict) else None
    version = asset.get("version") if isinstance(asset, dict) else None
    if not isinstance(version, str) or not version.startswith("2."):
        raise FormatError("its scene is not one of glTF 2")
    return dict(value)


def _look(scene: dict[str, Any], binary: int) -> str:
    """What is in a scene; `binary` is the bytes of the GLB's buffer, -1 where there is none. Raises FormatError."""
    for name in ("buffers", "images"):
        for number, each in enumerate(_list(scene, name)):
            uri = each.get("uri")
            if uri is not None and not (isinstance(uri, str) and uri.startswith("data:")):
                raise FormatError(
                    f"its {name[:-1]} {number} lies outside it, at {str(uri)[:60]}: pack all into one GLB"
                )
    for number, buffer in enumerate(_list(scene, "buffers")):
        length = buffer.get("byteLength")
        if not isinstance(length, int) or not 0 < length <= 1 << 32:
            raise FormatError(f"its buffer {number} has no length")
        if "uri" in buffer:
            continue
        if number or binary < 0:
            raise FormatError(f"its buffer {number} is nowhere")
        if not length <= binary <= length + 3:
            raise FormatError(f"its buffer is said to have {length} bytes, and has {binary}")
    counts = {name: len(_list(scene, name)) for name in ("meshes", "materials", "animations")}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "empty"


def _list(scene: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = scene.get(name, [])
    if not isinstance(value, list) or len(value) > MAX_BUFFERS or not all(isinstance(each, dict) for each in value):
        raise FormatError(f"its {name} are not a list of objects")
    return value


def document(reader: Reader) -> str:
    """Any JSON document, of up to `MAX_DOCUMENT` bytes."""
    if reader.size > MAX_DOCUMENT:
        raise FormatError(f"a document of more than {MAX_DOCUMENT} bytes")
    try:
        strict_json.loads(reader.exactly(reader.size, "document"))
    except ValueError as exc:
        raise FormatError(f"it is not JSON: {str(exc)[:100]}") from exc
    return "JSON"


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
