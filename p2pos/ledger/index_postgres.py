"""The index in PostgreSQL, for those who outgrow a file: same tables, same code. The only importer of psycopg.

Each contract has a schema of its own, so one database may hold several. A connection that was lost is made again for
what comes next.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from p2pos.errors import P2posError, UnavailableError, UserError
from p2pos.ledger.index_schema import ddl
from p2pos.ledger.index_store import Store

CONNECT_S = 10
"""To reach the server."""
STATEMENT_MS = 120_000
"""For one statement; the longest is the copy of a batch's 50,000 mentions."""


class PostgresStore(Store):
    """One schema of a database.

    Args:
        url: postgresql://USER:PASSWORD@HOST:PORT/DATABASE; what it leaves out, libpq takes from PG* and ~/.pgpass.
        schema: made where it is not there.

    Raises:
        UserError: the URL can't be one, or the server refuses who asks.
        UnavailableError: nobody answers there.

    """

    def __init__(self, url: str, schema: str) -> None:
        try:
            self._info: dict[str, Any] = dict(conninfo_to_dict(url))
        except psycopg.Error:  # its text may have the password in it
            raise UserError(
                "the index's URL is not one of PostgreSQL",
                hint="write postgresql://USER@HOST:PORT/DATABASE, with %xx for what is special in a name or password",
            ) from None
        host, database = self._info.get("host", "localhost"), self._info.get("dbname", "")
        self.where = f"postgresql://{host}/{database} schema {schema}"
        self._schema = schema
        self._info.setdefault("connect_timeout", CONNECT_S)
        self._inside = False
        """Whether a transaction is under way: what is lost with its connection must not go on in another."""
        self._db = self._connect()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query answers."""
        self._reconnect()
        with self._errors():
            return self._db.execute(_marked(sql), parameters).fetchall()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """One statement that answers nothing."""
        self._reconnect()
        with self._errors():
            self._db.execute(_marked(sql), parameters)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each row."""
        with self._errors(), self._db.cursor() as cursor:
            cursor.executemany(_marked(sql), rows)

    def append(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows that are not there yet, by COPY."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        command = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
        with self._errors(), self._db.cursor() as cursor, cursor.copy(command) as copy:
            for row in rows:
                copy.write_row(row)

    @contextmanager
    def write(self) -> Iterator[None]:
        """A transaction that alone may write; undone where the block raises."""
        with self._transaction("BEGIN"):
            self.run("LOCK TABLE blocks IN EXCLUSIVE MODE")  # readers are let through, another writer waits
            yield

    @contextmanager
    def read(self) -> Iterator[None]:
        """A transaction in which all queries see the same moment."""
        with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    def close(self) -> None:
        """Let go of the connection."""
        self._db.close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self.run(begin)
        self._inside = True
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            with contextlib.suppress(P2posError):  # where the connection is lost, the server undoes it by itself
                if not self._db.closed:
                    self.run("ROLLBACK")
            raise
        finally:
            self._inside = False

    def _reconnect(self) -> None:
        if self._db.closed and not self._inside:
            self._db = self._connect()

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        with self._errors():
            db = psycopg.connect(**self._info, autocommit=True)  # transactions are begun and ended by name
        self._db = db
        try:
            self.run(f"SET statement_timeout = {STATEMENT_MS}")
            # two at once would both find nothing there, and one of them fail; the lock goes with the connection, too
            self.run(f"SELECT pg_advisory_lock(hashtext('{self._schema}'))")
            self.run(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
            self.run(f"SET search_path = {self._schema}")
            self.run("SET client_min_messages = warning")
            for statement in ddl(postgres=True):
                self.run(statement)
            self.run(f"SELECT pg_advisory_unlock(hashtext('{self._schema}'))")
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            raise UnavailableError(
                f"the index's database at {self.where} can't be used: {_line(exc)}",
                hint="is the server running? check the setting index_url",
            ) from exc
        except psycopg.Error as exc:
            raise UserError(
                f"the index's database at {self.where} refuses: {_line(exc)}",
                hint="check the rights of its user; or drop the schema, it is made again",
            ) from exc


def _marked(text: str) -> bytes:
    """The SQL with psycopg's mark for a parameter. None of ours has a question mark or a percent sign in it."""
    return text.replace("?", "%s").encode()


def _line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
