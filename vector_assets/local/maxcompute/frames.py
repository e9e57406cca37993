"""Arrow batches on the tunnel: IPC messages without schema, cut into chunks with checksums; and the tunnel's codecs."""

import struct
import zlib
from collections.abc import Iterable, Iterator

import lz4.frame
import pyarrow as pa
import snappy
import zstandard
from crc32c import crc32c

from vector_assets.local.maxcompute.refusal import Refusal

CHUNK = 65536
CODECS = ("deflate", "zstd", "x-lz4-frame", "x-odps-lz4-frame", "x-snappy-framed")
_BATCH_ROWS = 4096


def frame(rows: pa.Table) -> Iterator[bytes]:
    """The tunnel's stream of a table."""
    yield struct.pack(">I", CHUNK)
    overall = 0
    rest = b""
    for batch in rows.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
        rest += batch.serialize().to_pybytes()
        while len(rest) >= CHUNK:
            chunk, rest = rest[:CHUNK], rest[CHUNK:]
            overall = crc32c(chunk, overall)
            yield chunk + struct.pack(">I", crc32c(chunk))
    overall = crc32c(rest, overall)
    yield rest + struct.pack(">I", overall)


def unframe(stream: bytes, schema: pa.Schema) -> pa.Table:
    """The table of a stream whose batches have this schema.

    Raises:
        Refusal: it is cut short, a checksum is wrong, or a batch is not of the schema.
    """
    if len(stream) < 8:
        raise _bad("the stream is shorter than its frame")
    (size,) = struct.unpack_from(">I", stream)
    payload = bytearray()
    at, overall = 4, 0
    while len(stream) - at >= size + 4:
        chunk = stream[at : at + size]
        overall = crc32c(chunk, overall)
        if struct.unpack_from(">I", stream, at + size)[0] != crc32c(chunk):
            raise _bad(f"the chunk at byte {at} does not have its checksum")
        payload += chunk
        at += size + 4
    chunk = stream[at:-4]
    if len(stream) - at < 4 or struct.unpack_from(">I", stream, len(stream) - 4)[0] != crc32c(chunk, overall):
        raise _bad("the stream does not have its checksum")
    payload += chunk
    return pa.Table.from_batches(_batches(bytes(payload), schema), schema)


def _batches(payload: bytes, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    reader = pa.BufferReader(payload)
    try:
        while reader.tell() < len(payload):
            yield pa.ipc.read_record_batch(pa.ipc.read_message(reader), schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, EOFError, OSError) as error:
        raise _bad(f"the payload holds no batches of {schema}: {error}") from error


def compressed(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """A stream under a codec; no encoding leaves it as it is.

    Raises:
        Refusal: the codec is unknown.
    """
    match encoding:
        case "":
            yield from pieces
        case "deflate":
            yield from _finished(zlib.compressobj(), pieces)
        case "zstd":
            yield from _finished(zstandard.ZstdCompressor().compressobj(), pieces)
        case "x-lz4-frame" | "x-odps-lz4-frame":
            compressor = lz4.frame.LZ4FrameCompressor()
            yield compressor.begin()
            yield from _finished(compressor, pieces)
        case "x-snappy-framed":
            stream = snappy.StreamCompressor()
            for piece in pieces:
                yield stream.add_chunk(piece)
        case _:
            raise _unknown(encoding)


def _finished(compressor: object, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield compressor.compress(piece)  # type: ignore[attr-defined]
    yield compressor.flush()  # type: ignore[attr-defined]


def decompressed(body: bytes, encoding: str) -> bytes:
    """A body without its codec.

    Raises:
        Refusal: the codec is unknown, or the body is not of it or cut short.
    """
    match encoding:
        case "" | "identity":
            return body
        case "deflate":
            return _whole(zlib.decompressobj(), body, (zlib.error,))
        case "zstd":
            return _whole(zstandard.ZstdDecompressor().decompressobj(), body, (zstandard.ZstdError,))
        case "x-lz4-frame" | "x-odps-lz4-frame":
            return _whole(lz4.frame.LZ4FrameDecompressor(), body, (RuntimeError,))
        case "x-snappy-framed":
            try:
                return bytes(snappy.StreamDecompressor().decompress(body))
            except snappy.UncompressError as error:
                raise _bad(f"the body is no x-snappy-framed: {error}") from error
    raise _unknown(encoding)


def _whole(decompressor: object, body: bytes, errors: tuple[type[Exception], ...]) -> bytes:
    try:
        data = decompressor.decompress(body)  # type: ignore[attr-defined]
    except errors as error:
        raise _bad(f"the body cannot be decompressed: {error}") from error
    if not decompressor.eof:  # type: ignore[attr-defined]
        raise _bad("the compressed body ends too early")
    return bytes(data)


def _unknown(encoding: str) -> Refusal:
    return Refusal(400, "InvalidArgument", f"encoding {encoding} is unknown; known: {', '.join(CODECS)}")


def _bad(message: str) -> Refusal:
    return Refusal(400, "DataFormatError", message)
