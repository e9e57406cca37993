"""Jars are downloaded whole or not at all."""

from pathlib import Path

import pytest

from vector_assets.engine.errors import ConfigError, TransientError
from vector_assets.local import jars


def test_a_missing_home_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"home directory .*nowhere does not exist"):
        jars.resolve("kafka-0", "org.apache.kafka:kafka_2.13:4.3.1", print)


def test_a_download_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        # nobody listens on port 9
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    steps: list[str] = []
    with pytest.raises(TransientError, match=r"cannot download org\.apache\.kafka:kafka_2\.13:4\.3\.1: "):
        jars.resolve("kafka-0", "org.apache.kafka:kafka_2.13:4.3.1", steps.append)
    assert list((tmp_path / ".cache" / "vector-assets" / "java").iterdir()) == []
    assert steps[:2] == ["resolving the jars of kafka-0", "download failed (ProxyError), trying again"]


def test_who_downloads_second_takes_what_the_first_one_has(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.jar").write_text(name)
        jars.move_unless_there(tmp_path / name, tmp_path / "kafka-0")
    assert (tmp_path / "kafka-0" / "one.jar").read_text() == "first"
