"""Rows of tables in DuckDB: made, read, appended, deleted and merged by key. Callers hold `store.writing()`."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.local.maxcompute.catalog import Catalog, Column, Extent, Table
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.types import quoted

_INCOMING = "incoming_rows"
_BYTES = {"boolean": 1, "tinyint": 1, "smallint": 2, "int": 4, "float": 4, "date": 4, "decimal": 16}


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Names and Arrow types of columns."""
    return pa.schema([(column.name, column.type.arrow) for column in columns])


def names(columns: Iterable[Column]) -> str:
    """Column names for SQL."""
    return ", ".join(quoted(column.name) for column in columns)


class Rows:
    """What is done to the rows of tables."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    def create(self, table: Table) -> None:
        """Make the place for a table's rows."""
        columns = [_definition(column) for column in table.all_columns]
        with self._store.writing() as connection:
            connection.execute(f"CREATE TABLE {table.rows_name} ({', '.join(columns)})")

    def drop(self, table: Table) -> None:
        """Delete a table's rows and their place."""
        with self._store.writing() as connection:
            connection.execute(f"DROP {'VIEW' if table.view_text else 'TABLE'} {table.rows_name}")

    def add_column(self, table: Table, column: Column) -> None:
        """Rows there are have NULL in it."""
        with self._store.writing() as connection:
            connection.execute(f"ALTER TABLE {table.rows_name} ADD COLUMN {_definition(column)}")

    def read(self, table: Table, values: tuple[str, ...], columns: Sequence[Column]) -> pa.Table:
        """The rows of a partition (or of all whose first levels have these values) in the order they came in."""
        condition, given = _where(table, values)
        query = f"SELECT {names(columns)} FROM {table.rows_name}{condition}"
        with self._store.reading() as connection:
            found: pa.Table = connection.sql(query, params=given).to_arrow_table()
        found = found.cast(arrow_schema(columns))
        for place, column in enumerate(columns):
            if column.type.name == "char":
                # a CHAR has its length, whatever was written
                padded = pc.utf8_rpad(found.column(place), column.type.numbers[0])
                found = found.set_column(place, column.name, padded)
        return found

    def head(self, table: Table, values: tuple[str, ...], count: int) -> pa.Table:
        """The first rows of a table, view or partition, with all columns."""
        condition, given = _where(table, values)
        query = f"SELECT {names(table.all_columns)} FROM {table.rows_name}{condition} LIMIT {count}"
        with self._store.reading() as connection:
            found: pa.Table = connection.sql(query, params=given).to_arrow_table()
        return found

    def append(self, table: Table, extent: Extent, rows: pa.Table) -> None:
        """Add rows, which have the data columns by name, to a partition.

        Raises:
            Refusal: a value does not fit its column.
        """
        constants = _constants(table, extent.values)
        columns = [quoted(column.name) for column in table.columns if column.name in rows.column_names]
        into = ", ".join([*columns, *(quoted(column.name) for column in table.partition_columns)])
        with self._store.writing() as connection:
            connection.register(_INCOMING, rows)
            try:
                self._check_lengths(connection, table, rows)
                chosen = ", ".join([*columns, *constants])
                connection.execute(f"INSERT INTO {table.rows_name} ({into}) SELECT {chosen} FROM {_INCOMING}")
            except (duckdb.ConstraintException, duckdb.ConversionException, duckdb.OutOfRangeException) as error:
                raise Refusal(400, "InvalidArgument", f"{table.full_name}: {error}") from error
            finally:
                _forget(connection)

    def scatter(self, table: Table, rows: pa.Table, *, overwrite: bool = False) -> None:
        """Add rows, which have the partition columns too, to the partitions they name; missing ones are made.

        Raises:
            Refusal: a partition value is null, or a value does not fit its column.
        """
        levels = [column.name for column in table.partition_columns]
        texts = rows.select([column.name for column in table.columns])
        for name in levels:
            texts = texts.append_column(name, rows.column(name).cast(pa.string()))
        for group in texts.select(levels).group_by(levels).aggregate([]).to_pylist():
            values = tuple(group[name] for name in levels)
            if None in values:
                raise Refusal(400, "InvalidPartitionSpec", f"{table.full_name}: a row has a null partition value")
            mask = pa.array([True] * len(texts))
            for name, value in group.items():
                mask = pc.and_(mask, pc.equal(texts.column(name), value))
            extent = table.extents.get(values) or self._catalog.add_extent(table, values)
            if overwrite:
                self.delete(table, values)
            chosen = texts.filter(mask).drop_columns(levels)
            (self.upsert if table.is_delta else self.append)(table, extent, chosen)
            self.changed(table, extent)

    def upsert(self, table: Table, extent: Extent, rows: pa.Table) -> None:
        """Whole rows into a Delta table: the last row of a key replaces the one there is."""
        order = pa.array(range(len(rows)), pa.int64())
        changes = rows.append_column("__order", order)
        self.apply(table, extent, changes, deleted=None, partial=False)

    def apply(self, table: Table, extent: Extent, changes: pa.Table, *, deleted: str | None, partial: bool) -> None:
        """Apply changes in the order of their column `__order`.

        `deleted` names a boolean column of deletes. With `partial`, the column `__set` lists the positions of the
        columns that a change sets, an empty list all of them.
        """
        with self._store.writing() as connection:
            connection.register(_INCOMING, changes)
            try:
                connection.execute(_merge_query(table, extent, deleted, partial=partial))
            finally:
                _forget(connection)
            condition, given = _where(table, extent.values)
            keys = names(table.column(name) for name in table.primary_key)
            link = f"({keys}) IN (SELECT {keys} FROM merged_rows)"
            connection.execute(f"DELETE FROM {table.rows_name}{condition or ' WHERE true'} AND {link}", given)
            into = names(table.all_columns)
            constants = [
                f"CAST({_text(value)} AS {column.type.duck})" for column, value in _levels(table, extent.values)
            ]
            chosen = ", ".join([names(table.columns), *constants])
            try:
                connection.execute(
                    f"INSERT INTO {table.rows_name} ({into}) SELECT {chosen} FROM merged_rows WHERE NOT __gone"
                )
            except duckdb.ConstraintException as error:
                raise Refusal(400, "InvalidArgument", f"{table.full_name}: {error}") from error
            connection.execute("DROP TABLE merged_rows")

    def delete(self, table: Table, values: tuple[str, ...]) -> None:
        """Delete the rows of a partition, or all whose first levels have these values."""
        condition, given = _where(table, values)
        with self._store.writing() as connection:
            connection.execute(f"DELETE FROM {table.rows_name}{condition}", given)

    def changed(self, table: Table, extent: Extent) -> None:
        """Count the rows of a changed extent and make its new version known."""
        condition, given = _where(table, extent.values)
        query = f"SELECT count(*), {_size(table.columns)} FROM {table.rows_name}{condition}"
        with self._store.writing() as connection:
            (found,) = connection.execute(query, given).fetchall()
            self._catalog.changed(table, extent, int(found[0]), int(found[1] or 0))

    def _check_lengths(self, connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table) -> None:
        limited = [c for c in table.columns if c.type.name in {"char", "varchar"} and c.name in rows.column_names]
        if not limited:
            return
        longest = ", ".join(f"max(length({quoted(column.name)}))" for column in limited)
        (found,) = connection.execute(f"SELECT {longest} FROM {_INCOMING}").fetchall()
        for column, length in zip(limited, found, strict=True):
            if length is not None and length > column.type.numbers[0]:
                raise Refusal(
                    400, "InvalidArgument", f"column {column.name} is {column.type}, a value has {length} characters"
                )


