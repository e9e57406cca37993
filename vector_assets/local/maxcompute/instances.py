"""Jobs: scripts that were asked for, run one after the other in the background, with their results on disk."""

import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from vector_assets.local.maxcompute.http import Request
from vector_assets.local.maxcompute.names import Scope
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.sql import Sql
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.types import Type, of_arrow

RUNNING, TERMINATED = "Running", "Terminated"
_PATIENCE_S = 2.0
"""A job that ends this soon has ended when its number is answered, so that no client need poll."""

_TASKS = ("SQL", "Merge")
"""A Merge task joins small files, of which there are none here: it succeeds at once."""


@dataclass
class Instance:
    """One job. `outcome` is Running, Success, Failed or Cancelled."""

    id: str
    project: str
    task: str
    query: str
    settings: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    priority: int = 9
    outcome: str = RUNNING
    text: str = ""
    has_rows: bool = False
    started: float = 0.0
    ended: float = 0.0

    @property
    def status(self) -> str:
        """Running or Terminated."""
        return RUNNING if self.outcome == RUNNING else TERMINATED


class Instances:
    """The jobs of all projects; those that ran when the server ended have failed."""

    def __init__(self, store: Store, sql: Sql) -> None:
        self._store = store
        self._sql = sql
        self._folder = store.folder / "results"
        self._folder.mkdir(exist_ok=True)
        self._found = {key: Instance(**body) for key, body in store.documents("instance").items()}
        self._pool = ThreadPoolExecutor(4, "instance")
        self._lock = threading.Lock()
        for instance in self._found.values():
            if instance.outcome == RUNNING:
                self._end(instance, "Failed", "ODPS-0010000:System internal error - the server was stopped")

    def submit(self, request: Request, scope: Scope) -> Instance:
        """Start the job of a request's body.

        Raises:
            Refusal: the body is no job of one SQL task.
        """
        instance = _read_job(request, scope)
        scope.settings = dict(instance.settings)
        instance.started = time.time()
        with self._lock:
            self._found[instance.id] = instance
        self._save(instance)
        future: Future[None] = self._pool.submit(self._run, instance, scope)
        wait([future], timeout=_PATIENCE_S)
        return instance

    def find(self, project: str, number: str) -> Instance:
        """A job.

        Raises:
            Refusal: there is none.
        """
        found = self._found.get(number)
        if found is None or found.project.lower() != project.lower():
            raise Refusal(404, "NoSuchObject", f"ODPS-0420061: Invalid parameter - instance {number} does not exist")
        return found

    def of_project(self, project: str) -> list[Instance]:
        """The jobs of a project, newest first."""
        with self._lock:
            found = [each for each in self._found.values() if each.project.lower() == project.lower()]
        return sorted(found, key=lambda each: each.started, reverse=True)

    def stop(self, instance: Instance) -> None:
        """Give a running job up; what it does then is not seen.

        Raises:
            Refusal: it has ended.
        """
        if instance.outcome != RUNNING:
            raise Refusal(409, "InvalidStateSetting", f"ODPS-0420061: Invalid state setting - {instance.id} has ended")
        self._end(instance, "Cancelled", "ODPS-0430055: the instance was cancelled")

    def rows(self, instance: Instance) -> pa.Table:
        """What a SELECT gave.

        Raises:
            Refusal: the job has not ended well, or was no SELECT.
        """
        if instance.outcome == RUNNING:
            raise Refusal(409, "InstanceNotTerminate", f"instance {instance.id} has not ended")
        if not instance.has_rows:
            raise Refusal(400, "InvalidArgument", "ODPS-0420411: the instance is no SELECT that succeeded")
        with pa.memory_map(str(self._path(instance))) as source:
            return pa.ipc.open_file(source).read_all()

    def kinds(self, rows: pa.Table) -> list[Type]:
        """The MaxCompute types of a result's columns."""
        return [of_arrow(part.type) for part in rows.schema]

    def _run(self, instance: Instance, scope: Scope) -> None:
        try:
            answer = self._sql.run(instance.query, scope)
            if answer.rows is not None:
                self._keep(instance, answer.rows)
        except Refusal as refusal:
            self._end(instance, "Failed", _failure(refusal))
        except duckdb.Error as error:
            self._end(instance, "Failed", f"ODPS-0130071:[1,1] Semantic analysis exception - {error}")
        except Exception as error:  # noqa: BLE001 (a job that ends without an outcome would be waited for for ever)
            self._end(instance, "Failed", f"ODPS-0010000:System internal error - {type(error).__name__}: {error}")
        else:
            if instance.outcome == RUNNING:
                instance.has_rows = answer.rows is not None
                self._end(instance, "Success", answer.text)

    def _keep(self, instance: Instance, rows: pa.Table) -> None:
        with pa.OSFile(str(self._path(instance)), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)

    def _path(self, instance: Instance) -> Path:
        return self._folder / f"{instance.id}.arrow"

    def _end(self, instance: Instance, outcome: str, text: str) -> None:
        instance.text = text
        instance.ended = time.time()
        instance.outcome = outcome
        self._save(instance)

    def _save(self, instance: Instance) -> None:
        self._store.put("instance", instance.id, vars(instance))


def _failure(refusal: Refusal) -> str:
    text = str(refusal)
    return (
        text if text.startswith("ODPS-") else f"{refusal.code}: ODPS-0130071:[1,1] Semantic analysis exception - {text}"
    )


def _read_job(request: Request, scope: Scope) -> Instance:
    job = request.xml().find(".//Job")
    task = job.find("./Tasks/*") if job is not None else None
    if job is None or task is None:
        raise invalid("the body has no Job with a task")
    if task.tag not in _TASKS:
        known = ", ".join(_TASKS)
        raise Refusal(400, "InvalidArgument", f"a {task.tag} task is not supported here; known: {known}")
    properties = {each.findtext("Name"): each.findtext("Value") or "" for each in task.iterfind("./Config/Property")}
    settings: dict[str, Any] = orjson.loads(properties.get("settings") or "{}")
    number = time.strftime("%Y%m%d%H%M%S", time.gmtime()) + uuid.uuid4().hex[:12]
    return Instance(
        id=number,
        project=scope.project,
        task=task.findtext("Name") or "AnonymousSQLTask",
        query=(task.findtext("Query") or "").strip(),
        settings={
            key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in settings.items()
        },
        properties={name: value for name, value in properties.items() if name},
        priority=int(job.findtext("Priority") or 9),
    )
