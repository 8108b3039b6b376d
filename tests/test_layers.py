"""Imports point down, packages on one floor do not import each other, and some libraries have one importer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "p2pos"

GROUND = {"errors", "types", "config", "log", "leash", "lock", "http_server"}
"""Modules that stand beneath every package."""

MAY_IMPORT: dict[str, set[str]] = {
    # package or module: what of p2pos it may import, besides itself
    "errors": set(),
    "types": {"errors"},
    "config": {"errors", "types"},
    "log": set(),
    "leash": set(),
    "lock": {"errors"},
    "http_server": {"errors"},
    "models": set(),
    "wire": {"errors", "types"},
    "content": GROUND | {"wire"},
    "shard": GROUND | {"wire", "content"},
    "ledger": GROUND | {"wire", "content"},
    # `assets` may use the ledger's pure types
    "assets": GROUND | {"wire", "content", "ledger.typed_data", "ledger.intents", "ledger.naming"},
    "node": GROUND | {"wire", "content", "shard", "ledger", "assets"},
    "devnet": GROUND | {"wire", "content", "shard", "ledger", "assets", "node"},
    "cli": GROUND | {"wire", "content", "shard", "ledger", "assets", "node", "devnet", "models"},
    "__main__": {"cli"},
}

SOLE_IMPORTER = {
    # library: the files that may import it
    "libp2p": "node/",
    "msgspec": "wire/",
    "web3": "ledger/chain.py",
    "psycopg": "ledger/index_postgres.py",
}

PURE = (
    "wire",
    *(f"content/{name}.py" for name in ("cid", "chunks", "bucket", "exchange", "strict_json", "unixfs", "car")),
    *(f"shard/{name}.py" for name in ("backoff", "coverage", "placement", "planning", "ring", "routing", "scheduler")),
    "shard/session.py",
    "shard/owner.py",
    *(
        f"shard/{name}.py"
        for name in ("incoming", "orders", "outgoing", "repair", "request", "trouble", "watch", "effects")
    ),
    "shard/events.py",
    "shard/retokenize.py",
    "node/engine_api.py",
    "node/engine_text.py",
    *(
        f"ledger/{name}.py"
        for name in (
            "bloom",
            "typed_data",
            "intents",
            "calldata",
            "events",
            "fees",
            "records",
            "reverts",
            "abi",
        )
    ),
    *(f"ledger/{name}.py" for name in ("settlement", "eip712", "plain_words", "signatures", "story", "terms")),
    *(f"ledger/{name}.py" for name in ("packed", "queue_records", "batching", "lines", "transaction")),
    *(f"ledger/index_{name}.py" for name in ("decode", "schema", "state")),
    *(f"ledger/{name}.py" for name in ("deeds", "cautions", "clef", "naming", "mnemonic", "keystore")),
    *(f"ledger/{name}.py" for name in ("limits", "figures", "versions")),
    "ledger/rpc_answers.py",
    "ledger/rpc_quorum.py",
    "assets",
    "devnet/story.py",
    *(f"node/{name}.py" for name in ("table", "gossip", "kademlia", "records", "conduct")),
    *(f"node/{name}.py" for name in ("reachability", "relay_book")),
)
IMPURE_LIBRARIES = {
    "trio",
    "socket",
    "torch",
    "web3",
    "libp2p",
    "httpx",
    "httpcore",
    "time",
    "threading",
    "subprocess",
    "sqlite3",
}


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """A file imports only what its package may."""
    here = place(path)
    if here == "__init__":
        return
    allowed = MAY_IMPORT[here]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "p2pos" or len(parts) == 1 or name == "p2pos.__version__":
            continue
        target = parts[1]
        assert (
            target == here
            or target in allowed
            or any(
                name.startswith(f"p2pos.{entry}") or f"p2pos.{entry}".startswith(name)
                for entry in allowed
                if "." in entry
            )
        ), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("library", SOLE_IMPORTER)
def test_sole_importer(library: str) -> None:
    """A library that is wrapped is imported by its wrapper alone."""
    found = {
        str(path.relative_to(ROOT))
        for path in sources()
        if any(name == library or name.startswith(library + ".") for name in imports(path))
    }
    assert found, f"nobody imports {library}"
    assert {file for file in found if not file.startswith(SOLE_IMPORTER[library])} == set()


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_cores_touch_no_world(path: Path) -> None:
    """A pure machine imports no sockets, no clock, no torch, no chain."""
    relative = str(path.relative_to(ROOT))
    if not relative.startswith(PURE):
        return
    assert IMPURE_LIBRARIES.isdisjoint(name.split(".")[0] for name in imports(path))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_assert_guards_the_package(path: Path) -> None:
    """Asserts vanish under -O, so the package has none."""
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text())))


def test_no_import_cycles() -> None:
    """The modules form no cycle."""
    graph: dict[str, set[str]] = {}
    names = {".".join(("p2pos", *path.relative_to(ROOT).with_suffix("").parts)): path for path in sources()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    for name, path in names.items():
        graph[name] = {found for found in imports(path) if found in names and found != name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
