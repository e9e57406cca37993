"""Parts of a lake table that cannot hold a row of a query, told by what is known of each part without reading it."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs


def between(name: str, least: pa.Scalar, most: pa.Scalar, *, has_nulls: bool) -> pc.Expression:
    """What holds of every row of a part whose column lies between two values, or is null."""
    field = ds.field(name)
    if not has_nulls:
        return (field >= least) & (field <= most)
    # Arrow understands a bound that may be null, not a pair of bounds that may be
    return ((field >= least) | field.is_null()) & ((field <= most) | field.is_null())


def equal(name: str, value: pa.Scalar) -> pc.Expression:
    """What holds of every row of a part whose column has one value, or is null."""
    field = ds.field(name)
    return field == value if value.is_valid else field.is_null()


def every(known: Sequence[pc.Expression]) -> pc.Expression | None:
    """What holds when all of these do; None for none."""
    whole: pc.Expression | None = None
    for each in known:
        whole = each if whole is None else whole & each
    return whole


def possible(known: Sequence[pc.Expression | None], schema: pa.Schema, where: pc.Expression | None) -> list[int]:
    """Numbers of the parts that may hold a row that meets `where`; `known` says what holds of all rows of each part.

    All of them where Arrow cannot tell.
    """
    if where is None:
        return list(range(len(known)))
    # fragments without files: Arrow weighs what is known of them against the filter, and opens none
    form, nowhere = ds.ParquetFileFormat(), pafs.LocalFileSystem()
    parts = [
        form.make_fragment(str(number), filesystem=nowhere, partition_expression=each)
        for number, each in enumerate(known)
    ]
    try:
        found = ds.FileSystemDataset(parts, schema, form, nowhere).get_fragments(filter=where)
        return [int(part.path) for part in found]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return list(range(len(known)))
