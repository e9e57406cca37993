"""Positions and batches in the target's own database: what makes a batch land exactly once.

A commit's transaction first takes the guard (its batch row, then its positions, each moved only from where the batch
starts), then writes rows, so an overlapping commit waits or fails before it has written anything.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg import errors as pg
from psycopg import sql

from vector_assets.clients.postgres import Connection, said
from vector_assets.engine.abilities import Recalled, RecalledBatch
from vector_assets.engine.core import BatchToken, Counts, Found, Receipt, Span, canonical, no_rejects, rejects
from vector_assets.engine.errors import FatalError, FencedError, PlanError, TargetReplacedError
from vector_assets.sinks.contiguity import differences_of_texts, told

SCHEMA = "vector_assets"
_TABLES = {
    "positions": "pipeline text NOT NULL, target text NOT NULL, split text NOT NULL, next text NOT NULL,"
    " PRIMARY KEY (pipeline, target, split)",
    "batches": "pipeline text NOT NULL, target text NOT NULL, seq bigint NOT NULL, token text NOT NULL,"
    " fence bigint NOT NULL, incarnation text NOT NULL, span text, counts jsonb, rejects jsonb,"
    " commit_id bigint NOT NULL DEFAULT txid_current(), committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
    " PRIMARY KEY (pipeline, target, seq)",
}
_ADDED = {"batches": {"span": "text"}}
"""Columns that tables made by older code lack; NULL in their rows."""
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_CREATION_LOCK = int.from_bytes(hashlib.sha256(b"vector_assets token tables").digest()[:7])
_LOCK_TIMEOUT_MS = 3000
"""How long a commit waits for a lock before it looks who holds it."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token rows of one target table. `target` is its name inside the database, whatever the host is called."""

    target: str
    schema: str
    table: str

    def guard(self, connection: Connection, token: BatchToken, incarnation: str) -> bool:
        """Claim the batch and move its positions, inside the transaction that will write the rows.

        False when the batch's number is taken: `receipt` tells by whom.

        Raises:
            FencedError: the positions are not where the batch starts.
            TargetReplacedError: the table is not the one the last batch was written to.
        """
        connection.execute(
            "SELECT set_config('application_name', %s, true), set_config('lock_timeout', %s, true)",
            [f"{self._session(token)}{token.fence}", str(_LOCK_TIMEOUT_MS)],
        )
        try:
            claimed = connection.execute(
                "INSERT INTO vector_assets.batches (pipeline, target, seq, token, fence, incarnation, span)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (pipeline, target, seq) DO NOTHING",
                [token.pipeline, self.target, token.seq, token.id, token.fence, incarnation, token.span.to_json()],
            )
        except (pg.UndefinedTable, pg.InvalidSchemaName) as error:
            raise FatalError(f"adbpg: {self.target}: the token tables were dropped: {said(error)}") from error
        if claimed.rowcount == 0:
            return False
        self.check_incarnation(connection, token, incarnation)
        self._move(connection, token)
        return True

    def check_incarnation(self, connection: Connection, token: BatchToken, incarnation: str) -> None:
        """Raise TargetReplacedError unless the table is the one that was prepared and last written to."""
        found, last = self._incarnations(connection, token)
        if found is None:
            raise TargetReplacedError(f"{self.target} was dropped")
        for expected in (last, incarnation):
            if expected is not None and found != expected:
                raise TargetReplacedError(
                    f"{self.target} is a new table (oid {found}) under the name of the one that pipeline"
                    f" {token.pipeline} wrote to (oid {expected})"
                )

    def _incarnations(self, connection: Connection, token: BatchToken) -> tuple[str | None, str | None]:
        """Oid of the table that has the name now, and of the one that another batch was last written to."""
        row = connection.execute(
            "SELECT (SELECT c.oid::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s),"
            " (SELECT b.incarnation FROM vector_assets.batches b WHERE b.pipeline = %s AND b.target = %s"
            " AND b.seq <> %s ORDER BY b.seq DESC LIMIT 1)",
            [self.schema, self.table, token.pipeline, self.target, token.seq],
        ).fetchone()
        return (row[0], row[1]) if row else (None, None)

    def _move(self, connection: Connection, token: BatchToken) -> None:
        known = [part for part in token.span.ranges if part.split not in token.first_splits]
        new = [part for part in token.span.ranges if part.split in token.first_splits]
        if known:
            moved = connection.execute(
                "UPDATE vector_assets.positions AS p SET next = v.after"
                " FROM unnest(%s::text[], %s::text[], %s::text[]) AS v(split, before, after)"
                " WHERE p.pipeline = %s AND p.target = %s AND p.split = v.split AND p.next = v.before",
                [
                    [part.split for part in known],
                    [canonical(part.start) for part in known],
                    [canonical(part.end) for part in known],
                    token.pipeline,
                    self.target,
                ],
            )
            if moved.rowcount != len(known):
                raise self.fenced(connection, token)
        if new:
            made = connection.execute(
                "INSERT INTO vector_assets.positions (pipeline, target, split, next)"
                " SELECT %s, %s, v.split, v.after FROM unnest(%s::text[], %s::text[]) AS v(split, after)"
                " ON CONFLICT (pipeline, target, split) DO NOTHING",
                [token.pipeline, self.target, [p.split for p in new], [canonical(p.end) for p in new]],
            )
            if made.rowcount != len(new):
                raise self.fenced(connection, token)

    def fenced(self, connection: Connection, token: BatchToken) -> FencedError:
        """The error that shows where the batch starts and where the target is."""
        reasons = told(differences_of_texts(self._positions(connection, token), token))
        return FencedError(
            f"adbpg: {self.target}: batch {token.seq} of pipeline {token.pipeline} is not the next one: {reasons}"
        )

    def _positions(self, connection: Connection, token: BatchToken) -> dict[str, str]:
        rows = connection.execute(
            "SELECT split, next FROM vector_assets.positions WHERE pipeline = %s AND target = %s AND split = ANY(%s)",
            [token.pipeline, self.target, [part.split for part in token.span.ranges]],
        )
        return {row[0]: row[1] for row in rows}

    def finish(self, connection: Connection, token: BatchToken, counts: Counts, refused: dict[int, str]) -> str:
        """Note what became of the batch; the commit id, which is the transaction's."""
        row = connection.execute(
            "UPDATE vector_assets.batches SET counts = %s::jsonb, rejects = %s::jsonb"
            " WHERE pipeline = %s AND target = %s AND seq = %s RETURNING commit_id::text",
            [
                canonical(counts.to_dict()),
                orjson.dumps(sorted(refused.items())).decode(),
                token.pipeline,
                self.target,
                token.seq,
            ],
        ).fetchone()
        if row is None:
            raise FatalError(f"adbpg: {self.target}: the row of batch {token.seq} vanished inside its own transaction")
        return str(row[0])

    def find(self, connection: Connection, token: BatchToken) -> Found:
        """Whether the batch is applied; ABSENT only when the positions are where it starts.

        Raises:
            TargetReplacedError: the batch was applied to a table that is gone.
        """
        row = self._batch(connection, token)
        if row is None:
            found_positions = self._positions(connection, token)
            expected = {p.split: canonical(p.start) for p in token.span.ranges if p.split not in token.first_splits}
            if found_positions == expected:
                return "ABSENT"
            # another worker may have applied it between the two looks
            row = self._batch(connection, token)
        if row is None or row["token"] != token.id:
            return "UNKNOWN"
        found, _ = self._incarnations(connection, token)
        if found != row["incarnation"]:
            state = "was dropped" if found is None else f"is a new table (oid {found})"
            raise TargetReplacedError(
                f"{self.target} {state}; batch {token.seq} of pipeline {token.pipeline} was written to"
                f" oid {row['incarnation']}"
            )
        return "APPLIED"

    def receipt(self, connection: Connection, token: BatchToken) -> Receipt:
        """What the target noted when the batch was committed.

        Raises:
            FencedError: the batch is not there, or was applied by a later owner of the pipeline or under another token.
        """
        row = self._batch(connection, token)
        if row is None:
            raise self.fenced(connection, token)
        if row["token"] != token.id or row["fence"] > token.fence:
            raise FencedError(
                f"adbpg: {self.target}: batch {token.seq} of pipeline {token.pipeline} is in the target already, token"
                f" {row['token']} by fence {row['fence']}; ours is {token.id} by fence {token.fence}. If the ledger"
                f" was restored from a copy, `vector-assets ledger rebuild {token.pipeline}` brings it forward"
            )
        pairs = row["rejects"] or []
        refused = rejects([p for p, _ in pairs], "write", [reason for _, reason in pairs]) if pairs else no_rejects()
        return Receipt(token.id, str(row["commit_id"]), Counts.from_dict(row["counts"] or {}), refused)

    def _batch(self, connection: Connection, token: BatchToken) -> dict[str, Any] | None:
        names = ("token", "fence", "incarnation", "counts", "rejects", "commit_id")
        row = connection.execute(
            "SELECT token, fence, incarnation, counts, rejects, commit_id FROM vector_assets.batches"
            " WHERE pipeline = %s AND target = %s AND seq = %s",
            [token.pipeline, self.target, token.seq],
        ).fetchone()
        return dict(zip(names, row, strict=True)) if row else None

    def forget(self, connection: Connection, pipeline: str) -> None:
        """Drop the pipeline's rows for this target."""
        with connection.transaction():
            for table in _TABLES:
                connection.execute(
                    sql.SQL("DELETE FROM {} WHERE pipeline = %s AND target = %s").format(sql.Identifier(SCHEMA, table)),
                    [pipeline, self.target],
                )

    def newest_seq(self, connection: Connection, pipeline: str) -> int:
        """Highest sequence number of the pipeline's batches, 0 for none."""
        row = connection.execute(
            "SELECT max(seq) FROM vector_assets.batches WHERE pipeline = %s AND target = %s", [pipeline, self.target]
        ).fetchone()
        return int(row[0] or 0) if row else 0

    def recall(self, connection: Connection, pipeline: str) -> Recalled:
        """Everything the tokens say of the pipeline."""
        where = [pipeline, self.target]
        positions = connection.execute(
            "SELECT split, next FROM vector_assets.positions WHERE pipeline = %s AND target = %s", where
        ).fetchall()
        span = "span" if not missing_columns(connection) else "NULL::text"
        rows = connection.execute(
            f"SELECT seq, token, {span}, counts, commit_id::text, (extract(epoch FROM committed_at) * 1000)::bigint,"
            " fence, incarnation FROM vector_assets.batches WHERE pipeline = %s AND target = %s ORDER BY seq".encode(),
            where,
        ).fetchall()
        batches = tuple(
            RecalledBatch(
                seq, token, Span.from_json(text) if text else None, Counts.from_dict(counts or {}), commit_id, at_ms
            )
            for seq, token, text, counts, commit_id, at_ms, _, _ in rows
        )
        return Recalled(
            {split: orjson.loads(text) for split, text in positions},
            batches,
            fence=max((row[6] for row in rows), default=0),
            incarnation=rows[-1][7] if rows else None,
        )

    def prune(self, connection: Connection, pipeline: str, up_to: int) -> int:
        """Delete the rows of batches up to this number, but never the newest, which names the table's incarnation."""
        where = [pipeline, self.target]
        deleted = connection.execute(
            "DELETE FROM vector_assets.batches WHERE pipeline = %s AND target = %s AND seq <= %s AND seq <"
            " (SELECT max(b.seq) FROM vector_assets.batches b WHERE b.pipeline = %s AND b.target = %s)",
            [*where, up_to, *where],
        )
        return deleted.rowcount

    def displace(self, connection: Connection, token: BatchToken) -> bool:
        """End sessions of the pipeline's earlier owners that are inside a transaction; True when there were any.

        Raises:
            FencedError: a later owner is at work.
        """
        prefix = self._session(token)
        rows = connection.execute(
            "SELECT pid, application_name FROM pg_catalog.pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND application_name LIKE %s",
            [f"{prefix}%"],
        ).fetchall()
        fences = {pid: int(name.removeprefix(prefix)) for pid, name in rows if name.removeprefix(prefix).isdigit()}
        later = max(fences.values(), default=token.fence)
        if later > token.fence:
            raise FencedError(
                f"adbpg: {self.target}: pipeline {token.pipeline} has a later owner (fence {later}), ours is"
                f" {token.fence}"
            )
        # one with our own fence is an attempt whose connection we lost
        for pid in fences:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        return bool(fences)

    def _session(self, token: BatchToken) -> str:
        """What the sessions of a pipeline's commits are called, up to the fence."""
        name = canonical([token.pipeline, self.target])
        return f"va:{hashlib.sha256(name.encode()).hexdigest()[:12]}:"


