"""Transactions that MySQL compressed (`binlog_transaction_compression`): the events inside, as those of the binlog.

The event (TRANSACTION_PAYLOAD_EVENT, MySQL 8.0.20) has fields of type, length and value, each a packed number, up to a
mark, then the transaction's events one after the other, without checksums and without places of their own.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pymysql.protocol import MysqlPacket
from pymysqlreplication.event import BinLogEvent
from pymysqlreplication.packet import BinLogPacketWrapper
from pymysqlreplication.row_event import TableMapEvent

from vector_assets.engine.errors import PlanError

PAYLOAD_EVENT = 40
_END, _COMPRESSION, _SIZE = 0, 2, 3
_ZSTD, _NONE = 0, 255
_HEADER = 19
_SIZE_AT = 9
"""Where an event's header says how long the event is, with its header."""


class TransactionPayloadEvent(BinLogEvent):  # type: ignore[misc]  # the library has no types
    """A compressed transaction."""

    def __init__(self, from_packet: Any, event_size: int, table_map: Any, ctl_connection: Any, **more: Any) -> None:
        super().__init__(from_packet, event_size, table_map, ctl_connection, **more)
        self._more = more
        self._body = bytes(self.packet.read(event_size))

    def events(self, kinds: frozenset[type[Any]]) -> Iterator[Any]:
        """The events inside that are of these kinds, each at the place of the whole.

        Raises:
            PlanError: the transaction is damaged, or compressed in a way that is not known.
        """
        data = self._unpacked()
        at = 0
        while at < len(data):
            end = at + int.from_bytes(data[at + _SIZE_AT : at + _SIZE_AT + 4], "little")
            if end < at + _HEADER or end > len(data):
                raise PlanError("a compressed transaction is damaged: an event in it is longer than the whole")
            event = self._event(data[at:end], kinds)
            at = end
            if event is None:
                continue
            event.packet.log_pos = self.packet.log_pos
            if isinstance(event, TableMapEvent):
                self.table_map[event.table_id] = event.get_table()
            yield event

    def _unpacked(self) -> bytes:
        fields, at = dict[int, int](), 0
        while (found := _packed(self._body, at))[0] != _END:
            _, at = _packed(self._body, found[1])
            fields[found[0]], at = _packed(self._body, at)
        payload, kind = self._body[found[1] :], fields.get(_COMPRESSION)
        if kind == _NONE:
            return payload
        if kind != _ZSTD:
            raise PlanError(
                f"a transaction is compressed in a way that is not known ({kind}); known: zstd (0), none (255)"
            )
        try:
            return bytes(pa.decompress(payload, decompressed_size=fields.get(_SIZE, 0), codec="zstd", asbytes=True))
        except (OSError, ValueError) as error:
            raise PlanError(f"a compressed transaction is damaged: {error}") from error

    def _event(self, data: bytes, kinds: frozenset[type[Any]]) -> Any:
        more = self._more
        # the byte before an event that says that it is one
        packet = MysqlPacket(b"\x00" + data, "utf8")
        return BinLogPacketWrapper(
            packet, self.table_map, self._ctl_connection, more["mysql_version"], False, kinds,  # noqa: FBT003
            more["only_tables"], more["ignored_tables"], more["only_schemas"], more["ignored_schemas"],
            more["freeze_schema"], more["ignore_decode_errors"], False, more["optional_meta_data"],  # noqa: FBT003
            more["enable_logging"], more["use_column_name_cache"], more["post_header_lengths"],
        ).event  # fmt: skip


def _packed(data: bytes, at: int) -> tuple[int, int]:
    """A packed number, and what comes after it.

    Raises:
        PlanError: the data ends before.
    """
    first = data[at] if at < len(data) else 0
    size = {252: 2, 253: 3, 254: 8}.get(first, 0)
    if at + size >= len(data):
        raise PlanError("a compressed transaction is damaged: it ends in its header")
    return (int.from_bytes(data[at + 1 : at + 1 + size], "little") if size else first), at + 1 + size


BinLogPacketWrapper._BinLogPacketWrapper__event_map[PAYLOAD_EVENT] = TransactionPayloadEvent
