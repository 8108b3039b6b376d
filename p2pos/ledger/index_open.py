"""Where a contract's index is: a file at home, or PostgreSQL by a URL."""

import importlib
from pathlib import Path

from p2pos.errors import UserError
from p2pos.ledger.index import Index
from p2pos.ledger.typed_data import Domain

SCHEMES = ("postgresql://", "postgres://")


def open_index(home: Path, domain: Domain, url: str = "") -> Index:
    """Open or begin the index of one contract.

    Args:
        home: where it is a file, `index/CHAIN-CONTRACT.sqlite`.
        domain: chain and contract.
        url: of a PostgreSQL database; "" is the file.

    Raises:
        UserError: the file is none, the URL is odd, or what speaks to PostgreSQL is not installed.
        UnavailableError: the database does not answer.

    """
    if not url:
        return Index(home / "index" / f"{domain.chain_id}-{domain.contract}.sqlite")
    if not url.startswith(SCHEMES):
        raise UserError("the index's URL is not one of PostgreSQL", hint="write postgresql://USER@HOST:PORT/DATABASE")
    try:
        module = importlib.import_module("p2pos.ledger.index_postgres")
    except ImportError as exc:
        raise UserError(
            "an index in PostgreSQL needs psycopg, which is not installed", hint="pip install 'p2pos[postgres]'"
        ) from exc
    schema = f"p2pos_{domain.chain_id}_{domain.contract[2:].lower()}"
    return Index(module.PostgresStore(url, schema))
