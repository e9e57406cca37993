"""The demo's PostgreSQL: its databases, made once, and connections to them."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from vector_assets.engine import env
from vector_assets.engine.errors import FatalError, TransientError

_TIMEOUT_S = 30.0


def ensure_database(name: str) -> None:
    """Create the database where it lacks.

    Raises:
        TransientError: the server does not answer.
    """
    with connected("postgres") as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if not found:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


@contextmanager
def connected(database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection to the demo's server; every statement commits by itself.

    Raises:
        TransientError: the server does not answer.
        FatalError: it refuses a statement.
    """
    host, _, port = env.secret("postgres_address").partition(":")
    try:
        with psycopg.connect(
            host=host, port=int(port), dbname=database, user=env.secret("postgres_user"),
            password=env.secret("postgres_password"), autocommit=True, connect_timeout=int(_TIMEOUT_S),
        ) as connection:  # fmt: skip
            yield connection
    except psycopg.OperationalError as error:
        raise TransientError(f"demo: postgres at {host}:{port}: {error}") from error
    except psycopg.Error as error:
        raise FatalError(f"demo: {database}: {error}") from error
