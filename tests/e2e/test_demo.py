"""`vector-assets demo` as a newcomer runs it: a process of its own, services of its own, from nothing and once more."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fix_services import PREFIX, unavailable
from vector_assets.cli import demo as steps
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, FatalError
from vector_assets.engine.hours import Calendar
from vector_assets.engine.session import Books
from vector_assets.local import demo as world
from vector_assets.local import process, services

REPOSITORY = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("vector-assets")


def test_the_records_are_the_same_at_every_call_and_hold_what_the_demo_promises():
    records = world.records()
    assert records == world.records()
    assert len(records) == world.RECORDS
    poison = records[500::1000]
    good = [record for place, record in enumerate(records) if place % 1000 != 500]
    ids = [int(record.split(b"\t")[0]) for record in good]
    assert (len(poison), len(ids) - len(set(ids))) == (world.POISON, world.DUPLICATES)
    assert all(record.count(b"\t") == 4 and record.count(b",") == world.DIMENSION - 1 for record in good)


def test_an_interrupted_filling_of_the_topic_is_finished(own_kafka, monkeypatch):
    kafka = own_kafka()
    monkeypatch.setenv(env.secret_variable("kafka_bootstrap_servers"), kafka.bootstrap_servers)
    kafka.create_topic(1, name=world.TOPIC)
    kafka.produce(world.TOPIC, world.records()[:4000])
    assert world.fill_topic(print) == world.Filled(total=10_000, before=4000)
    assert world.fill_topic(print) == world.Filled(total=10_000, before=10_000)
    assert [message.value() for message in kafka.read(world.TOPIC)] == world.records()


ACCOUNTS = {
    "all there": (steps._Account(10_000, 0, 9985, 5, 10), True),
    "read twice after a reset": (steps._Account(20_000, 0, 9985, 9995, 20), True),
    "a row lost": (steps._Account(10_000, 0, 9984, 5, 10), False),
    "a row too many": (steps._Account(10_000, 0, 9986, 5, 10), False),
    "records left in the topic": (steps._Account(9000, 1000, 8985, 5, 10), False),
}


@pytest.mark.parametrize(("account", "adds_up"), ACCOUNTS.values(), ids=ACCOUNTS.keys())
def test_the_numbers_must_add_up(account, adds_up):
    assert account.adds_up is adds_up


@pytest.fixture
def placeholders(monkeypatch, tmp_path):
    """The demo's script compiles; nothing it names is there."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(REPOSITORY / "pipelines"))
    for name in ("kafka_bootstrap_servers", "postgres_address", "postgres_user", "postgres_password"):
        monkeypatch.setenv(env.secret_variable(name), "placeholder:1")


HOURS = ["2026-03-01-10:00", "2026-03-01-11:00"]


@pytest.mark.parametrize("code", [0, 1], ids=["the first run succeeds", "the first run fails"])
def test_a_run_during_which_the_hour_turns_is_followed_by_one_of_the_next_hour(placeholders, monkeypatch, code):
    ran: list[str] = []

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        ran.append(arguments[-1])
        return subprocess.CompletedProcess(arguments, code if len(ran) == 1 else 0, "", "")

    monkeypatch.setattr(steps, "_dagster", run)
    monkeypatch.setattr(Calendar, "now", lambda self: HOURS[len(ran)])
    monkeypatch.setattr(Calendar, "is_open", lambda self, key: key == HOURS[1])
    assert HOURS[1] in steps._materialize(steps.Spinner("asset"))
    assert ran == HOURS


def test_a_run_that_fails_ends_the_demo_with_what_dagster_said(placeholders, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "dagster says why")
    monkeypatch.setattr(steps, "_dagster", lambda arguments: failed)
    with pytest.raises(FatalError, match="exit code 1:\ndagster says why"):
        steps._materialize(steps.Spinner("asset"))


def test_the_demo_needs_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(steps, "CHECKOUT", tmp_path)
    with pytest.raises(ConfigError, match="the demo needs the repository"):
        steps.demo()


@pytest.fixture
def demo_home() -> Iterator[Path]:
    """A home that a server running as another user can reach; its services are stopped when the test ends."""
    home = Path(tempfile.mkdtemp(prefix=PREFIX))
    home.chmod(0o711)
    (home / "session").write_text(f"{os.getpid()} {process.identity(os.getpid())}")
    (home / "dagster_home").mkdir()
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home / "dagster_home")
    yield home
    with env.overridden(VECTOR_ASSETS_HOME=str(home)):
        services.down()
    shutil.rmtree(home)


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {"VECTOR_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster_home")}
    return subprocess.run(
        [COMMAND, *arguments], cwd=REPOSITORY, env=env.child_environment(**variables), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def state() -> tuple[object, ...]:
    """All that a second demo must not change: rows with their versions, batches, dead letters, records."""
    with world._connect(world.DATABASE) as connection:
        rows = connection.execute(f"SELECT id, xmin::text, ctid::text FROM {world.TABLE} ORDER BY id").fetchall()
    with closing(Books.open()) as books:
        batches = books.ledger.batches(world.PIPELINE)
        letters = books.ledger.dead_letters.listed(state=None)
    return rows, batches, letters


@pytest.mark.service
def test_the_demo_works_from_nothing_and_a_second_one_changes_nothing(demo_home):
    first = run(demo_home, "demo")
    if "cannot download" in first.stderr or "pip install" in first.stderr:
        unavailable(first.stderr.strip())
    assert first.returncode == 0, first.stderr + first.stdout
    for told in (
        r"rows landed +9,985$",
        r"conflicts +5 ",
        r"dead letters +10$",
        r"column feature: 9 dimensions, wanted 10$",
        r"by the index car_info_by_feature$",
        r"<-> '\[",
        r"^make dev ",
    ):
        assert re.search(told, first.stdout, re.MULTILINE), (told, first.stdout)
    with env.overridden(VECTOR_ASSETS_HOME=str(demo_home)), env.overridden(**world.secrets()):
        before = state()
        second = run(demo_home, "demo")
        assert second.returncode == 0, second.stderr
        assert second.stdout.count("already there") == 2
        assert "no new batches" in second.stdout
        assert state() == before
    down = run(demo_home, "services", "down", "--json")
    assert down.returncode == 0, down.stderr
    assert not (demo_home / "kafka" / "process.json").exists()
    assert not (demo_home / "postgres" / "process.json").exists()
