"""The index's tables, in SQL that SQLite and PostgreSQL both take. Pure.

Addresses and class ids are in `names`, once; everywhere else stands their row number. A happening is one row, appended
in the chain's order by `seq`. Amounts are decimal text, since they may have 256 bits.

`mentions` says which happenings a name is in. Keyed by (name, seq) every insertion would dirty a page of its own, 4 kB
written for 10 bytes: in a trial of these statements alone, most of their time. So it is cut into segments of 16,384
happenings: the current one (some 150 pages) stays in the cache, and a query looks into all of them, newest first (6,000
for a hundred million happenings).
"""

from p2pos.ledger.index_state import TABLES

_SQLITE = {"n": "TEXT", "i": "INTEGER", "r": "INTEGER", "b": "BLOB"}
_POSTGRES = {"n": "TEXT", "i": "BIGINT", "r": "BIGINT", "b": "BYTEA"}

_FIXED = """
CREATE TABLE IF NOT EXISTS names (id {row} PRIMARY KEY, value {bytes} NOT NULL UNIQUE){rowid};
CREATE TABLE IF NOT EXISTS blocks (
  number {row} PRIMARY KEY, hash {bytes} NOT NULL, timestamp {int} NOT NULL,
  first_seq {int} NOT NULL, first_tx {int} NOT NULL, undo {bytes}
){rowid};
CREATE INDEX IF NOT EXISTS blocks_with_undo ON blocks (number) WHERE undo IS NOT NULL;
CREATE TABLE IF NOT EXISTS transactions (id {row} PRIMARY KEY, block {int} NOT NULL, hash {bytes} NOT NULL){rowid};
CREATE TABLE IF NOT EXISTS happenings (
  seq {row} PRIMARY KEY, tx {int} NOT NULL, log {int} NOT NULL, position {int} NOT NULL, kind TEXT NOT NULL,
  one {int}, other {int}, operator {int}, item {int}, amount TEXT, extra TEXT
){rowid};
CREATE TABLE IF NOT EXISTS mentions (
  segment {int} NOT NULL, name {int} NOT NULL, seq {int} NOT NULL, PRIMARY KEY (segment, name, seq)
){clustered};
"""

STATE_TABLES = tuple(table.name for table in TABLES)
ALL_TABLES = ("blocks", "transactions", "happenings", "mentions", *STATE_TABLES)
"""What is emptied where all is read again; names stay, so that numbers handed out once keep their meaning."""


def ddl(*, postgres: bool) -> list[str]:
    """The statements that make what is not there yet."""
    kinds = _POSTGRES if postgres else _SQLITE
    options = {
        "row": "BIGINT" if postgres else "INTEGER",
        "int": kinds["i"],
        "bytes": kinds["b"],
        "rowid": "" if postgres else " STRICT",
        "clustered": "" if postgres else " STRICT, WITHOUT ROWID",
    }
    statements = [one.strip() for one in _FIXED.format(**options).split(";") if one.strip()]
    for table in TABLES:
        keys = [f"{name} {kinds[kind]} NOT NULL" for name, kind in table.keys]
        values = [f"{name} {kinds[kind]}" for name, kind in table.values]
        primary = f"PRIMARY KEY ({', '.join(name for name, _ in table.keys)})"
        columns = ", ".join([*keys, *values, primary])
        statements.append(f"CREATE TABLE IF NOT EXISTS {table.name} ({columns}){options['clustered']}")
    statements.append("CREATE INDEX IF NOT EXISTS balances_by_item ON balances (item, account)")
    return statements