def _forget(connection: duckdb.DuckDBPyConnection) -> None:
    """Unregister the rows; after an error the transaction, which is to be rolled back, takes no statement."""
    with suppress(duckdb.TransactionException):
        connection.unregister(_INCOMING)


def _merge_query(table: Table, extent: Extent, deleted: str | None, *, partial: bool) -> str:
    """Makes `merged_rows`: the final row of every key that changes hold, `__gone` when its last change deletes it.

    A change that is whole, or a delete, forgets what was before it: the values of a key are, per column, the last
    ones set since. Without any such change the row there is gives the rest.
    """
    keys = [quoted(name) for name in table.primary_key]
    gone = quoted(deleted) if deleted else "false"
    positions = 'len(coalesce("__set", [])) > 0' if partial else "false"
    whole = f"({gone} OR NOT {positions})"
    columns = []
    for number, column in enumerate(table.columns):
        name = quoted(column.name)
        if name in keys:
            continue
        is_set = f'(NOT {positions} OR list_contains("__set", {number}))' if partial else "true"
        last = f'arg_max({{v: i.{name}}}, "__order") FILTER (WHERE "__order" >= coalesce(r.at, -1) AND {is_set})'
        there_is = f"any_value({{v: t.{name}}})"
        columns.append(
            f"(CASE WHEN any_value(r.at) IS NULL THEN coalesce({last}, {there_is}) ELSE {last} END).v AS {name}"
        )
    condition = " AND ".join(
        f"t.{quoted(column.name)} = CAST({_text(value)} AS {column.type.duck})"
        for column, value in _levels(table, extent.values)
    )
    using = " AND ".join(f"i.{key} = t.{key}" for key in keys)
    ours = " AND ".join(f"i.{key} = r.{key}" for key in keys)
    listed = ", ".join(keys)
    grouped = ", ".join(f"i.{key}" for key in keys)
    return (
        f'CREATE TEMP TABLE merged_rows AS WITH r AS (SELECT {listed}, max("__order") FILTER (WHERE {whole}) AS at '
        f"FROM {_INCOMING} GROUP BY {listed}) SELECT {', '.join([grouped, *columns])}, "
        f'arg_max({gone}, "__order") AS __gone FROM {_INCOMING} i JOIN r ON {ours} '
        f"LEFT JOIN {table.rows_name} t ON {using}{' AND ' + condition if condition else ''} GROUP BY {grouped}"
    )


