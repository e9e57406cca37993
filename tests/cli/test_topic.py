"""Topics are made, filled and listed on the broker that is meant."""

import io

import pytest
import typer.testing

from vector_assets.cli import app
from vector_assets.clients.kafka_topics import lines
from vector_assets.engine.errors import ConfigError

NAMES = iter(range(1000))


@pytest.fixture
def name(kafka):
    """A name that no topic has; the topic is dropped after the test."""
    topic = f"made_{next(NAMES)}"
    yield topic
    if topic in kafka.admin.list_topics(timeout=10).topics:
        kafka.delete_topic(topic)


@pytest.fixture
def at(kafka):
    return ("--bootstrap", kafka.bootstrap_servers)


def test_a_topic_is_made_with_its_partitions_and_settings_and_is_there_when_the_command_ends(cli, kafka, name, at):
    done = cli("topic", "create", name, "--partitions", "3", "--config", "retention.ms=-1", *at)
    assert done.code == 0, done.err
    assert kafka.end_offsets(name) == {0: 0, 1: 0, 2: 0}
    listed = cli("topic", "list", "--json", *at).json["topics"]
    assert {"name": name, "partitions": 3} in listed
    assert not any(topic["name"].startswith("__") for topic in listed)


def test_a_topic_that_is_there_is_an_error_unless_it_may_be(cli, name, at):
    assert cli("topic", "create", name, *at, "--json").json["created"] is True
    again = cli("topic", "create", name, "--partitions", "2", *at)
    assert again.code == 1
    assert "is there already" in again.err
    assert cli("topic", "create", name, "--if-not-exists", *at, "--json").json["created"] is False


REFUSED = {
    "a setting nobody knows": (["--config", "retention.mss=1"], "retention.mss"),
    "more copies than brokers": (["--replication", "3"], "eplication"),
}


@pytest.mark.parametrize(("options", "wanted"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_broker_refuses_is_one_line(cli, name, at, options, wanted):
    done = cli("topic", "create", name, *options, *at)
    assert done.code == 1
    assert done.err.startswith("error: kafka ")
    assert wanted in done.err


def test_without_a_broker_the_local_one_is_meant_and_a_pipeline_names_its_own(job, cli, kafka, name, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    assert cli("topic", "create", name).code == 0
    assert cli("topic", "create", name, "--pipeline", "cars").code == 1
    assert cli("topic", "create", name, "--pipeline", "cars", "--bootstrap", "x:1").code == 2


def test_lines_become_records_byte_for_byte_in_order(cli, kafka, name, at, tmp_path):
    file = tmp_path / "cars.csv"
    file.write_bytes(b"1\tred\n\n2\tgr\xfcn\r\n3\t\xe2\x82\xac")
    cli("topic", "create", name, *at)
    done = cli("topic", "produce", name, str(file), *at)
    assert done.code == 0, done.err
    assert "4 records" in done.out
    assert [m.value() for m in kafka.read(name)] == [b"1\tred", b"", b"2\tgr\xfcn", b"3\t\xe2\x82\xac"]
    assert all(m.key() is None for m in kafka.read(name))


def test_keys_stand_before_the_separator_and_the_partition_may_be_given(cli, kafka, name, at, tmp_path):
    file = tmp_path / "cars.txt"
    file.write_text("a::1::x\nb::2\n")
    cli("topic", "create", name, "--partitions", "2", *at)
    done = cli("topic", "produce", name, str(file), "--key-separator", "::", "--partition", "1", "--json", *at).json
    assert done == {"topic": name, "records": 2, "partitions": {"1": {"first": 0, "last": 1}}}
    assert [(m.key(), m.value(), m.partition()) for m in kafka.read(name)] == [(b"a", b"1::x", 1), (b"b", b"2", 1)]


def test_standard_input_is_a_file_too(cli, home, kafka, name, at):
    cli("topic", "create", name, *at)
    result = typer.testing.CliRunner().invoke(app, ["topic", "produce", name, "-", *at], input=b"1\n2\n")
    assert result.exit_code == 0, result.stderr
    assert [m.value() for m in kafka.read(name)] == [b"1", b"2"]


def test_a_missing_topic_is_not_made_by_producing_to_it(cli, kafka, name, at, tmp_path):
    file = tmp_path / "cars.csv"
    file.write_text("1\n")
    done = cli("topic", "produce", name, str(file), *at)
    assert done.code == 1
    assert "does not exist" in done.err
    assert name not in kafka.admin.list_topics(timeout=10).topics


def test_a_bad_line_is_named_and_those_before_it_were_sent(cli, kafka, name, at, tmp_path):
    file = tmp_path / "cars.txt"
    cli("topic", "create", name, *at)
    file.write_text("a:1\nno separator\n")
    done = cli("topic", "produce", name, str(file), "--key-separator", ":", *at)
    assert done.code == 1
    assert f"{file}:2: no key separator" in done.err
    assert [m.value() for m in kafka.read(name)] == [b"1"]
    file.write_bytes(b"small\n" + b"x" * 2_000_000)
    done = cli("topic", "produce", name, str(file), *at)
    assert done.code == 1
    assert f"{file}:2 was not taken, 1 records were" in done.err
    assert [m.value() for m in kafka.read(name)] == [b"1", b"small"]


def test_a_broker_that_is_not_there_is_said_in_time(cli, tmp_path):
    done = cli("topic", "create", "x", "--bootstrap", "127.0.0.1:9")
    assert done.code == 1
    assert "127.0.0.1:9" in done.err


def test_three_kinds_of_line_ends_end_a_line():
    stream = io.BytesIO(b"a\rb\r\nc\n")
    assert [line.value for line in lines(stream, None, "x")] == [b"a", b"b", b"c"]
    with pytest.raises(ConfigError, match=r"x:1: no key separator"):
        next(lines(io.BytesIO(b"a"), b"\t", "x"))
