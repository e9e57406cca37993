"""The services are started, published, listed and stopped by name."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fix_services
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.local import process, services
from vector_assets.local.postgres import PostgresService
from vector_assets.local.services import SERVICES


@pytest.fixture
def home(services_home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home; its services are stopped after the test."""
    path = services_home / request.node.name
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(path))
    yield path
    for name, kind in SERVICES.items():
        kind(path / name).erase()


def test_an_unknown_name_is_refused_with_the_known_ones(home: Path) -> None:
    with pytest.raises(ConfigError, match="unknown service mongo; known: kafka, postgres, schema-registry, milvus"):
        services.up(["mongo"])
    assert not home.exists()


def test_services_that_never_ran_are_down_and_looking_at_them_leaves_nothing(home: Path) -> None:
    assert [(row.name, row.state, row.address, row.pid) for row in services.status()] == [
        ("kafka", "down", "", None),
        ("postgres", "down", "", None),
        ("schema-registry", "down", "", None),
        ("milvus", "down", "", None),
        ("maxcompute", "down", "", None),
        ("mysql", "down", "", None),
        ("mysql8", "down", "", None),
        ("s3", "down", "", None),
        ("embeddings", "down", "", None),
        ("opensearch", "down", "", None),
    ]
    services.down()
    assert not home.exists()


@pytest.mark.service
def test_up_publishes_what_down_withdraws(home: Path) -> None:
    steps: list[str] = []
    rows = services.up(progress=steps.append)
    assert [(row.name, row.state) for row in rows] == [
        ("kafka", "up"),
        ("postgres", "up"),
        ("schema-registry", "up"),
        ("milvus", "up"),
        ("maxcompute", "up"),
        ("mysql", "up"),
        ("s3", "up"),
        ("embeddings", "up"),
    ]
    assert {"formatting the storage of kafka", "creating the postgres cluster"} < set(steps)
    kafka, postgres, registry, milvus, maxcompute, mysql, s3, embeddings = rows
    assert env.services_file().stat().st_mode & 0o777 == 0o600
    assert env.secret("KAFKA_BOOTSTRAP_SERVERS") == kafka.address
    assert env.secret("POSTGRES_ADDRESS") == postgres.address
    assert env.secret("SCHEMA_REGISTRY_URL") == f"http://{registry.address}"
    assert f"{env.secret('MILVUS_ENDPOINT')}:{env.secret('MILVUS_PORT')}" == milvus.address
    assert env.secret("MAXCOMPUTE_ENDPOINT") == f"http://{maxcompute.address}"
    assert f"{env.secret('MYSQL_HOST')}:{env.secret('MYSQL_PORT')}" == mysql.address
    assert env.secret("S3_ENDPOINT") == f"http://{s3.address}"
    assert env.secret("EMBEDDINGS_URL") == f"http://{embeddings.address}/v1"
    assert env.secret("POSTGRES_USER") == PostgresService.user
    assert env.secret("POSTGRES_PASSWORD") == (home / "postgres" / "password").read_text()
    assert all(row.log.is_relative_to(home) and row.log.exists() for row in rows)

    steps.clear()
    assert services.up(progress=steps.append) == rows
    assert steps == []
    assert [row for row in services.status() if row.name not in {"opensearch", "mysql8"}] == rows

    assert [row.state for row in services.down(["postgres"])] == ["down"]
    assert env.secret("KAFKA_BOOTSTRAP_SERVERS") == kafka.address
    with pytest.raises(ConfigError, match="POSTGRES_ADDRESS"):
        env.secret("POSTGRES_ADDRESS")
    services.down()
    assert env.services_file().read_text() == ""
    assert [row.state for row in services.status()] == ["down"] * len(SERVICES)
    assert [process.find(row.pid) for row in rows if row.pid] == [None] * len(rows)


def test_the_help_names_every_service() -> None:
    from vector_assets.cli.services import up

    told = str(up.__annotations__["names"].__metadata__[0].help)
    assert [name for name in SERVICES if name not in told] == []


@pytest.mark.service
def test_two_ups_at_once_start_one_server(home: Path) -> None:
    code = """if True:
        import json
        from vector_assets.local import services
        steps = []
        (row,) = services.up(["postgres"], steps.append)
        print(json.dumps([row.pid, row.address, [step for step in steps if step.startswith("starting")]]))
    """
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ}) for _ in range(2)
    ]
    answers = [json.loads(each.communicate(timeout=60)[0]) for each in running]
    assert [each.returncode for each in running] == [0, 0]
    assert answers[0][:2] == answers[1][:2]
    assert sum(len(starts) for _, _, starts in answers) == 1
    # the server outlives those who started it
    (row,) = services.status(["postgres"])
    assert (row.state, row.pid) == ("up", answers[0][0])


@pytest.mark.service
def test_a_pid_that_somebody_else_has_now_is_left_alone(home: Path) -> None:
    services.up(["postgres"])
    service = PostgresService()
    service.stop()
    record = {"pid": os.getpid(), "identity": "an earlier boot:1", "version": "18"}
    (home / "postgres" / "process.json").write_text(json.dumps(record))
    assert service.status().state == "down"
    assert not service.stop()
    assert services.up(["postgres"])[0].state == "up"


@pytest.mark.service
def test_a_server_that_hangs_is_starting_and_is_stopped_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = services.up(["postgres"])
    assert row.pid is not None
    monkeypatch.setattr(PostgresService, "stop_timeout_s", 0.5)
    os.kill(row.pid, signal.SIGSTOP)
    assert services.status(["postgres"])[0].state == "starting"
    assert services.down(["postgres"])[0].state == "down"
    assert process.find(row.pid) is None
    assert process.working_in(row.data_dir) == []


@pytest.mark.service
def test_what_a_killed_test_session_left_running_is_cleared_away() -> None:
    home = Path(tempfile.mkdtemp(prefix=fix_services.PREFIX))
    home.chmod(0o711)
    service = PostgresService(home / "own_postgres_0")
    pid = service.start().pid
    assert pid is not None
    (home / "session").write_text(f"{os.getpid()} an earlier boot:1")
    fix_services.erase_homes_of_dead_sessions()
    assert process.find(pid) is None
    assert not home.exists()
