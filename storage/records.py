"""Opening the records database: SQLite with full durability, or any SQLAlchemy address. Reads and writes apart.

`Records.write()` is one transaction. On SQLite it holds the write lock from its first statement, so two writers wait
for each other instead of failing half-way; on PostgreSQL those wait who must, see `storage.turns`. What it committed
has reached the disk (SQLite: synchronous=FULL).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import alembic.command
import alembic.config
import alembic.script
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from core.errors import DataFolderError, SettingsError, StoreUnavailable
from storage.turns import take_turn

BUSY_TIMEOUT_S: Final = 1
"""Writes take milliseconds. Who waits longer gets StoreUnavailable: the worker tries again, a person is told."""
_MIGRATIONS = Path(__file__).parent / "migrations"


class Records:
    """A pool of connections to one records database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one consistent moment. Raises StoreUnavailable."""
        with _plain_errors(), _reading(self._engine) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed as a whole at the end, or rolled back on any error. Raises StoreUnavailable."""
        with _plain_errors(), _writing(self._engine) as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def dialect_insert(connection: Connection, table: Table) -> Any:
    """INSERT with ON CONFLICT, which both databases know and SQLAlchemy has under a name for each."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def address(url: str, folder: Path) -> str:
    """The database address in force: `database.url`, or SQLite in the data folder."""
    return url or f"sqlite:///{folder / 'records.sqlite'}"


def open_records(url: str) -> Records:
    """Opens a database whose schema is current; an empty one gets the schema first.

    Raises DataFolderError when it is not ours, or of an older or newer version: nothing is changed then.
    """
    engine = _engine(url)
    try:
        found = _revision(engine)
        if found is None:
            _upgrade(engine)
        else:
            _refuse_other_schema(found)
            _use_write_ahead_log(engine)
    except BaseException:
        engine.dispose()
        raise
    return Records(engine)


def migrate(url: str) -> tuple[str | None, str]:
    """Brings a database of an older version up to date. Returns the revisions before and after."""
    engine = _engine(url)
    try:
        before = _revision(engine)
        if before is not None and before not in _known_revisions():
            raise DataFolderError(_newer(before))
        _upgrade(engine)
        return before, _head()
    finally:
        engine.dispose()


def _engine(url: str) -> Engine:
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, ImportError) as error:
        raise SettingsError(f"database.url: {error}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see _begin_sqlite
    for pragma in ("synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_S * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("tizhuang_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection:  # SQLite reads one moment anyway
        yield connection


@contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    options: dict[str, Any] = {"tizhuang_writes": True}
    if engine.dialect.name == "postgresql":  # after waiting for its turn, a writer must see what the other one did
        options["isolation_level"] = "READ COMMITTED"
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise StoreUnavailable(f"records database: {error.orig}") from error


def _revision(engine: Engine) -> str | None:
    """The revision of the schema; None: an empty database. Raises DataFolderError when it is somebody else's."""
    try:
        with _plain_errors(), engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            if found is None and inspect(connection).get_table_names():
                raise DataFolderError(
                    f"{engine.url!r} has tables and no version of ours: it is of an older version or another program, "
                    "and was left as it is"
                )
            return found
    except DatabaseError as error:
        raise DataFolderError(f"{engine.url!r}: {error.orig}") from error


def _use_write_ahead_log(engine: Engine) -> None:
    """Readers do not wait for writers then. The file remembers it, so this is only for files known to be ours."""
    if engine.dialect.name == "sqlite":
        with _plain_errors(), engine.connect() as connection:
            connection.connection.execute("PRAGMA journal_mode=WAL")


def _upgrade(engine: Engine) -> None:
    """Runs all missing migrations in one transaction."""
    config = _config()
    _use_write_ahead_log(engine)
    with _plain_errors(), _writing(engine) as connection:
        take_turn(connection)  # two processes that start at the same moment
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def _config() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _head() -> str:
    head = alembic.script.ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the migrations folder is empty"
    return head


def _known_revisions() -> set[str]:
    script = alembic.script.ScriptDirectory.from_config(_config())
    return {revision.revision for revision in script.walk_revisions()}


def _newer(found: str) -> str:
    return f"the records were written by a newer version (schema '{found}'); use that version or another data folder"


def _refuse_other_schema(found: str) -> None:
    head = _head()
    if found == head:
        return
    if found not in _known_revisions():
        raise DataFolderError(_newer(found))
    raise DataFolderError(
        f"the records were written by an older version (schema '{found}', this version needs '{head}'); "
        "run `tizhuang migrate`, which keeps a copy of them"
    )
