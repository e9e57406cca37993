"""INSERT INTO and OVERWRITE, into the table, a partition, or the partitions that the rows name; DELETE and UPDATE."""

import duckdb
from sqlglot import exp

from vector_assets.local.maxcompute import query
from vector_assets.local.maxcompute.catalog import Catalog, Column, Table
from vector_assets.local.maxcompute.names import Scope, parts_of_node
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.types import quoted

_STAGED = "staged_rows"


class Inserts:
    """Statements that change rows, each in one transaction."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows) -> None:
        self._store = store
        self._catalog = catalog
        self._rows = rows

    def insert(self, tree: exp.Insert, scope: Scope) -> None:
        """Run an INSERT.

        Raises:
            Refusal: names, counts or values do not fit.
        """
        target, listed = tree.this, []
        if isinstance(target, exp.Schema):
            target, listed = target.this, [node.name for node in target.expressions]
        table = scope.table(parts_of_node(target))
        fixed, dynamic = _partition(table, target.args.get("partition"))
        given = [table.column(name) for name in listed]
        dynamic_given = [column for column in dynamic if column not in given]
        columns = [*(given or table.columns), *dynamic_given]
        self._write(table, fixed, columns, tree, scope)

    def _write(
        self, table: Table, fixed: dict[str, str], columns: list[Column], tree: exp.Insert, scope: Scope
    ) -> None:
        source = query.localized(tree.expression, scope)
        if isinstance(tree.expression, exp.Values):
            source = f"SELECT * FROM ({source})"
        with self._store.writing() as connection:
            self._stage(connection, table, source, columns)
            self._spread(connection, table, fixed, columns, overwrite=bool(tree.args.get("overwrite")))
            connection.execute(f"DROP TABLE {_STAGED}")

    def _stage(self, connection: duckdb.DuckDBPyConnection, table: Table, source: str, columns: list[Column]) -> None:
        try:
            width = len(connection.execute(f"DESCRIBE {source}").fetchall())
            if width != len(columns):
                raise Refusal(
                    400,
                    "ODPS-0130071",
                    "ODPS-0130071:[1,1] Semantic analysis exception - wrong columns count "
                    f"{width} in data source, requires {len(columns)} columns ({table.full_name})",
                )
            taken = {column.name for column in columns}
            casts = [f"CAST(#{n} AS {c.type.duck}) AS {quoted(c.name)}" for n, c in enumerate(columns, start=1)]
            rest = [f"CAST(NULL AS {c.type.duck}) AS {quoted(c.name)}" for c in table.columns if c.name not in taken]
            connection.execute(f"CREATE TEMP TABLE {_STAGED} AS SELECT {', '.join([*casts, *rest])} FROM ({source})")
        except duckdb.Error as error:
            raise query.semantic(error) from error

    def _spread(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        fixed: dict[str, str],
        columns: list[Column],
        *,
        overwrite: bool,
    ) -> None:
        """Move staged rows into their partitions."""
        levels = [column for column in table.partition_columns if column.name not in fixed]
        wanted: list[tuple[str, ...]] = []
        if levels:
            texts = ", ".join(f"CAST({quoted(column.name)} AS VARCHAR)" for column in levels)
            wanted = connection.execute(f"SELECT DISTINCT {texts} FROM {_STAGED}").fetchall()
        else:
            wanted = [()]
        chosen = ", ".join(quoted(column.name) for column in table.columns)
        for found in sorted(wanted):
            if None in found:
                raise Refusal(400, "ODPS-0123031", "ODPS-0123031:Partition exception - a partition value is null")
            given = {**fixed, **dict(zip((column.name for column in levels), found, strict=True))}
            values = tuple(given[column.name] for column in table.partition_columns)
            condition = " AND ".join(f"CAST({quoted(column.name)} AS VARCHAR) = ?" for column in levels)
            chosen_rows = f"SELECT {chosen} FROM {_STAGED}{' WHERE ' + condition if condition else ''}"
            rows = connection.sql(chosen_rows, params=list(found)).to_arrow_table()
            extent = table.extents.get(values) or self._catalog.add_extent(table, values)
            if overwrite:
                self._rows.delete(table, values)
            if table.is_delta:
                self._rows.upsert(table, extent, rows)
            else:
                self._rows.append(table, extent, rows)
            self._rows.changed(table, extent)

    def change(self, tree: exp.Delete | exp.Update, scope: Scope) -> None:
        """Run a DELETE or UPDATE of a transactional table.

        Raises:
            Refusal: the table is not transactional, or DuckDB refuses.
        """
        table = scope.table(parts_of_node(tree.this))
        if not table.is_transactional:
            verb = "delete" if isinstance(tree, exp.Delete) else "update"
            raise Refusal(
                400, "ODPS-0130071", f"ODPS-0130071:Semantic analysis exception - {verb}: {table.full_name} is not ACID"
            )
        tree = tree.copy()
        tree.this.replace(exp.to_table(table.rows_name, alias=table.name))
        text = tree.sql(dialect="duckdb")
        with self._store.writing() as connection:
            before = self._fingerprints(connection, table)
            try:
                connection.execute(text)
            except duckdb.Error as error:
                raise query.semantic(error) from error
            after = self._fingerprints(connection, table)
            for values, extent in table.extents.items():
                if before.get(values) != after.get(values):
                    self._rows.changed(table, extent)

    def _fingerprints(self, connection: duckdb.DuckDBPyConnection, table: Table) -> dict[tuple[str, ...], object]:
        levels = ", ".join(f"CAST({quoted(column.name)} AS VARCHAR)" for column in table.partition_columns)
        found = connection.execute(
            f"SELECT {levels + ', ' if levels else ''}count(*), sum(hash(t)::HUGEINT) FROM {table.rows_name} t"
            + (" GROUP BY ALL" if levels else "")
        ).fetchall()
        return {row[:-2]: row[-2:] for row in found}


def _partition(table: Table, node: exp.Partition | None) -> tuple[dict[str, str], list[Column]]:
    """Partition columns with a value, and those without, of an INSERT's PARTITION clause."""
    fixed: dict[str, str] = {}
    dynamic = []
    for part in node.expressions if node else []:
        if isinstance(part, exp.EQ):
            fixed[table.column(part.this.name).name] = part.expression.name
        else:
            dynamic.append(table.column(part.name))
    named = {*fixed, *(column.name for column in dynamic)}
    levels = [column.name for column in table.partition_columns]
    if node is None and levels:
        return {}, list(table.partition_columns)
    if named != set(levels):
        raise Refusal(
            400,
            "ODPS-0130071",
            f"ODPS-0130071:Semantic analysis exception - {table.full_name} has the partition columns "
            f"{', '.join(levels) or 'none'}, the statement names {', '.join(sorted(named))}",
        )
    return fixed, dynamic
