import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, FatalError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("VECTOR_ASSETS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    return tmp_path


def test_everything_lives_under_home_unless_told_otherwise(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.home() == home
    assert env.archive_dir() == home / "archive"
    assert env.ledger_location() == str(home / "ledger.db")
    assert env.services_file() == home / "services.env"
    monkeypatch.setenv("VECTOR_ASSETS_ARCHIVE", "/elsewhere/archive")
    monkeypatch.setenv("VECTOR_ASSETS_LEDGER", "/elsewhere/ledger.db")
    assert env.archive_dir() == Path("/elsewhere/archive")
    assert env.ledger_location() == "/elsewhere/ledger.db"


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_defaults_are_below_the_current_folder(value: str | None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.delenv("VECTOR_ASSETS_HOME")
    if value is not None:
        monkeypatch.setenv("VECTOR_ASSETS_HOME", value)
        monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", value)
        monkeypatch.setenv("VECTOR_ASSETS_ARCHIVE", value)
    assert env.home() == home / ".local"
    assert env.pipelines_dir() == home / "pipelines"
    assert env.archive_dir() == home / ".local" / "archive"


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("1", True), ("", False), ("0", False), ("false", False)]
)
def test_ci_is_what_ci_machines_say(value: str, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", value)
    assert env.in_ci() is expected


@pytest.mark.parametrize(("value", "expected"), [(None, "auto"), ("", "auto"), ("on", "on"), ("off", "off")])
def test_the_native_reader_is_chosen_by_one_variable(
    value: str | None, expected: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("VECTOR_ASSETS_NATIVE", value)
    assert env.native() == expected


def test_another_word_for_the_native_reader_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTOR_ASSETS_NATIVE", "yes")
    with pytest.raises(ConfigError, match="VECTOR_ASSETS_NATIVE='yes': want one of auto, on, off"):
        env.native()


def test_a_secret_comes_from_the_environment_else_from_the_local_services(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "services.env").write_text(
        "VECTOR_ASSETS_SECRET_PG_URL=host=x port=1\nVECTOR_ASSETS_SECRET_EMPTY=\n\nnoise\n"
    )
    assert env.secret("pg.url") == "host=x port=1"
    assert env.secret("pg-url") == "host=x port=1"
    assert env.secret("empty") == ""
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_PG_URL", "real")
    assert env.secret("pg_url") == "real"


@pytest.mark.parametrize("with_services", [True, False], ids=["services up", "no services"])
def test_an_unknown_secret_names_the_variable_to_set_and_no_value(home: Path, with_services: object) -> None:
    if with_services:
        (home / "services.env").write_text("VECTOR_ASSETS_SECRET_OTHER=hunter2\n")
    with pytest.raises(
        ConfigError, match=r"secret 'pg.password' is not set: export VECTOR_ASSETS_SECRET_PG_PASSWORD"
    ) as e:
        env.secret("pg.password")
    assert "hunter2" not in str(e.value)


def test_a_child_inherits_the_environment_and_what_is_added(home: Path) -> None:
    child = env.child_environment(EXTRA="1", VECTOR_ASSETS_HOME="/other")
    assert (child["EXTRA"], child["VECTOR_ASSETS_HOME"], child["PATH"]) == ("1", "/other", os.environ["PATH"])
    assert "EXTRA" not in os.environ


def test_overridden_variables_come_back_even_after_an_error(home: Path) -> None:
    def fail() -> None:
        with env.overridden(VECTOR_ASSETS_HOME="/other", VECTOR_ASSETS_NEW="1"):
            assert env.home() == Path("/other")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert env.home() == home
    assert "VECTOR_ASSETS_NEW" not in os.environ


@pytest.fixture
def fresh_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "_passes", {})


@pytest.mark.usefixtures("fresh_counts")
def test_a_failpoint_acts_at_its_own_step_on_the_nth_pass_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "sealed:2:raise")
    env.failpoint("planned")
    env.failpoint("sealed")
    env.failpoint("planned")
    with pytest.raises(FatalError, match="failpoint sealed:2:raise"):
        env.failpoint("sealed")
    env.failpoint("sealed")


@pytest.mark.usefixtures("fresh_counts")
def test_failpoints_are_off_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT", raising=False)
    for step in env.STEPS:
        env.failpoint(step)
    assert env._passes == {}


@pytest.mark.parametrize(
    "text", ["sealed", "sealed:", "sealed:x", "sealed:0", "sealed:²", "seal:1", "sealed:1:explode", ":1"]
)
def test_a_malformed_failpoint_is_refused_at_every_step(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", text)
    with pytest.raises(ConfigError, match=r"want <step>:<n>.* with step one of planned, read"):
        env.failpoint("done")


@pytest.mark.parametrize("action", ["", ":kill"])
def test_a_failpoint_kills_its_process(action: str) -> None:
    code = "from vector_assets.engine.env import failpoint; failpoint('read'); failpoint('read'); print('alive')"
    run = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True,
        env=env.child_environment(VECTOR_ASSETS_FAIL_AT=f"read:2{action}"),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (-signal.SIGKILL, b"")


def test_a_process_is_not_stopped_inside_a_transaction_of_its_ledger(tmp_path: Path) -> None:
    """Another thread is in one when the failpoint is reached; whoever takes over must find the ledger open."""
    code = """if True:
        import threading, time
        from pathlib import Path
        from vector_assets.engine import env
        from vector_assets.engine.store import SqliteStore

        store = SqliteStore(Path("ledger.db"))
        is_inside = threading.Event()

        def long():
            with store.transaction():
                is_inside.set()
                time.sleep(1)

        threading.Thread(target=long).start()
        is_inside.wait()
        env.failpoint("read")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path,
        env=env.child_environment(VECTOR_ASSETS_FAIL_AT="read:1:stop", PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
    finally:
        process.kill()
        process.wait()


def test_a_stopped_process_goes_on_when_it_is_woken() -> None:
    code = "from vector_assets.engine.env import failpoint; failpoint('read'); print('alive')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
        env=env.child_environment(VECTOR_ASSETS_FAIL_AT="read:1:stop"),
    )  # fmt: skip
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == b"alive\n"
