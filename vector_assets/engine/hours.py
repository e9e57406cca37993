"""Time partitions: which hour (or day) a batch belongs to, and when that ends. UTC, spelled as Dagster spells them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from vector_assets.engine.errors import ConfigError

_FORMATS = {"hourly": "%Y-%m-%d-%H:%M", "daily": "%Y-%m-%d"}
_LENGTHS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Calendar:
    """Partitions of one length."""

    length: Literal["hourly", "daily"] = "hourly"
    clock: Callable[[], float] = time.time

    @property
    def format(self) -> str:
        """How keys are spelled, as strftime takes it."""
        return _FORMATS[self.length]

    def now(self) -> str:
        """Key of the partition that is open now."""
        moment = datetime.fromtimestamp(self.clock(), UTC).replace(minute=0, second=0, microsecond=0)
        return (moment.replace(hour=0) if self.length == "daily" else moment).strftime(self.format)

    def end(self, key: str) -> float:
        """Epoch seconds at which the partition `key` ends.

        Raises:
            ConfigError: the key is not one of this calendar.
        """
        try:
            start = datetime.strptime(key, self.format).replace(tzinfo=UTC)
        except ValueError:
            raise ConfigError(f"partition {key!r}: want the form {self.format}, for example {self.now()!r}") from None
        return (start + _LENGTHS[self.length]).timestamp()

    def is_open(self, key: str) -> bool:
        """True until the partition has ended."""
        return self.clock() < self.end(key)
