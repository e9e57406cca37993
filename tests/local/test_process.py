"""Processes are found, told apart and ended."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vector_assets.local import process
from vector_assets.local.process import Command, Process


def _launch(tmp_path: Path, code: str) -> Process:
    started = process.launch(Command([sys.executable, "-c", code], {}), tmp_path / "log", tmp_path)
    assert started is not None
    return started


def test_a_launched_process_has_a_session_of_its_own_and_is_no_child_of_ours(tmp_path: Path) -> None:
    started = _launch(tmp_path, "import time; print('hello', flush=True); time.sleep(60)")
    try:
        assert process.until(lambda: (tmp_path / "log").read_text() == "hello\n", 10)
        assert os.getsid(started.pid) != os.getsid(0)
        with pytest.raises(ChildProcessError):
            os.waitpid(started.pid, os.WNOHANG)
    finally:
        process.end(started, signal.SIGTERM, 10)
    assert not started.is_alive()


def test_another_process_with_the_same_pid_is_neither_alive_nor_signalled() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        earlier = Process(stranger.pid, "an earlier boot:1")
        assert not earlier.is_alive()
        process.end(earlier, signal.SIGKILL, 1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    found = process.find(child.pid)
    assert found is not None
    assert process.until(lambda: not found.is_alive(), 10)
    child.wait()


def test_a_process_that_ignores_the_signal_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_CHILDREN_TIMEOUT_S", 0.2)
    child = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); print('up', flush=True); {child}"
    )
    started = _launch(tmp_path, code)
    assert process.until(lambda: (tmp_path / "log").read_text() == "up\n", 10)
    children = started.descendants()
    assert len(children) == 1
    process.end(started, signal.SIGTERM, 0.2)
    assert not any(each.is_alive() for each in (started, *children))


def test_a_process_that_ended_at_once_is_not_found(tmp_path: Path) -> None:
    started = process.launch(Command(["/does/not/exist"], {}), tmp_path / "log", tmp_path)
    assert process.until(lambda: started is None or not started.is_alive(), 10)
    assert "not found" in (tmp_path / "log").read_text()


def test_without_a_proc_file_system_ps_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ps") is None:
        pytest.skip("no ps on this machine")
    monkeypatch.setattr(process, "_PROC", tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = process.find(child.pid)
    ourselves = process.find(os.getpid())
    assert found is not None
    assert ourselves is not None
    assert found in ourselves.descendants()
    assert process.working_in(tmp_path) is None
    child.kill()
    assert process.until(lambda: not found.is_alive(), 10)
    child.wait()
    assert process.find(child.pid) is None
