"""A consumer of librdkafka's C interface that hands out columns: twice to three times as fast as one message at a time.

It uses the librdkafka that confluent-kafka brings, by its public functions and the public layout of its messages only.
Needs llvmlite (`pip install 'vector-assets[native]'`), which importing this module does not import; without it, or with
VECTOR_ASSETS_NATIVE=off, records come through confluent-kafka itself: slower, with the same result.
"""

import ctypes
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from vector_assets.clients import kafka_kernel as at
from vector_assets.clients import native
from vector_assets.clients.kafka_kernel import FUNCTIONS, Kernel
from vector_assets.engine.core import HEADERS_TYPE
from vector_assets.engine.errors import ConfigError

log = logging.getLogger(__name__)
Longs = npt.NDArray[np.int64]

_CONSUMER = 1
_MESSAGE_WORDS_CHECKED = 0x020100FF
"""The least version of librdkafka (2.1.0) whose functions are used here."""
_ERROR_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_POINTERS = (
    "rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_queue_get_consumer", "rd_kafka_topic_partition_list_new",
    "rd_kafka_topic_partition_list_add", "rd_kafka_incremental_assign", "rd_kafka_topic_name", "rd_kafka_error_string",
    "rd_kafka_err2str",
)  # fmt: skip
_TEXT_BYTES = 512
_MOST_BYTES = 2**31 - 1
"""What Arrow's binary columns can hold of values, or of keys."""


@dataclass(frozen=True, slots=True)
class Event:
    """What came instead of a record: the end of a partition, or an error."""

    error: KafkaError
    topic: str | None
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Messages:
    """Records of one call, in order of arrival, as columns; and what came that is none.

    `topics[topic[i]]` is the topic of record i. `time_type` is 0 where the record has no time, 1 for that of its
    producer, 2 for that of the broker's log; `epoch` is -1 where the broker did not say.
    """

    topics: tuple[str, ...]
    topic: Longs
    partition: Longs
    offset: Longs
    time: Longs
    time_type: Longs
    epoch: Longs
    key: pa.Array
    value: pa.Array
    headers: pa.Array
    events: tuple[Event, ...]


class _TopicPartition(ctypes.Structure):
    """The public head of `rd_kafka_topic_partition_t`."""

    _fields_ = (("topic", ctypes.c_char_p), ("partition", ctypes.c_int32), ("offset", ctypes.c_int64))


