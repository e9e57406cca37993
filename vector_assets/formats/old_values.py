"""Rows before an update, from the row after it and the fields that have changed.

A changed field may have been null before: a typed reading of `old` shows null there as it does for a field that is
missing, which has not changed. Which it is, is looked up only where a record can hold such a null.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.formats.grammar import as_mask
from vector_assets.formats.json_blocks import Places
from vector_assets.formats.json_exact import read_document

_NULLS_IN_OLD = r'(?s)"old".*null|\\u00(?i:6f|6c|64)'
"""Documents that may hold a null in `old`: the word behind the name, or a name that may be spelled with escapes."""

Nulls = Mapping[str, Sequence[int]]
"""For each field, the rows of `old` in which it is there and null."""


def nulls_in_old(documents: pa.Array, firsts: Places) -> Nulls:
    """Where `old` holds a null; `old` is a row or an array of rows, the first of document i being row `firsts[i]`."""
    asked = np.flatnonzero(as_mask(pc.match_substring_regex(documents.view(pa.string()), _NULLS_IN_OLD)))
    found: dict[str, list[int]] = defaultdict(list)
    for first, document in zip(firsts[asked].tolist(), documents.take(pa.array(asked)).to_pylist(), strict=True):
        old = _members(document).get("old")
        for place, row in enumerate(old if isinstance(old, list) else [old]):
            if isinstance(row, dict):
                for name, value in row.items():
                    if value is None:
                        found[name].append(first + place)
    return found


def _members(document: bytes) -> dict[str, Any]:
    """The members of a JSON object; the exact reader takes what orjson does not, such as half a surrogate pair."""
    try:
        return dict(orjson.loads(document))
    except ValueError:
        return read_document(document)


def restored(
    changed: Sequence[pa.Array], after: Sequence[pa.Array], nulls: Nulls, names: Sequence[str]
) -> list[pa.Array]:
    """The columns before: what has changed, else what is there after; null where `nulls` says so."""
    columns = []
    for name, old, new in zip(names, changed, after, strict=True):
        column = pc.coalesce(old, new) if old.null_count else old
        places = nulls.get(name)
        if places:
            index = np.arange(len(column))
            index[places] = -1
            column = column.take(pa.array(index, mask=index < 0))
        columns.append(column)
    return columns
