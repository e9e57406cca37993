"""The lake tables that pipelines declare, under the names by which queries ask for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vector_assets.engine.pipeline import Pipeline

LAKES = ("iceberg", "paimon")


@dataclass(frozen=True, slots=True)
class LakeTable:
    """A table of a pipeline; opened when it is read."""

    database: str
    name: str
    pipeline: "Pipeline"

    @property
    def full_name(self) -> str:
        """`database.table`."""
        return f"{self.database}.{self.name}"


def lake_tables(pipelines: "Sequence[Pipeline]") -> list[LakeTable]:
    """The tables of all pipelines that write to a lake; of two of one name the later is called after its pipeline."""
    found: dict[tuple[str, str], LakeTable] = {}
    for pipeline in pipelines:
        if pipeline.sink_connector not in LAKES:
            continue
        database, name = _name(pipeline)
        if (database.lower(), name.lower()) in found:
            name = pipeline.name
        found[database.lower(), name.lower()] = LakeTable(database, name, pipeline)
    return list(found.values())


def _name(pipeline: "Pipeline") -> tuple[str, str]:
    if pipeline.sink_connector == "iceberg":
        database, _, name = pipeline.target.rpartition("/")[2].rpartition(".")
        return database, name or pipeline.sink_table.name
    folder, _, name = pipeline.target.rpartition("/")
    return folder.rpartition("/")[2].removesuffix(".db"), name


def names_in(sql: str) -> set[str] | None:
    """Tables that a query names, as `table` or `database.table` in small letters; None where it cannot be told."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        trees = [tree for tree in sqlglot.parse(sql, dialect="duckdb") if tree is not None]
    except SqlglotError:
        return None
    if not all(isinstance(tree, exp.Query) for tree in trees):
        return None
    nodes: Iterator[exp.Table] = (node for tree in trees for node in tree.find_all(exp.Table))
    return {f"{node.db}.{node.name}".lower().removeprefix(".") for node in nodes}
