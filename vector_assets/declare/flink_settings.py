"""SET statements: the pipeline's settings, and Flink's that can have no effect here."""

from collections.abc import Callable

from vector_assets.declare.flink_script import Script, Statement, start_of
from vector_assets.engine.errors import Place
from vector_assets.engine.options import parse_duration
from vector_assets.engine.pipeline import PipelineSettings
from vector_assets.engine.registry import nearest

_UTC = {"UTC", "ETC/UTC", "GMT", "Z", "+00:00", "UTC+0", "GMT+00:00"}


def _one_of(*words: str) -> Callable[[str], str | None]:
    def wrong(value: str) -> str | None:
        return None if value.upper() in words else f"want one of {', '.join(words)}"

    return wrong


def _duration(value: str) -> str | None:
    try:
        parse_duration(value)
    except ValueError as error:
        return str(error)
    return None


def _count(value: str) -> str | None:
    return None if value.isdigit() and int(value) > 0 else "want a whole number from 1"


def _utc(value: str) -> str | None:
    return None if value.upper() in _UTC else "only UTC is supported, so that a replay means the same on every machine"


_WITHOUT_EFFECT: dict[str, tuple[Callable[[str], str | None], str]] = {
    "execution.runtime-mode": (_one_of("STREAMING", "BATCH", "AUTOMATIC"), "records always come in micro-batches"),
    "execution.checkpointing.interval": (_duration, "every micro-batch is committed; see vector-assets.batch.*"),
    "execution.checkpointing.mode": (_one_of("EXACTLY_ONCE", "AT_LEAST_ONCE"), "the sink's guarantee holds"),
    "parallelism.default": (_count, "threads are chosen by the engine; see vector-assets.memory"),
    "table.exec.state.ttl": (_duration, "no statement that is supported keeps state"),
    "table.local-time-zone": (_utc, "times are always UTC"),
    "table.exec.sink.not-null-enforcer": (_one_of("ERROR"), "a NULL in a NOT NULL column is always a dead letter"),
}


class Settings:
    """The settings that hold at one point of a script; a later SET of the same name wins, as in Flink."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.values: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        self.reports: dict[str, str] = {}
        self.pending: dict[str, Place] = {}

    def set(self, statement: Statement) -> None:
        """Take one SET statement.

        Raises:
            ConfigError: at the name when it is unknown, at the value when it is refused.
        """
        item = statement.node.expressions[0].this
        name, value = str(item.this.name), str(item.expression.name)
        place = self.script.place(start_of(item.this))
        self.pending[name] = place
        if name in _WITHOUT_EFFECT:
            wrong, why = _WITHOUT_EFFECT[name]
            reason = wrong(value)
            if reason:
                raise self.script.error(f"SET {name!r}: found {value!r}; {reason}", item.expression)
            self.reports[name] = f"{place}: SET {name!r} has no effect: {why}"
            return
        known = PipelineSettings.known()
        if name not in known:
            names = sorted([*known, *_WITHOUT_EFFECT])
            listed = ", ".join(names)
            raise self.script.error(f"SET: unknown setting {name!r}{nearest(name, names)}; known: {listed}", item.this)
        self.values[name] = value
        self.places[name] = self.script.place(start_of(item.expression))
        PipelineSettings.parse({name: value}, "SET", self.places)

    def take(self) -> tuple[PipelineSettings, tuple[str, ...]]:
        """The settings for the INSERT that follows, and what to report about those without effect."""
        self.pending.clear()
        return PipelineSettings.parse(self.values, "SET", self.places), tuple(self.reports.values())