def missing_tables(connection: Connection) -> list[str]:
    """Token tables that the database does not have yet."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s",
        [SCHEMA],
    )
    existing = {row[0] for row in rows}
    return [f"{SCHEMA}.{table}" for table in _TABLES if table not in existing]


def missing_columns(connection: Connection) -> list[tuple[str, str]]:
    """Table and column of what the token tables that are there lack, because older code made them."""
    rows = connection.execute(
        "SELECT c.relname, a.attname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
        " ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped"
        " WHERE n.nspname = %s",
        [SCHEMA],
    ).fetchall()
    return [
        (table, column)
        for table, columns in _ADDED.items()
        for column in columns
        if (table, "pipeline") in rows and (table, column) not in rows
    ]


def create_tables(connection: Connection, user: str) -> None:
    """Make schema and tables unless they are there; several processes may do so at once.

    Raises:
        PlanError: the user may not; the message is what an administrator has to run.
    """
    try:
        if missing_tables(connection) or missing_columns(connection):
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CREATION_LOCK])
                for statement in _creation(connection):
                    connection.execute(statement)
        _check_rights(connection, user)
    except pg.InsufficientPrivilege as error:
        raise PlanError(
            f"adbpg: user {user} may not create the token tables ({said(error)}); an administrator can run:"
            f" {_for_administrators(user)}"
        ) from error


def _creation(connection: Connection) -> list[sql.Composed]:
    has_schema = connection.execute("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", [SCHEMA]).fetchone()
    missing = missing_tables(connection)
    statements = [] if has_schema else [sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA))]
    # looked up and not IF NOT EXISTS, which AnalyticDB 6 (PostgreSQL 9.4) does not know for columns
    statements += [
        sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
            sql.Identifier(SCHEMA, table), sql.Identifier(column), sql.SQL(_ADDED[table][column])
        )
        for table, column in missing_columns(connection)
    ]
    return statements + [
        sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(SCHEMA, table), sql.SQL(columns))
        for table, columns in _TABLES.items()
        if f"{SCHEMA}.{table}" in missing
    ]


def _check_rights(connection: Connection, user: str) -> None:
    row = connection.execute("SELECT has_schema_privilege(%s, 'USAGE')", [SCHEMA]).fetchone()
    has_all = bool(row and row[0])
    for table in _TABLES if has_all else ():
        for right in _RIGHTS:
            row = connection.execute("SELECT has_table_privilege(%s, %s)", [f"{SCHEMA}.{table}", right]).fetchone()
            has_all = has_all and bool(row and row[0])
    if not has_all:
        raise PlanError(
            f"adbpg: user {user} lacks rights on the token tables; an administrator can run: {_grants(user)}"
        )


def _for_administrators(user: str) -> str:
    tables = [f"CREATE TABLE IF NOT EXISTS {SCHEMA}.{table} ({columns});" for table, columns in _TABLES.items()]
    added = [
        f"ALTER TABLE {SCHEMA}.{table} ADD COLUMN IF NOT EXISTS {column} {kind};"
        for table, columns in _ADDED.items()
        for column, kind in columns.items()
    ]
    return f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}; {' '.join(tables + added)} {_grants(user)}"


def _grants(user: str) -> str:
    role = sql.Identifier(user).as_string(None)
    tables = ", ".join(f"{SCHEMA}.{table}" for table in _TABLES)
    return f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}; GRANT {', '.join(_RIGHTS)} ON {tables} TO {role};"
