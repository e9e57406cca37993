"""Versions of a pipeline's columns on a screen: what changed, and which record of which batch caused it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vector_assets.cli.output import ago, moment, show_table

if TYPE_CHECKING:
    from vector_assets.engine.ledger import Ledger
    from vector_assets.engine.schema_history import SchemaVersion


def show(ledger: "Ledger", pipeline: str, target: str) -> None:
    """Print the versions of a pipeline that writes to `target`."""
    from vector_assets.engine.schema_history import history

    show_schema(history(ledger, pipeline, target))


def show_schema(versions: "Sequence[SchemaVersion]") -> None:
    """Print versions, one line for each change."""
    rows: list[tuple[Any, ...]] = []
    for version in versions:
        since = (version.version, version.seq, ago(version.created_ms))
        if not version.changes:
            rows.append((*since, "", "", f"{len(version.columns)} columns as declared"))
        for change in version.changes:
            what = f"{change.what}: refused: {change.refused}" if change.refused else change.what
            rows.append((*since, change.split, change.offset, what))
    show_table(("version", "from batch", "when", "split", "offset", "change"), rows, right=("version", "from batch"))


def schema_json(versions: "Sequence[SchemaVersion]") -> list[dict[str, Any]]:
    """Versions for programs."""
    return [
        {
            "version": version.version,
            "from_batch": version.seq,
            "at": moment(version.created_ms),
            "columns": [{"name": name, "type": kind} for name, kind in version.columns],
            "changes": [
                {"what": change.what, "split": change.split, "offset": change.offset, "refused": change.refused}
                for change in version.changes
            ],
        }
        for version in versions
    ]
