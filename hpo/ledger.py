"""The ledger: the lines of shared studies in a PostgreSQL database, in one order for all who read them.

    hpo_studies       a study: name, id, and what somebody who joins needs, as JSON
    hpo_lines         its lines, numbered from 1 without a gap; appended, never changed
    hpo_coordinators  who works on it: where, and when it was last heard of, by the database's clock

Who appends holds the study's row, so that lines come one after the other and a decision made on all of them is
still right when it is written. Knows SQL and psycopg; not what a line says.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.errors import HpoError, UserError

if TYPE_CHECKING:
    import psycopg

FORMAT = 1
_CONNECT_SECONDS = 10
_HELD_SECONDS = 60  # a coordinator that freezes while it holds a study lets go of it after so long
_CREATION = 0x68706F  # a lock of our own for making the tables
_TABLES = """
CREATE TABLE IF NOT EXISTS hpo_studies (
    name text PRIMARY KEY, id text UNIQUE NOT NULL, format int NOT NULL,
    created timestamptz NOT NULL DEFAULT now(), content text NOT NULL);
CREATE TABLE IF NOT EXISTS hpo_lines (
    study text NOT NULL REFERENCES hpo_studies (id) ON DELETE CASCADE, number bigint NOT NULL,
    place text NOT NULL, line text NOT NULL, PRIMARY KEY (study, number));
CREATE TABLE IF NOT EXISTS hpo_coordinators (
    study text NOT NULL REFERENCES hpo_studies (id) ON DELETE CASCADE, place text NOT NULL,
    host text NOT NULL, root text NOT NULL, process int NOT NULL, seen timestamptz, PRIMARY KEY (study, place));
