"""The scripts of a folder that take links from MySQL clients, and what those ask for."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vector_assets.clients import mysql_etl
from vector_assets.clients.mysql import Login, MySql
from vector_assets.declare.autoetl import Compiler
from vector_assets.declare.autoetl_requests import Request, keep_requests, link_name, noted_requests
from vector_assets.declare.autoetl_script import AutoEtlScript, is_autoetl
from vector_assets.declare.flink_options import Secrets
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class RequestScript:
    """A script with `SET 'autoetl.requests' = 'true'`."""

    path: Path
    file: str
    _compiler: Compiler = field(repr=False)

    @property
    def name(self) -> str:
        """Its file's name without the ending."""
        return self.path.stem

    @property
    def server(self) -> Login:
        """The server whose clients ask."""
        return self._compiler.server()

    @contextmanager
    def opened(self) -> Iterator[MySql]:
        """A connection to that server."""
        with closing(MySql(self.server)) as server:
            yield server

    def refresh(self, ledger: Ledger) -> list[Request]:
        """What is asked for now; kept, so that it is declared from now on. Pauses hold at once.

        Raises:
            ConfigError: nothing is installed on the server, or it refuses us.
            UnavailableError: it cannot be reached.
        """
        with self.opened() as server:
            found = [_request(row) for row in mysql_etl.rows(server)]
        keep_requests(ledger, self.file, found)
        return found

    def noted(self, ledger: Ledger) -> list[Request]:
        """What was asked for when somebody looked last."""
        return noted_requests(ledger, self.file)

    def pipeline(self, request: Request) -> Pipeline:
        """The pipeline that a request means.

        Raises:
            ConfigError: it cannot be made: a table or a column is missing, or a setting is wrong.
        """
        return self._compiler.requested(request)

    def change(self, request: Request, verb: str) -> None:
        """Pause, resume or drop a link on the server."""
        with self.opened() as server:
            mysql_etl.change(server, request.id, verb)

    def report(self, request: Request, status: str | None) -> None:
        """Tell the clients what is wrong with a link; None: nothing."""
        with self.opened() as server:
            mysql_etl.report(server, request.id, status)


def _request(row: dict[str, object]) -> Request:
    arguments = ("search", str(row["fields"]), str(row["join_keys"]), "", "")
    number, state, by, at = (row[name] for name in ("id", "state", "asked_by", "asked_at"))
    return Request(int(str(number)), link_name(str(row["index_name"])), arguments, str(state), str(by), str(at))


def request_scripts(folder: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> list[RequestScript]:
    """The scripts of a folder and below that take requests; scripts that are wrong are left to who loads them.

    Raises:
        ConfigError: two have one name, by which requests are kept.
    """
    found: list[RequestScript] = []
    for path in sorted(folder.rglob("*.sql")) if folder.is_dir() else []:
        if any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
            continue
        try:
            script = script_of(path, secrets=secrets, offline=offline)
        except ConfigError:
            continue
        if script is not None:
            twin = next((each for each in found if each.name == script.name), None)
            if twin is not None:
                what = f"{script.path} and {twin.path} both take requests: give one of the files another name"
                raise ConfigError(what)
            found.append(script)
    return found


def script_of(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> RequestScript | None:
    """The script of a file, if it takes requests.

    Raises:
        ConfigError: it cannot be read, or a statement is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not is_autoetl(text):
        return None
    compiler = Compiler(AutoEtlScript(text, str(path)), secrets, offline=offline)
    return RequestScript(path, str(path), compiler) if compiler.settle().requests else None
