"""The only reader of environment variables: settings, secrets, failpoints.

| variable | meaning | default |
|---|---|---|
| `VECTOR_ASSETS_HOME` | folder for ledger, archive and local services | `.local` |
| `VECTOR_ASSETS_PIPELINES` | folder of declarations | `pipelines` |
| `VECTOR_ASSETS_LEDGER` | ledger file, or `postgresql://...`; `${secret_values.x}` is replaced | `<home>/ledger.db` |
| `VECTOR_ASSETS_ARCHIVE` | archive folder | `<home>/archive` |
| `VECTOR_ASSETS_SECRET_<NAME>` | value of `${secret_values.<name>}` | `<home>/services.env` |
| `DAGSTER_HOME` | Dagster's folder; only looked at, by `doctor` | none |
| `JDK_JAVA_OPTIONS` | Java's own: more options for the local Kafka and OpenSearch; those they need win | none |
| `VECTOR_ASSETS_NATIVE` | `auto`, `on` or `off`: whether compiled loops read Kafka (docs/kafka.md) and JSON | `auto` |
| `VECTOR_ASSETS_FAIL_AT` | `<step>:<n>[:kill or stop or raise]`, see `failpoint` | off |

`<home>/services.env` is written by `vector-assets services up` (mode 0600): it lets scripts name local services by the
same `${secret_values.x}` that names real ones. The real environment wins.
"""

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

from vector_assets.engine.errors import ConfigError, FatalError

STEPS = ("planned", "read", "archived", "sealed", "staged", "committing", "committed", "done")
"""Names of the failpoints, in the order a batch passes them."""
RARE_STEPS = ("evolved",)
"""Failpoints that few batches pass: one that changes the columns, when the target has them and the ledger has not."""

NATIVE = ("auto", "on", "off")
"""What `VECTOR_ASSETS_NATIVE` may say."""

_SECRET = re.compile(r"\$\{secret_values\.([\w.-]+)\}")
_passes: dict[str, int] = {}
_lock = threading.Lock()
_outside_stops: WeakSet[AbstractContextManager[Any]] = WeakSet()


def home() -> Path:
    """Folder for ledger, archive and local services."""
    return Path(os.environ.get("VECTOR_ASSETS_HOME") or ".local").absolute()


def pipelines_dir() -> Path:
    """Folder of declarations."""
    return Path(os.environ.get("VECTOR_ASSETS_PIPELINES") or "pipelines").absolute()


def ledger_location() -> str:
    """Path of the SQLite ledger, or the URL of a PostgreSQL one with its secrets filled in.

    A secret that is only a part of the value (`postgresql://me:${secret_values.x}@host/db`) is quoted as URLs want it.

    Raises:
        ConfigError: the value names a secret that is not set.
    """
    text = os.environ.get("VECTOR_ASSETS_LEDGER") or str(home() / "ledger.db")
    whole = _SECRET.fullmatch(text)
    return secret(whole[1]) if whole else _SECRET.sub(lambda found: quote(secret(found[1]), safe=""), text)


def archive_dir() -> Path:
    """Folder of the archive."""
    return Path(os.environ.get("VECTOR_ASSETS_ARCHIVE") or home() / "archive").absolute()


def dagster_home() -> Path | None:
    """Dagster's own folder, None where none is named."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).absolute() if named else None


def native() -> str:
    """Whether Kafka and JSON records are read natively: `auto` (where it pays), `on` (always) or `off`.

    Raises:
        ConfigError: the variable says something else.
    """
    choice = os.environ.get("VECTOR_ASSETS_NATIVE") or "auto"
    if choice not in NATIVE:
        raise ConfigError(f"VECTOR_ASSETS_NATIVE={choice!r}: want one of {', '.join(NATIVE)}")
    return choice


def in_ci() -> bool:
    """True on a CI machine, where a missing service is a failure, not a skip."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def secret_variable(name: str) -> str:
    """The environment variable that holds the secret `name`."""
    return "VECTOR_ASSETS_SECRET_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def services_file() -> Path:
    """Where `services up` publishes the addresses of local services."""
    return home() / "services.env"


def secret(name: str) -> str:
    """The value of `${secret_values.<name>}`.

    Raises:
        ConfigError: neither the environment nor the local services know it; the message names the variable to set.
    """
    variable = secret_variable(name)
    value = os.environ.get(variable)
    if value is None:
        value = _services().get(variable)
    if value is None:
        raise ConfigError(
            f"secret {name!r} is not set: export {variable}, or start the local services (vector-assets services up)"
        )
    return value


def _services() -> dict[str, str]:
    file = services_file()
    if not file.exists():
        return {}
    lines = (line.partition("=") for line in file.read_text().splitlines() if "=" in line)
    return {key: value for key, _, value in lines}


def java_environment() -> dict[str, str]:
    """The environment of a Java server that we start: nothing but what `JDK_JAVA_OPTIONS` says to every `java`."""
    name = "JDK_JAVA_OPTIONS"
    return {name: os.environ[name]} if os.environ.get(name) else {}


def child_environment(**extra: str) -> dict[str, str]:
    """A copy of this process's environment with `extra` on top, for processes we start."""
    return {**os.environ, **extra}


@contextmanager
def overridden(**values: str) -> Iterator[None]:
    """Set environment variables for the length of the block (benchmarks, demo)."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def never_stop_inside(lock: AbstractContextManager[Any]) -> None:
    """Let no failpoint stop the process while a thread holds this lock: the ledger would stay locked for all others."""
    _outside_stops.add(lock)


def failpoint(step: str) -> None:
    """Die here if `VECTOR_ASSETS_FAIL_AT=<step>:<n>` names this step's n-th pass (counted per process, from 1).

    The third part says how: `kill` (SIGKILL, the default), `stop` (SIGSTOP, for zombies) or `raise` (FatalError).

    Raises:
        ConfigError: the variable is malformed or names an unknown step.
        FatalError: the failpoint's action is `raise`.
    """
    wanted = os.environ.get("VECTOR_ASSETS_FAIL_AT")
    if not wanted:
        return
    name, _, rest = wanted.partition(":")
    number, _, action = rest.partition(":")
    if (
        name not in (*STEPS, *RARE_STEPS)
        or not re.fullmatch(r"[1-9][0-9]*", number)
        or action not in {"", "kill", "stop", "raise"}
    ):
        raise ConfigError(
            f"VECTOR_ASSETS_FAIL_AT={wanted!r}: want <step>:<n>[:kill|stop|raise] with step one of "
            f"{', '.join((*STEPS, *RARE_STEPS))}"
        )
    if name != step:
        return
    with _lock:
        _passes[step] = _passes.get(step, 0) + 1
        reached = _passes[step] == int(number)
    if not reached:
        return
    if action == "raise":
        raise FatalError(f"failpoint {wanted}")
    if action == "stop":
        with ExitStack() as others:
            for lock in list(_outside_stops):
                others.enter_context(lock)
            # sent to this very thread, it stops the process before the locks are free again
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    else:
        os.kill(os.getpid(), signal.SIGKILL)