@cache
def _library() -> Any:
    """The librdkafka that confluent-kafka has loaded; None where it cannot be found or is too old."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if "librdkafka" in line}
    if len(paths) != 1:
        return None
    library = ctypes.CDLL(paths.pop())
    if (
        library.rd_kafka_version() != confluent_kafka.libversion()[1]
        or library.rd_kafka_version() < _MESSAGE_WORDS_CHECKED
    ):
        return None
    for name in _POINTERS:
        getattr(library, name).restype = ctypes.c_void_p
    return library


@cache
def missing() -> str:
    """What is missing for records to be read this way, empty when nothing is; llvmlite is looked for, not imported."""
    if sys.platform != "linux":
        return "it needs Linux on a 64-bit little-endian machine"
    if reason := native.missing():
        return reason
    if _library() is None:
        return "the librdkafka of confluent-kafka was not found, or is older than 2.1: pip install -U confluent-kafka"
    return ""


def is_available() -> bool:
    """True where nothing is missing."""
    return not missing()


@cache
def load() -> Kernel:
    """The compiled loops: at the first call 0.1 s.

    Raises:
        ConfigError: llvmlite cannot be imported, or does not compile here.
    """
    if missing():
        raise ConfigError(f"kafka: records cannot be read natively: {missing()}")
    library = _library()
    addresses = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in FUNCTIONS}
    try:
        return Kernel.compiled(addresses)
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"kafka: records cannot be read natively, for llvmlite does not work here: {error}"
        ) from error


def is_loaded() -> bool:
    """True once this process has compiled the loops."""
    return load.cache_info().currsize > 0


class NativeConsumer:
    """Assigned partitions read as columns; one thread uses it, the methods are named as confluent-kafka's."""

    def __init__(self, config: Mapping[str, Any], on_error: Callable[[KafkaError], None], *, most: int) -> None:
        """Connects in the background; `most` messages are taken at once at most.

        Raises:
            ConfigError: something is missing for this, or librdkafka refuses a property.
        """
        self._kernel = load()
        self._c = _library()
        # kept, or the callback would be collected while librdkafka calls it
        self._callback = _ERROR_CALLBACK(lambda _rk, code, text, _opaque: on_error(_error(code, text)))
        self._handle = self._connect(config)
        self._queue = self._c.rd_kafka_queue_get_consumer(self._handle)
        self._pointers = np.zeros(most, np.int64)
        self._table = np.zeros((at.WORDS, most), np.int64)
        self._names: dict[int, str] = {}

    def _connect(self, config: Mapping[str, Any]) -> ctypes.c_void_p:
        settings = ctypes.c_void_p(self._c.rd_kafka_conf_new())
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        try:
            for name, value in config.items():
                spelled = str(value).lower() if isinstance(value, bool) else str(value)
                if self._c.rd_kafka_conf_set(settings, name.encode(), spelled.encode(), text, _size(text)):
                    raise ConfigError(f"kafka: {text.value.decode(errors='replace')}")
            self._c.rd_kafka_conf_set_error_cb(settings, self._callback)
            # what goes wrong comes as an error, too
            self._c.rd_kafka_conf_set_log_cb(settings, None)
            handle = ctypes.c_void_p(self._c.rd_kafka_new(_CONSUMER, settings, text, _size(text)))
            if not handle:
                raise ConfigError(f"kafka: {text.value.decode(errors='replace')}")
        except ConfigError:
            self._c.rd_kafka_conf_destroy(settings)
            raise
        self._c.rd_kafka_poll_set_consumer(handle)
        return handle

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        """Read these partitions too, each from its offset (and after its leader epoch, where that is known).

        Raises:
            KafkaException: librdkafka refuses.
        """
        with _Places(self._c, places) as listed:
            error = ctypes.c_void_p(self._c.rd_kafka_incremental_assign(self._handle, listed))
        if error:
            code, text = self._c.rd_kafka_error_code(error), self._c.rd_kafka_error_string(error)
            failure = _error(code, ctypes.string_at(text))
            self._c.rd_kafka_error_destroy(error)
            raise KafkaException(failure)

    def pause(self, places: Sequence[TopicPartition]) -> None:
        """Fetch nothing more of these partitions for now."""
        self._each("rd_kafka_pause_partitions", places)

    def resume(self, places: Sequence[TopicPartition]) -> None:
        """Fetch again."""
        self._each("rd_kafka_resume_partitions", places)

    def _each(self, function: str, places: Sequence[TopicPartition]) -> None:
        with _Places(self._c, places) as listed:
            code = getattr(self._c, function)(self._handle, listed)
        if code:
            raise KafkaException(_error(code, self._text(code)))

    def take(self, count: int, timeout_seconds: float) -> Messages | None:
        """Up to so many messages, None when none came in time.

        Raises:
            KafkaException: librdkafka fails.
            ConfigError: the messages hold more than 2 GiB.
        """
        pointers = self._pointers[: min(count, len(self._pointers))]
        found, value_bytes, key_bytes = self._kernel.take(
            self._queue, int(timeout_seconds * 1000), pointers, self._table
        )  # fmt: skip
        if found < 0:
            raise KafkaException(_error(KafkaError._FAIL, b"a batch of messages could not be taken"))
        if not found:
            return None
        try:
            return self._columns(found, value_bytes, key_bytes)
        finally:
            # a message that is kept would let `close` wait for ever
            self._kernel.give_back(pointers, found)

    def _columns(self, found: int, value_bytes: int, key_bytes: int) -> Messages:
        if max(value_bytes, key_bytes) > _MOST_BYTES:
            raise ConfigError(
                f"kafka: {found} messages taken at once hold {value_bytes + key_bytes} bytes, more than 2 GiB;"
                " set 'properties.max.partition.fetch.bytes' lower"
            )
        pointers = self._pointers
        table = self._table[:, :found]
        is_record = table[at.ERROR] == 0
        events = tuple(self._event(words) for words in table[:, ~is_record].T)
        # the table is written anew by the next call: what goes out of here is a copy
        records = table[:, is_record] if events else table
        headers = self._headers(pointers[:found][is_record], records)
        names, numbers = self._topics(records[at.TOPIC])
        values, keys = np.empty(value_bytes, np.uint8), np.empty(key_bytes, np.uint8)
        value_ends, key_ends = (np.empty(records.shape[1] + 1, np.int32) for _ in range(2))
        self._kernel.copy(self._table, found, values, value_ends, keys, key_ends)
        return Messages(
            topics=names,
            topic=numbers,
            partition=records[at.PARTITION].copy(),
            offset=records[at.OFFSET].copy(),
            time=records[at.TIME].copy(),
            time_type=records[at.TIME_TYPE].copy(),
            epoch=records[at.EPOCH].copy(),
            key=_binary(keys, key_ends, records[at.KEY] == 0),
            value=_binary(values, value_ends, records[at.VALUE] == 0),
            headers=headers,
            events=events,
        )

    def _topics(self, pointers: Longs) -> tuple[tuple[str, ...], Longs]:
        """Names, and the number of the name of each record; hardly ever is there more than one."""
        if not len(pointers) or (pointers == pointers[0]).all():
            return tuple(self._name(int(pointer)) for pointer in pointers[:1]), np.zeros(len(pointers), np.int64)
        different, numbers = np.unique(pointers, return_inverse=True)
        return tuple(self._name(int(pointer)) for pointer in different), numbers

    def _name(self, pointer: int) -> str:
        """The topic behind a handle, which librdkafka keeps for as long as the consumer lives."""
        if pointer not in self._names:
            name = self._c.rd_kafka_topic_name(ctypes.c_void_p(pointer))
            self._names[pointer] = ctypes.string_at(name).decode()
        return self._names[pointer]

    def _event(self, message: Longs) -> Event:
        code, size = int(message[at.ERROR]), int(message[at.VALUE_BYTES])
        text = ctypes.string_at(int(message[at.VALUE]), size) if size else self._text(code)
        topic = self._name(int(message[at.TOPIC])) if message[at.TOPIC] else None
        return Event(_error(code, text), topic, int(message[at.PARTITION]), int(message[at.OFFSET]))

    def _text(self, code: int) -> bytes:
        return ctypes.string_at(self._c.rd_kafka_err2str(code))

    def _headers(self, pointers: Longs, records: Longs) -> pa.Array:
        """The headers, which are rare: one record at a time; a name that is not UTF-8 loses its record's headers."""
        having = np.flatnonzero(records[at.NO_HEADERS] == 0)
        if not len(having):
            return pa.nulls(len(pointers), HEADERS_TYPE)
        found: list[list[dict[str, Any]] | None] = [None] * len(pointers)
        unreadable: list[int] = []
        for row in having.tolist():
            try:
                found[row] = self._headers_of(int(pointers[row]))
            except UnicodeDecodeError:
                unreadable.append(row)
        if unreadable:
            first = records[:, unreadable[0]]
            warn_of_headers(
                self._name(int(first[at.TOPIC])), int(first[at.PARTITION]),
                int(first[at.OFFSET]), len(unreadable),
            )  # fmt: skip
        return pa.array(found, HEADERS_TYPE)

    def _headers_of(self, message: int) -> list[dict[str, Any]]:
        headers, name = ctypes.c_void_p(), ctypes.c_char_p()
        value, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._c.rd_kafka_message_headers(ctypes.c_void_p(message), ctypes.byref(headers))
        pairs = []
        index = ctypes.c_size_t(0)
        while not self._c.rd_kafka_header_get_all(
            headers, index, ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)
        ):
            content = ctypes.string_at(value, size.value) if value.value is not None else None
            pairs.append({"key": (name.value or b"").decode(), "value": content})
            index = ctypes.c_size_t(index.value + 1)
        return pairs

    def close(self) -> None:
        """Give back everything; idempotent."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        if handle:
            self._c.rd_kafka_consumer_close(handle)
            self._c.rd_kafka_queue_destroy(ctypes.c_void_p(self._queue))
            self._c.rd_kafka_destroy(handle)


def warn_of_headers(topic: str, partition: int, offset: int, count: int) -> None:
    """Log that so many records lose their headers, the first of them there."""
    log.warning(
        "kafka topic %r: %d records have headers whose names are not UTF-8; their headers are left out (the first:"
        " partition %d, offset %d)",
        topic, count, partition, offset,
    )  # fmt: skip


class _Places:
    """Topic partitions as librdkafka's list, for the length of a block."""

    def __init__(self, library: Any, places: Sequence[TopicPartition]) -> None:
        self._c, self._places = library, places

    def __enter__(self) -> ctypes.c_void_p:
        self._list = ctypes.c_void_p(self._c.rd_kafka_topic_partition_list_new(len(self._places)))
        for place in self._places:
            added = self._c.rd_kafka_topic_partition_list_add(self._list, place.topic.encode(), place.partition)
            ctypes.cast(added, ctypes.POINTER(_TopicPartition)).contents.offset = place.offset
            if place.leader_epoch is not None:
                self._c.rd_kafka_topic_partition_set_leader_epoch(ctypes.c_void_p(added), place.leader_epoch)
        return self._list

    def __exit__(self, *_: object) -> None:
        self._c.rd_kafka_topic_partition_list_destroy(self._list)


def _binary(data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int32], is_null: npt.NDArray[np.bool_]) -> pa.Array:
    if is_null.all():
        return pa.nulls(len(is_null), pa.binary())
    nulls = pa.py_buffer(np.packbits(~is_null, bitorder="little")) if is_null.any() else None
    return pa.Array.from_buffers(pa.binary(), len(is_null), [nulls, pa.py_buffer(ends), pa.py_buffer(data)])


def _error(code: int, text: bytes) -> KafkaError:
    return KafkaError(code, text.decode(errors="replace"))


def _size(buffer: Any) -> ctypes.c_size_t:
    return ctypes.c_size_t(len(buffer))
