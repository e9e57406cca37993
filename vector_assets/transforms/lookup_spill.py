"""A dimension table that is joined from disk: a DuckDB file, read by streaming it past the keys of a batch.

The hash table is made of the batch's keys, so memory follows the batch and the rows that match, not the table.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from vector_assets.engine.errors import FatalError
from vector_assets.transforms.lookup_index import Numbers

_PLACE = "_lookup_place"
_ROW = "_lookup_row"
_MEMORY = "512MB"
_INSERTED_ROWS = 50_000
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": _MEMORY,
}


def quoted(name: str) -> str:
    """A name of DuckDB."""
    return '"' + name.replace('"', '""') + '"'


class SpillWriter:
    """Writes rows into a new DuckDB file as they come."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._rows = 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._connection = duckdb.connect(str(path), config=_CONFIG)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET temp_directory = '{str(path).replace(chr(39), chr(39) * 2)}.tmp'")
        self._create("dim", schema)

    def _create(self, name: str, schema: pa.Schema) -> None:
        empty = schema.empty_table().append_column(_ROW, pa.array([], pa.int64()))
        self._connection.register("arrived", empty)
        self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM arrived")
        self._connection.unregister("arrived")

    def add(self, rows: pa.Table) -> None:
        """Some more rows."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= _INSERTED_ROWS:
            self._insert()

    def _insert(self) -> None:
        """What came since the last time; few large statements instead of one for each batch."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        numbers = np.arange(self._rows, self._rows + rows.num_rows, dtype=np.int64)
        self._connection.register("arrived", rows.append_column(_ROW, pa.array(numbers)))
        self._connection.execute("INSERT INTO dim SELECT * FROM arrived")
        self._connection.unregister("arrived")
        self._rows += rows.num_rows

    def finish(self, key: Sequence[str]) -> tuple[int, int, str]:
        """Rows kept, rows left out as duplicates of the key (the last one stays), and a sum over what was kept."""
        self._insert()
        removed = 0
        if key:
            names = ", ".join(quoted(name) for name in key)
            whole = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in key)
            (removed,) = self._connection.execute(
                f"DELETE FROM dim WHERE {whole} AND {_ROW} NOT IN (SELECT max({_ROW}) FROM dim GROUP BY {names})"
            ).fetchone() or (0,)
        rows, digest = self._connection.execute(
            f"SELECT count(*), coalesce(bit_xor(hash(d)), 0) FROM (SELECT * EXCLUDE ({_ROW}) FROM dim) AS d"
        ).fetchone() or (0, 0)
        self.close()
        return int(rows), int(removed), f"{digest:016x}"

    def close(self) -> None:
        """Close the file; idempotent."""
        self._connection.close()


class SpilledTable:
    """A finished file; one connection, so one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._connection = duckdb.connect(":memory:", config=_CONFIG)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET temp_directory = ''")
        # the text's own order: the right side of a join is what the hash table is made of
        self._connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        where = str(path).replace("'", "''")
        try:
            self._connection.execute(f"ATTACH '{where}' AS spilled (READ_ONLY)")
        except duckdb.Error as error:
            raise FatalError(f"cache file {path} cannot be opened: {str(error).partition(chr(10))[0]}") from error
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def find(
        self, keys: Sequence[tuple["pa.Array | pa.ChunkedArray", str]], columns: Sequence[str]
    ) -> tuple[Numbers, pa.Table]:
        """For keys (values, expression over the table): the places among the values, in order, and the rows there."""
        names = [f"_lookup_key{number}" for number in range(len(keys))]
        count = len(keys[0][0])
        places = pa.array(np.arange(count, dtype=np.int64))
        self._connection.register("keys", pa.table([*(values for values, _ in keys), places], names=[*names, _PLACE]))
        made = ", ".join(f"({text}) AS {name}" for (_, text), name in zip(keys, names, strict=True))
        same = " AND ".join(f"d.{name} = k.{name}" for name in names)
        taken = "".join(f", d.{quoted(name)}" for name in columns)
        try:
            found = self._connection.sql(
                f"SELECT k.{_PLACE}, d.{_ROW}{taken} FROM (SELECT *, {made} FROM spilled.dim) AS d"
                f" JOIN keys AS k ON {same}"
            ).to_arrow_table()
        except duckdb.Error as error:
            raise FatalError(f"a dimension table cannot be joined: {str(error).partition(chr(10))[0]}") from error
        finally:
            self._connection.unregister("keys")
        order = np.lexsort((found.column(1).to_numpy(), found.column(0).to_numpy()))
        found = found.take(pa.array(order))
        where: Numbers = found.column(0).to_numpy()
        return where, found.select(range(2, found.num_columns))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
