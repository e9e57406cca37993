"""Where a new pipeline starts and where a bounded one ends: the modes of Flink's Kafka source, as offsets."""

from collections.abc import Callable, Collection, Mapping

from vector_assets.clients.kafka import ControlPlane
from vector_assets.engine.errors import ConfigError
from vector_assets.sources.kafka_options import KafkaOptions, parse_specific
from vector_assets.sources.kafka_tokens import Home
from vector_assets.sources.kafka_watch import TopicWatch, listed

Offsets = dict[Home, int]


class Modes:
    """Answers for partitions that exist; raises UnavailableError when the cluster does not answer."""

    def __init__(self, control: ControlPlane, watch: TopicWatch, options: KafkaOptions) -> None:
        self._control = control
        self._watch = watch
        self._options = options
        self._properties = options.client()

    def start(self, homes: Collection[Home]) -> Offsets:
        """Where a new pipeline starts.

        Raises:
            ConfigError: the group has no offset for a partition and nothing says what then, or an offset that was named
                is not there.
        """
        options = self._options
        if options.startup_mode == "timestamp":
            return self._at_time(homes, options.startup_timestamp or 0)
        if options.startup_mode == "specific-offsets":
            return self._at_specific(homes, parse_specific(options.startup_offsets or ""))
        return self.at(options.startup_mode, homes)

    def bounds(self, start: Mapping[Home, int]) -> Offsets:
        """Where a pipeline with this start ends; empty when it does not.

        Raises:
            ConfigError: the group has no offset for a partition, or a partition that was named does not exist.
        """
        options = self._options
        if not options.is_bounded:
            return {}
        if options.bounded_mode == "timestamp":
            return self._at_time(start, options.bounded_timestamp or 0)
        if options.bounded_mode == "specific-offsets":
            named = self._named("scan.bounded.specific-offsets", start, parse_specific(options.bounded_offsets or ""))
            return {**start, **named}
        return self.at(options.bounded_mode, start)

    def at(self, mode: str, homes: Collection[Home]) -> Offsets:
        """`earliest-offset`, `latest-offset` or `group-offsets` of these partitions."""
        known: dict[str, Callable[[Collection[Home]], Offsets]] = {
            "earliest-offset": self._watch.starts,
            "latest-offset": self._watch.ends,
            "group-offsets": self._of_group,
        }
        return known[mode](homes)

    def checked(self, offsets: Offsets) -> Offsets:
        """The offsets.

        Raises:
            ConfigError: one of them is not there.
        """
        starts, ends = self._watch.starts(offsets), self._watch.highest(offsets)
        for home, offset in offsets.items():
            if not starts[home] <= offset <= ends[home]:
                raise ConfigError(
                    f"{self._watch.where}: offset {offset} of partition {self._watch.named([home])} is not there;"
                    f" it holds those from {starts[home]} on, {ends[home]} is the next"
                )
        return offsets

    def _at_time(self, homes: Collection[Home], time_ms: int) -> Offsets:
        found = self._control.at_time(homes, time_ms)
        none = [home for home in homes if found[home] is None]
        ends = self._watch.ends(none)
        return {home: ends[home] if (offset := found[home]) is None else offset for home in homes}

    def _at_specific(self, homes: Collection[Home], wanted: Mapping[int, int]) -> Offsets:
        named = self.checked(self._named("scan.startup.specific-offsets", homes, wanted))
        others = [home for home in homes if home not in named]
        group = self._properties.get("group.id")
        committed = self._control.committed(str(group), others) if group is not None and others else {}
        starts = self._watch.starts(others)
        rest = {home: starts[home] if (offset := committed.get(home)) is None else offset for home in others}
        return {**rest, **named}

    def _named(self, option: str, homes: Collection[Home], wanted: Mapping[int, int]) -> Offsets:
        by_partition = {home.partition: home for home in homes}
        if unknown := sorted(wanted.keys() - by_partition.keys()):
            raise ConfigError(
                f"{self._watch.where}: option {option!r}: there is no partition {listed(unknown)}; known:"
                f" {listed(sorted(by_partition))}"
            )
        return {by_partition[partition]: offset for partition, offset in wanted.items()}

    def _of_group(self, homes: Collection[Home]) -> Offsets:
        group = self._properties.get("group.id")
        if group is None:
            raise ConfigError(f"{self._watch.where}: group offsets need the option 'properties.group.id'")
        found = self._control.committed(str(group), homes)
        offsets = {home: offset for home in homes if (offset := found[home]) is not None}
        missing = [home for home in homes if home not in offsets]
        reset = self._properties.get("auto.offset.reset", "none")
        if missing and reset == "none":
            raise ConfigError(
                f"{self._watch.where}: group {group!r} has no committed offset for partition"
                f" {self._watch.named(missing)}; set 'properties.auto.offset.reset' to 'earliest' or 'latest', or"
                " 'scan.startup.mode' to 'earliest-offset' or 'latest-offset'"
            )
        return offsets | (self._watch.starts(missing) if reset == "earliest" else self._watch.ends(missing))
