"""SET statements: the pipeline's settings, those of EMBED, and Flink's that can have no effect here."""

from collections.abc import Callable

from sqlglot import exp

from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.declare.flink_options import Secrets, secret_value
from vector_assets.declare.flink_script import Script, Statement, start_of
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, Place
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


EMBEDDING = "vector-assets.embedding."
"""Prefix of the settings that are options of EMBED."""
_EMBEDDING_NAMES = [EMBEDDING + name for name in EmbeddingOptions.known()]


class Settings:
    """The settings that hold at one point of a script; a later SET of the same name wins, as in Flink."""

    def __init__(self, script: Script, secrets: Secrets = env.secret, *, offline: bool = False) -> None:
        self.script = script
        self._secrets = secrets
        self._offline = offline
        self._embedding: dict[str, str] = {}
        self._is_embedding_used = False
        self._embedding_places: dict[str, Place] = {}
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
        if name in _EMBEDDING_NAMES:
            self._set_embedding(name.removeprefix(EMBEDDING), value, item.expression)
            return
        known = PipelineSettings.known()
        if name not in known:
            names = sorted([*known, *_WITHOUT_EFFECT, *_EMBEDDING_NAMES])
            listed = ", ".join(names)
            raise self.script.error(f"SET: unknown setting {name!r}{nearest(name, names)}; known: {listed}", item.this)
        self.values[name] = value
        self.places[name] = self.script.place(start_of(item.expression))
        PipelineSettings.parse({name: value}, "SET", self.places)

    def _set_embedding(self, option: str, value: str, node: exp.Expr) -> None:
        name = f"SET '{EMBEDDING}{option}'"
        is_address = option == "url"
        filled = secret_value(
            self.script, node, self._secrets, name, offline=self._offline,
            stand_in="http://offline.invalid/v1" if is_address else "offline",
        )  # fmt: skip
        self._embedding[option] = filled
        self._embedding_places[option] = self.script.place(start_of(node))

    def embedding(self, function: exp.Expr) -> EmbeddingOptions:
        """The options of EMBED that hold here.

        Raises:
            ConfigError: one is missing (at `function`), or its value is refused.
        """
        self._is_embedding_used = True
        places = {"connector": self.script.place(start_of(function)), **self._embedding_places}
        try:
            return EmbeddingOptions.parse(self._embedding, "EMBED", places)
        except ConfigError as error:
            hint = f"; options are set by SET '{EMBEDDING}<option>' = '...'"
            raise ConfigError(error.message + hint, error.place or places["connector"]) from None

    def check_embedding_used(self) -> None:
        """Refuse options of EMBED in a script without one.

        Raises:
            ConfigError: at the first of them.
        """
        if not self._is_embedding_used:
            for option, place in self._embedding_places.items():
                raise ConfigError(f"SET '{EMBEDDING}{option}' has no effect: no SELECT has EMBED(text)", place)

    def take(self) -> tuple[PipelineSettings, tuple[str, ...]]:
        """The settings for the INSERT that follows, and what to report about those without effect."""
        self.pending.clear()
        return PipelineSettings.parse(self.values, "SET", self.places), tuple(self.reports.values())
