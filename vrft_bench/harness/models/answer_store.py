"""Where answers lie that are kept across runs: one SQLite file in a folder, for several processes at once.

Write-ahead logging makes every answer whole or absent, whatever kills the process that writes it; an answer of the last
moments before a power cut may be lost, which costs a question. The file names its own format, so that a file of
somebody else's is never written to and one of a newer version is never misread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrft_bench.errors import UserError

FILE = "answers.sqlite3"

_APPLICATION_ID = int.from_bytes(b"VRFT")
_FORMAT = 1
_WAIT_SECONDS = 30.0
"""How long a process waits for another one's write, each of which takes well under a millisecond."""


class AnswerStore:
    """Texts by key in ``folder``, which is made where it is missing.

    Raises :class:`UserError` for a folder that cannot be written, and for a file in it that is damaged, another
    program's, or of another version. Later on, :meth:`get` and :meth:`put` raise ``sqlite3.Error``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone_in(folder):
                self._database = _open(self.path)
        except OSError as error:
            raise _unusable(self.path, error.strerror or str(error)) from error
        except sqlite3.OperationalError as error:
            raise _unusable(self.path, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise _not_ours(self.path, f"is damaged ({error})") from error

    def get(self, key: bytes) -> str | None:
        """The text under ``key``."""
        row = self._database.execute("SELECT completion FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: bytes, completion: str) -> None:
        """Keep ``completion`` under ``key``: on return, no crash of a process can lose it."""
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, completion))

    def close(self) -> None:
        """May be called twice."""
        self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    # A backend may read its requests, which look answers up, on a thread of its own; SQLite itself takes turns.
    database = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        application, version = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        is_empty = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if application == 0 and is_empty:
            _lay_out(database)
        elif application != _APPLICATION_ID:
            raise _not_ours(path, "is another program's database")
        elif version != _FORMAT:
            raise _not_ours(path, f"has format {version}, and this version of vrft-bench reads {_FORMAT}")
        database.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        database.close()
        raise
    return database


def _lay_out(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("BEGIN IMMEDIATE")
    database.execute("CREATE TABLE answers (key BLOB PRIMARY KEY, completion TEXT NOT NULL)")
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {_FORMAT}")
    database.execute("COMMIT")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Of several processes, one at a time opens the file: SQLite refuses to change the journal mode of one in use."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(
        f"--cache: {path} cannot be used: {reason}", fix="name a folder on a local disk that can be written"
    )


def _not_ours(path: Path, reason: str) -> UserError:
    return UserError(
        f"--cache: {path} {reason}", fix=f"delete {path.parent} (nothing but time is lost), or name another folder"
    )
