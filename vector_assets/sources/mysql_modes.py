"""Where a new pipeline of MySQL tables starts: the modes of Flink CDC, and places by an operator's words."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vector_assets.clients.mysql import Binlog, MySql
from vector_assets.clients.mysql_binlog import BinlogStream, Ended
from vector_assets.clients.mysql_gtid import Gtids
from vector_assets.clients.mysql_schema import MySqlColumn, MySqlTable, untold
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.schema import Column
from vector_assets.sources.mysql_fit import fit
from vector_assets.sources.mysql_options import MySqlCdcOptions
from vector_assets.sources.mysql_tokens import Place, gtid_of

log = logging.getLogger(__name__)
_FILE_PLACE = re.compile(r"([\w.-]+\.\d+):(\d+)")
_NATURAL: dict[str, pa.DataType] = {
    "BOOLEAN": pa.int64(), "TINYINT": pa.int64(), "SMALLINT": pa.int64(), "INT": pa.int64(), "BIGINT": pa.int64(),
    "TIME": pa.duration("us"), "TIMESTAMP": pa.timestamp("us"), "TIMESTAMP_LTZ": pa.timestamp("us", "UTC"),
}  # fmt: skip


class Modes:
    """Answers for one declaration."""

    def __init__(self, server: MySql, options: MySqlCdcOptions) -> None:
        self._server = server
        self._options = options
        self._database, self._table = re.compile(options.database_name), re.compile(options.table_name)

    def is_wanted(self, table: str) -> bool:
        """True when the expressions match a full name."""
        database, _, name = table.partition(".")
        is_listed = not self._options.only or table in self._options.only
        return is_listed and bool(self._database.fullmatch(database) and self._table.fullmatch(name))

    def start(self, tables: Sequence[MySqlTable]) -> Place:
        """Where the startup mode says.

        Raises:
            ConfigError: what a specific offset names is not there.
        """
        options, binlog = self._options, self._server.binlog()
        self._tell_of_prepared()
        for table in tables:
            for key in table.cascades:
                log.warning("%s: %s", self._server.login.where, untold(key, table.full_name))
        if options.has_snapshot:
            return Place.now(binlog, table=tables[0].full_name)
        if options.startup_mode == "latest-offset":
            return Place.now(binlog)
        if options.startup_mode == "timestamp":
            return self._at_time(binlog, options.timestamp_ms or 0)
        if options.startup_mode == "specific-offset":
            place = self._specific(binlog)
            skip = (options.skip_events, options.skip_rows)
            return place if skip == (0, 0) else Place(place.gtid, place.file, place.pos, server=place.server, skip=skip)
        return self._earliest(binlog)

    def _tell_of_prepared(self) -> None:
        """Say which transactions are prepared already: their rows lie before the place that is started at."""
        try:
            found = [row[3] for row in self._server.rows("XA RECOVER")]
        except (ConfigError, PlanError) as error:
            log.debug("%s: whether transactions are prepared is not known: %s", self._server.login.where, error)
            return
        names = [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in found]
        if names:
            log.warning(
                "%s: %d distributed transactions are prepared and not committed (%s): what they change is not read if"
                " they are committed; commit or roll them back before the first run, or begin anew after it",
                self._server.login.where, len(names), ", ".join(names[:5]),
            )  # fmt: skip

    def beginning(self, binlog: Binlog, tables: Sequence[MySqlTable]) -> Place:
        """Where a pipeline that lost its place could begin anew."""
        if self._options.has_snapshot and tables:
            return Place.now(binlog, table=tables[0].full_name)
        return self._earliest(binlog)

    def locate(self, where: str, tables: Sequence[MySqlTable]) -> Place:
        """A place by an operator's words.

        Raises:
            ConfigError: they are not understood, or name nothing that is there.
        """
        binlog, word = self._server.binlog(), where.strip().removesuffix("-offset")
        if word == "initial":
            return Place.now(binlog, table=tables[0].full_name)
        if word == "latest":
            return Place.now(binlog)
        if word == "earliest":
            return self._earliest(binlog)
        match = _FILE_PLACE.fullmatch(word)
        try:
            return self._at_file(binlog, match[1], int(match[2])) if match else self._at_gtids(binlog, word)
        except ValueError:
            raise ConfigError(
                f"{self._server.login.where}: a place is 'initial', 'earliest', 'latest',"
                f" '<file>:<position>' or a set of"
                f" GTIDs; found {where!r}"
            ) from None

    def _earliest(self, binlog: Binlog) -> Place:
        return Place(gtid=gtid_of(binlog.first, binlog), file=binlog.first_file, server=binlog.server)

    def _specific(self, binlog: Binlog) -> Place:
        options = self._options
        if options.specific_gtids is None:
            return self._at_file(binlog, str(options.specific_file), options.specific_pos or 4)
        try:
            return self._at_gtids(binlog, options.specific_gtids)
        except ValueError:
            raise ConfigError(
                f"'scan.startup.specific-offset.gtid-set' = {options.specific_gtids!r} is no set of GTIDs"
            ) from None

    def _at_gtids(self, binlog: Binlog, text: str) -> Place:
        gtids = Gtids.of(text, is_mariadb=binlog.is_mariadb)
        if not binlog.last.holds(gtids) or not gtids.holds(binlog.first):
            raise ConfigError(
                f"{self._server.login.where}: the binlog does not begin at {text}: it holds what is after"
                f" {binlog.first or 'its beginning'} up to {binlog.last or 'there'}"
            )
        return Place(gtid=str(gtids), file=binlog.first_file, server=binlog.server)

    def _at_file(self, binlog: Binlog, file: str, pos: int) -> Place:
        sizes = {str(row[0]): int(row[1]) for row in self._server.rows("SHOW BINARY LOGS")}
        if pos > sizes.get(file, -1):
            known = ", ".join(f"{name} (to {size})" for name, size in list(sizes.items())[-5:])
            raise ConfigError(f"{self._server.login.where}: there is no place {file}:{pos}; known: {known}")
        gtid = None
        if binlog.is_mariadb:
            found = self._server.value("SELECT BINLOG_GTID_POS(%s, %s)", (file, pos))
            if found is None:
                raise ConfigError(f"{self._server.login.where}: {file}:{pos} is not the beginning of a transaction")
            gtid = str(found)
        return Place(gtid=gtid, file=file, pos=pos, server=binlog.server)

    def _at_time(self, binlog: Binlog, time_ms: int) -> Place:
        """Before the first transaction of this time or later: looked for from the earliest on."""
        here = self._earliest(binlog)
        options = self._options
        stream = BinlogStream(
            options.login, server_id=options.replica_id, is_mariadb=binlog.is_mariadb, gtids=here.gtids, file=here.file,
            pos=here.pos, databases="(?!)", tables="(?!)",
        )  # fmt: skip
        gtids = here.gtids
        try:
            for event in stream.events():
                if isinstance(event, Ended):
                    if event.at_ms >= time_ms:
                        break
                    gtids = gtids.plus(event.gtid) if gtids is not None and event.gtid else gtids
                    here = Place(None if gtids is None else str(gtids), event.file, event.pos, server=binlog.server)
        finally:
            stream.close()
        return here


def first_chunk(options: MySqlCdcOptions, table: MySqlTable, declared: Sequence[Column]) -> None:
    """Make sure that the table has the declared columns, in types that can be had as declared.

    Raises:
        PlanError: a column is missing or of another type.
    """
    for column in declared:
        found = table.column(column.name)
        if found is None:
            names = ", ".join(each.name for each in table.columns)
            raise PlanError(f"{table.full_name}: there is no column {column.name}; it has {names}")
        if found.logical is None:
            raise PlanError(f"{table.full_name}: column {column.name} is {found.full_type}, which cannot be read")
        kind = _natural(found)
        fit(pa.nulls(0, kind), column, options.server_time_zone, table.full_name)


def _natural(column: MySqlColumn) -> Any:
    logical = column.logical
    assert logical is not None
    if column.type == "bit":
        return pa.binary()
    if column.type == "bigint":
        return pa.uint64() if column.is_unsigned else pa.int64()
    return _NATURAL.get(logical.name, logical.arrow)
