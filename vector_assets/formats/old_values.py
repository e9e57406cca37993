"""Rows before an update, from the row after it and the fields that have changed.

A changed field may have been null before: a typed reading of `old` shows null there as it does for a field that is
missing, which has not changed. Which it is, is looked up only where a record can hold such a null.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.schema import LogicalType
from vector_assets.formats.json_blocks import Places
from vector_assets.formats.json_rows import JsonRules

NAMES = LogicalType("MAP", children=(LogicalType("VARCHAR"), LogicalType("VARCHAR")))
"""The type to read `old` as, to learn which of its fields are null."""
ANY_VALUE = JsonRules(ignore_parse_errors=True)
"""How `old` is read for its names: a value that cannot be read must not hide the other names."""
NULLS_IN_OLD = r'(?s)"old".*null|\\u00(?i:6f|6c|64)'
"""Documents that may hold a null in `old`: the word behind the name, or a name that may be spelled with escapes."""


def nulls_of(maps: pa.Array, owners: Places) -> dict[str, Places]:
    """For each name, the owners of the maps in which it is there and null; map j belongs to `owners[j]`."""
    whole = maps.take(pa.array(np.arange(len(maps))))  # keys and items are then those of these maps, whatever the slice
    keys, items = whole.keys, whole.items
    whose = np.repeat(owners, np.diff(whole.offsets.to_numpy()))
    is_null = items.is_null()
    whose, keys = whose[np.asarray(is_null)], keys.filter(is_null)
    encoded = keys.dictionary_encode()
    codes = encoded.indices.to_numpy()
    return {name: whose[codes == code] for code, name in enumerate(encoded.dictionary.to_pylist())}


def restored(
    changed: Sequence[pa.Array], after: Sequence[pa.Array], nulls: Mapping[str, Places], names: Sequence[str]
) -> list[pa.Array]:
    """The columns before: what has changed, else what is there after; null where `nulls` says so."""
    columns = []
    for name, old, new in zip(names, changed, after, strict=True):
        column = pc.coalesce(old, new) if old.null_count else old
        places = nulls.get(name)
        if places is not None and len(places):
            index = np.arange(len(column))
            index[places] = -1
            column = column.take(pa.array(index, mask=index < 0))
        columns.append(column)
    return columns
