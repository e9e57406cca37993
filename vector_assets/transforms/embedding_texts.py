"""The texts of a column as they are sent: put in shape, each one once, and hashed."""

from dataclasses import dataclass
from functools import cache

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.transforms.embedding_cache import KEY_BYTES

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Texts:
    """The different texts of a column; `codes` says for each row which one is its, -1 for none.

    `keys` are their hashes one after the other, `sizes` their lengths in bytes; `errors` says of rows why their text
    is not sent.
    """

    unique: pa.Array
    keys: bytes
    sizes: Numbers
    codes: Numbers
    errors: dict[int, str]

    def key(self, number: int) -> bytes:
        """The hash of one text."""
        return self.keys[number * KEY_BYTES : (number + 1) * KEY_BYTES]

    def keys_of(self, numbers: Numbers) -> bytes:
        """The hashes of some texts, one after the other."""
        return np.frombuffer(self.keys, np.uint8).reshape(-1, KEY_BYTES)[numbers].tobytes()


def texts_of(
    column: pa.ChunkedArray, skipped: npt.NDArray[np.bool_] | None, options: EmbeddingOptions, *,
    takes_blank: bool = False,
) -> Texts:  # fmt: skip
    """The texts of a column; rows that are `skipped`, and nulls, have none; blank ones neither if they are taken."""
    if takes_blank:
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), pa.scalar(None, column.type), column)
    if skipped is not None:
        column = pc.if_else(pa.array(skipped), pa.scalar(None, column.type), column)
    encoded = _whole(column.cast(pa.string())).dictionary_encode()
    came = encoded.dictionary
    codes = np.asarray(pc.fill_null(encoded.indices, -1), dtype=np.int64)
    faults = _faults(came, options)
    if options.max_characters is not None and options.too_long == "truncate":
        came = pc.utf8_slice_codeunits(came, 0, options.max_characters)
    if options.prefix:
        came = pc.binary_join_element_wise(options.prefix, came, "")
    # two texts may have become one
    shaped = came.dictionary_encode()
    errors: dict[int, str] = {}
    if faults:
        bad = np.flatnonzero(np.isin(codes, list(faults)))
        errors = {row: faults[code] for row, code in zip(bad.tolist(), codes[bad].tolist(), strict=True)}
        codes = codes.copy()
        codes[bad] = -1
    places = np.append(np.asarray(shaped.indices, dtype=np.int64), -1)
    codes = places[codes]
    used = np.unique(codes[codes >= 0])
    unique = shaped.dictionary.take(pa.array(used))
    codes = np.where(codes >= 0, np.searchsorted(used, codes), -1)
    sizes = np.asarray(pc.binary_length(unique), dtype=np.int64)
    return Texts(unique, hashed(unique), sizes, codes, errors)


def _faults(texts: pa.Array, options: EmbeddingOptions) -> dict[int, str]:
    """Texts (by number) that no service has to be asked about, and why."""
    empty = pc.equal(pc.utf8_trim_whitespace(texts), "")
    found = dict.fromkeys(np.flatnonzero(empty).tolist(), "EMBED: the text is empty; NULLIF makes it a NULL vector")
    most = options.max_characters
    if most is not None and options.too_long == "reject":
        lengths = np.asarray(pc.utf8_length(texts), dtype=np.int64)
        for number in np.flatnonzero(lengths > most).tolist():
            found[number] = f"EMBED: the text has {lengths[number]} characters, option 'max-characters' is {most}"
    return found


def hashed(texts: pa.Array) -> bytes:
    """The SHA-256 of every text, one after the other."""
    if not len(texts):
        return b""
    # a view belongs to its cursor, and goes with it
    with _database().cursor() as connection:
        connection.register("texts", pa.table({"t": texts}))
        found = connection.sql("SELECT unhex(sha256(t)) AS key FROM texts").to_arrow_table()["key"]
    return b"".join(_bytes(chunk) for chunk in found.chunks)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """Kept, because to open one takes longer than to hash a small batch."""
    return duckdb.connect(":memory:", config={"threads": 1})


def _bytes(chunk: pa.Array) -> bytes:
    """The values of an array of binaries of KEY_BYTES, one after the other."""
    joined = pa.concat_arrays([chunk.cast(pa.large_binary())])
    _, offsets, data = joined.buffers()
    first = int(np.frombuffer(offsets, np.int64)[joined.offset])
    return bytes(data[first : first + len(joined) * KEY_BYTES])


def _whole(column: "pa.ChunkedArray | pa.Array") -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