def _definition(column: Column) -> str:
    return f"{quoted(column.name)} {column.type.duck}{'' if column.nullable else ' NOT NULL'}"


def _levels(table: Table, values: tuple[str, ...]) -> list[tuple[Column, str]]:
    return list(zip(table.partition_columns, values, strict=False))


def _constants(table: Table, values: tuple[str, ...]) -> list[str]:
    return [f"CAST({_text(value)} AS {column.type.duck})" for column, value in _levels(table, values)]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _where(table: Table, values: tuple[str, ...]) -> tuple[str, list[str]]:
    """A WHERE clause for the first levels' values, and its parameters."""
    levels = _levels(table, values)
    condition = " AND ".join(f"{quoted(column.name)} = CAST(? AS {column.type.duck})" for column, _ in levels)
    return (f" WHERE {condition}" if condition else ""), list(values)


def _size(columns: Iterable[Column]) -> str:
    """SQL for the bytes of rows: the widths of fixed columns, the lengths of texts, 16 a nested value."""
    fixed = 0
    terms = []
    for column in columns:
        name = quoted(column.name)
        match column.type.name:
            case "string" | "json" | "char" | "varchar":
                terms.append(f"coalesce(strlen({name}), 0)")
            case "binary":
                terms.append(f"coalesce(octet_length({name}), 0)")
            case "array" | "map" | "struct":
                fixed += 16
            case kind:
                fixed += _BYTES.get(kind, 8)
    return f"sum({' + '.join([str(fixed), *terms])})"