"""


class Unreachable(HpoError):
    """The database does not answer at the moment."""


@dataclass(frozen=True, slots=True)
class Post:
    """One line of a study: its number, the place of the coordinator that wrote it, and its text."""

    number: int
    place: str
    line: str


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Who works, or worked, on a study.

    Attributes:
        place: of its study folder, for good.
        host: its machine's name.
        root: the study folder there.
        process: its number there.
        silent_seconds: since it was last heard of; None where it left in good order.
    """

    place: str
    host: str
    root: str
    process: int
    silent_seconds: float | None = 0.0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} ({self.root})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A shared study: its name, its id, and what somebody who joins it needs."""

    name: str
    id: str
    content: dict[str, Any]


class Ledger:
    """A connection to the database, made when it is needed and made again when it was lost.

    Args:
        address: postgresql://user@host/database, without a password: PGPASSWORD or ~/.pgpass give it.

    Every method raises Unreachable where the database does not answer, UserError where it refuses.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """The connection; what goes wrong with it in the words of this program."""
        psycopg = _driver()
        try:
            if self._connection is None or self._connection.closed:
                self._connection = _connect(self.address)
            yield self._connection
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
            self.close()
            raise _in_words(self.address, error) from None
        except psycopg.Error as error:
            self.close()
            raise UserError(f"the database {self.address} refuses: {_first_line(error)}.") from None

    # -- studies ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the tables where they are lacking."""
        with self._connected() as connection:
            if connection.execute("SELECT to_regclass('hpo_coordinators')").fetchone() != (None,):
                return
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATION,))
                for statement in _TABLES.split(";\n"):
                    if statement.strip():
                        connection.execute(statement.encode())

    def entries(self) -> list[str]:
        """The names of the shared studies, sorted."""
        self.prepare()
        with self._connected() as connection:
            rows = connection.execute("SELECT name FROM hpo_studies ORDER BY name").fetchall()
        return [name for (name,) in rows]

    def find(self, name: str) -> Entry | None:
        """The study of this name.

        Raises:
            UserError: a newer version of this program wrote it.
        """
        self.prepare()
        with self._connected() as connection:
            row = connection.execute("SELECT id, format, content FROM hpo_studies WHERE name = %s", (name,)).fetchone()
        if row is None:
            return None
        if row[1] != FORMAT:
            raise UserError(f"study {name!r} in {self.address} has format {row[1]}, this version reads {FORMAT}.")
        return Entry(name, row[0], json.loads(row[2]))

    def add(self, entry: Entry) -> Entry:
        """Enter a study; the one that has its name then, which may be another's."""
        self.prepare()
        with self._connected() as connection:
            connection.execute(
                "INSERT INTO hpo_studies (name, id, format, content) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (entry.name, entry.id, FORMAT, json.dumps(entry.content)),
            )
        found = self.find(entry.name)
        assert found is not None
        return found

    def remove(self, study: str) -> None:
        """Remove a study, its lines and who worked on it."""
        with self._connected() as connection:
            connection.execute("DELETE FROM hpo_studies WHERE id = %s", (study,))

    # -- lines --------------------------------------------------------------------------------------------

    def read(self, study: str, after: int) -> list[Post]:
        """The lines that follow number `after`."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT number, place, line FROM hpo_lines WHERE study = %s AND number > %s ORDER BY number",
                (study, after),
            ).fetchall()
        return [Post(*row) for row in rows]

    @contextlib.contextmanager
    def held(self, study: str) -> Iterator[None]:
        """Hold a study: nobody else appends until the block is over. What is appended in it counts as a whole.

        Raises:
            HpoError: it was removed from the database.
        """
        with self._connected() as connection, connection.transaction():
            row = connection.execute("SELECT 1 FROM hpo_studies WHERE id = %s FOR NO KEY UPDATE", (study,)).fetchone()
            if row is None:
                raise HpoError(f"the study was removed from {self.address}; what it found is still here.")
            yield

    def append(self, study: str, posts: Sequence[Post]) -> None:
        """Append lines, numbered by the caller, who holds the study."""
        with self._connected() as connection:
            for post in posts:
                connection.execute(
                    "INSERT INTO hpo_lines (study, number, place, line) VALUES (%s, %s, %s, %s)",
                    (study, post.number, post.place, post.line),
                )

    def lock(self, what: str) -> bool:
        """Whether this connection holds a lock of this name now; it does until it is closed."""
        with self._connected() as connection:
            row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (what,)).fetchone()
        return row == (True,)

    # -- coordinators -------------------------------------------------------------------------------------

    def coordinators(self, study: str) -> dict[str, Coordinator]:
        """All who ever worked on a study, by place."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT place, host, root, process, extract(epoch FROM clock_timestamp() - seen)::float8"
                " FROM hpo_coordinators WHERE study = %s",
                (study,),
            ).fetchall()
        return {row[0]: Coordinator(*row) for row in rows}

    def beat(self, study: str, who: Coordinator) -> None:
        """Say that a coordinator lives."""
        with self._connected() as connection:
            connection.execute(
                "INSERT INTO hpo_coordinators (study, place, host, root, process, seen)"
                " VALUES (%s, %s, %s, %s, %s, clock_timestamp()) ON CONFLICT (study, place) DO UPDATE SET"
                " host = EXCLUDED.host, root = EXCLUDED.root, process = EXCLUDED.process, seen = EXCLUDED.seen",
                (study, who.place, who.host, who.root, who.process),
            )

    def leave(self, study: str, place: str) -> None:
        """Say that a coordinator has left in good order."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE hpo_coordinators SET seen = NULL WHERE study = %s AND place = %s", (study, place)
            )


class Heartbeat:
    """Says every few seconds that a coordinator lives, on a connection of its own, in a thread of its own."""

    def __init__(self, address: str, study: str, who: Coordinator, every_seconds: float) -> None:
        self._ledger = Ledger(address)
        self._study, self._who, self._every = study, who, every_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            # A database that is down is the search's to tell of; here the next beat tries again.
            with contextlib.suppress(HpoError):
                self._ledger.beat(self._study, self._who)
        self._ledger.close()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(_CONNECT_SECONDS + 5.0)


def _driver() -> Any:
    try:
        import psycopg
    except ImportError:
        raise UserError('a study in PostgreSQL requires the package psycopg: pip install "hpo[postgres]"') from None
    return psycopg


def _connect(address: str) -> psycopg.Connection[Any]:
    connection: psycopg.Connection[Any] = _driver().connect(
        address,
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
        application_name="hpo",
        # A machine that vanished, or this one cut off, is noticed within a minute instead of hours.
        keepalives_idle=15,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )
    connection.execute(f"SET idle_in_transaction_session_timeout = '{1000 * _HELD_SECONDS:.0f}ms'".encode())
    connection.execute(f"SET lock_timeout = '{2000 * _HELD_SECONDS:.0f}ms'".encode())
    return connection


_REFUSED = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry", "invalid ")


def _in_words(address: str, error: Exception) -> HpoError:
    """A refusal is the user's to mend; everything else may pass."""
    text = _first_line(error)
    if not any(words in text for words in _REFUSED):
        return Unreachable(f"the database {address} does not answer: {text}")
    hint = " Set PGPASSWORD, or use ~/.pgpass." if "password" in text else ""
    return UserError(f"the database {address} refuses: {text}.{hint}")


def _first_line(error: Exception) -> str:
    """What the server or the network said, without where psycopg was just then."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    for lead in ("FATAL:", "ERROR:", "failed: "):
        text = text.rpartition(lead)[2]
    return text.strip().rstrip(".")
