"""The ledger's tables, as the steps that lead from each schema version to the next.

Written once, in the words of SQLite; a store of another database replaces the few words that differ. A step that was
released is never changed: what newer code needs is a new step, so a ledger of any age is brought up to date when it is
opened, in one transaction.
"""

from collections.abc import Iterator

MIGRATIONS = (
    """
CREATE TABLE pipelines (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, start_option TEXT NOT NULL, start TEXT, incarnation TEXT,
    created_ms INTEGER NOT NULL, PRIMARY KEY (pipeline, target)) STRICT;
CREATE TABLE batches (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    span TEXT NOT NULL, first_splits TEXT NOT NULL, hour TEXT NOT NULL, run_id TEXT NOT NULL, fence INTEGER NOT NULL,
    code_version TEXT NOT NULL, schema_version INTEGER NOT NULL, archive TEXT, sidecar TEXT, committable TEXT,
    counts TEXT NOT NULL DEFAULT '{}', commit_id TEXT, newest_ms INTEGER, planned_ms INTEGER NOT NULL, done_ms INTEGER,
    commit_seconds REAL, note TEXT, PRIMARY KEY (pipeline, target, seq)) STRICT;
CREATE INDEX batches_by_hour ON batches (pipeline, hour);
CREATE INDEX batches_unfinished ON batches (pipeline, target) WHERE state IN ('PLANNED', 'SEALED', 'STAGED');
CREATE TABLE positions (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, split TEXT NOT NULL, next TEXT NOT NULL,
    PRIMARY KEY (pipeline, target, split)) STRICT;
CREATE TABLE leases (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, owner TEXT, host TEXT, pid INTEGER, pid_born TEXT,
    fence INTEGER NOT NULL, beat INTEGER NOT NULL, PRIMARY KEY (pipeline, target)) STRICT;
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pipeline TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, split TEXT NOT NULL, "offset" INTEGER NOT NULL, origin_seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL, key BLOB, value BLOB, headers TEXT, timestamp_ms INTEGER, stage TEXT NOT NULL,
    error TEXT NOT NULL, code_version TEXT NOT NULL, state TEXT NOT NULL, replayed_by INTEGER,
    created_ms INTEGER NOT NULL) STRICT;
CREATE INDEX dead_letters_by_state ON dead_letters (pipeline, target, state, id);
CREATE INDEX dead_letters_by_batch ON dead_letters (pipeline, target, seq);
CREATE TABLE gaps (
    pipeline TEXT NOT NULL, split TEXT NOT NULL, kind TEXT NOT NULL, "from" INTEGER NOT NULL, "to" INTEGER,
    found_ms INTEGER NOT NULL, PRIMARY KEY (pipeline, split, kind, "from")) STRICT;
CREATE TABLE schema_versions (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, version INTEGER NOT NULL, columns TEXT NOT NULL, seq INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, PRIMARY KEY (pipeline, target, version)) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pipeline TEXT NOT NULL, at_ms INTEGER NOT NULL, what TEXT NOT NULL,
    detail TEXT NOT NULL) STRICT;
""",
    """
ALTER TABLE batches ADD COLUMN expired_ms INTEGER;
CREATE TABLE folds (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL, hour TEXT NOT NULL, batches INTEGER NOT NULL,
    discarded INTEGER NOT NULL, counts TEXT NOT NULL, ends TEXT NOT NULL, folded_ms INTEGER NOT NULL,
    PRIMARY KEY (pipeline, target)) STRICT;
""",
    """
ALTER TABLE gaps ADD COLUMN policy TEXT NOT NULL DEFAULT 'fail';
ALTER TABLE gaps ADD COLUMN state TEXT NOT NULL DEFAULT 'open';
ALTER TABLE gaps ADD COLUMN seq INTEGER;
""",
    """
CREATE TABLE dead_letter_edits (
    letter_id INTEGER NOT NULL, edit INTEGER NOT NULL, value BLOB NOT NULL, created_ms INTEGER NOT NULL,
    PRIMARY KEY (letter_id, edit)) STRICT;
""",
    """
ALTER TABLE batches ADD COLUMN lookups TEXT;
""",
    """
CREATE TABLE group_files (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, signature TEXT NOT NULL,
    file TEXT NOT NULL, groups INTEGER NOT NULL, PRIMARY KEY (pipeline, target, seq)) STRICT;
""",
    """
ALTER TABLE schema_versions ADD COLUMN state TEXT;
ALTER TABLE schema_versions ADD COLUMN changes TEXT;
""",
    """
CREATE TABLE captured_tables (
    capture TEXT NOT NULL, source_table TEXT NOT NULL, detail TEXT NOT NULL, state TEXT NOT NULL,
    found_ms INTEGER NOT NULL, PRIMARY KEY (capture, source_table)) STRICT;
""",
)
"""Step n leads from version n to version n + 1.

Version 2 (retention): `batches.expired_ms` says since when a batch's records are not in the archive any more, `folds`
keeps the sums of batches that are no rows any more: up to sequence number `seq`, where each split then stood (`ends`).
Version 3 (gaps): what was done about a gap (`policy`, `state`), and by which batch.
Version 4 (edits): values that operators put beside those of dead letters, numbered from 1.
Version 5 (lookups): the version of each dimension table that a batch was joined with.
Version 6 (groups): the file that a batch of a GROUP BY left, and what its groups mean.
Version 7 (evolution): what an evolving decoder needs to have a version's columns, and what caused the change.
Version 8 (capture): tables that a Flink CDC pipeline found, with the columns that they had then.
"""

SCHEMA_VERSION = len(MIGRATIONS)


def statements_after(version: int) -> Iterator[str]:
    """The statements that bring a ledger of `version` (0: an empty database) up to date."""
    for step in MIGRATIONS[version:]:
        for statement in step.split(";\n"):
            if statement.strip():
                yield statement.strip()
