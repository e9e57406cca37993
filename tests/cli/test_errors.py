"""What goes wrong ends in one line, with the exit code that says who is to blame."""

import pytest

SCRIPT = """\
CREATE TABLE records (id INT, name STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '127.0.0.1:9', 'topic' = 'records', 'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset');
CREATE TABLE searchable (id INT, name STRING) WITH (
  'connector' = 'adbpg', 'url' = 'jdbc:postgresql://127.0.0.1:9/db', 'tablename' = 'cars', 'username' = 'u',
  'password' = 'sesame');
INSERT INTO searchable SELECT id, name FROM records;
"""


@pytest.fixture
def script(home):
    file = home / "pipelines" / "cars.sql"
    file.write_text(SCRIPT)
    return file


REFUSED = {
    "unknown pipeline": (["run", "carz"], "unknown pipeline 'carz' (did you mean 'cars'?)"),
    "unknown pipeline in the ledger": (["dead-letters", "list", "cars"], "unknown pipeline 'cars'; the ledger knows"),
    "no such file": (["plan", "pipelines/none.sql"], "pipelines/none.sql:1:1: cannot be read"),
    "not a declaration": (["plan", "pipelines/none.txt"], "not a declaration"),
    "target out of reach": (["plan", "cars"], "127.0.0.1:9"),
    "source out of reach": (["reset", "cars", "--to", "earliest"], "127.0.0.1:9"),
    "no such dead letter": (["dead-letters", "show", "17"], "there is no dead letter 17"),
    "unknown service": (["services", "up", "kafak"], "unknown service kafak"),
    "unknown benchmark": (["bench", "kafka-adbg"], "unknown benchmark 'kafka-adbg' (did you mean 'kafka-adbpg'?)"),
    "malformed partition": (["replay", "cars", "--partition", "yesterday"], "partition 'yesterday': want the form"),
}


@pytest.mark.parametrize(("arguments", "wanted"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_is_one_line_and_exit_code_1(cli, script, arguments, wanted):
    done = cli(*arguments)
    assert done.code == 1
    assert done.out == ""
    *before, last = done.err.splitlines()
    assert last.startswith("error: ")
    assert wanted in last
    assert not any(line.startswith(("error", "Traceback")) for line in before)
    assert "sesame" not in done.err


MISUSED = {
    "unknown command": ["rum"],
    "no pipeline": ["run"],
    "unknown option": ["run", "cars", "--folow"],
    "unknown log level": ["--log-level", "loud", "status"],
    "reset to nowhere": ["reset", "cars"],
    "reset to two places": ["reset", "cars", "--to", "latest", "--adopt-target"],
    "replay backwards": ["replay", "cars", "--from-batch", "5", "--to-batch", "4"],
    "no letters chosen": ["dead-letters", "replay", "cars"],
    "letters chosen twice": ["dead-letters", "replay", "cars", "--all", "--id", "1"],
    "nothing to purge": ["dead-letters", "purge", "cars"],
    "unknown state": ["dead-letters", "list", "--state", "lost"],
}


@pytest.mark.parametrize("arguments", MISUSED.values(), ids=MISUSED.keys())
def test_wrong_usage_is_exit_code_2(cli, script, arguments):
    done = cli(*arguments)
    assert done.code == 2
    assert "Usage" in done.err
    assert "Traceback" not in done.err


BROKEN = {
    "a wrong option": ("'topic'", "'topics'", 2, "'topic'", "connector kafka: unknown option 'topics'"),
    "a wrong column": ("SELECT id, name", "SELECT id, nam", 7, "name", ""),
    "a wrong word": ("INSERT INTO", "INSERT INTOO", 7, "INTO", ""),
}
COMMANDS = [["plan", "--offline"], ["run", "cars"], ["plan", "pipelines/cars.sql"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("good", "bad", "line", "at", "wanted"), BROKEN.values(), ids=BROKEN.keys())
def test_a_wrong_script_is_named_with_line_and_column(cli, script, command, good, bad, line, at, wanted):
    script.write_text(SCRIPT.replace(good, bad))
    column = SCRIPT.splitlines()[line - 1].index(at) + 1
    done = cli(*command)
    assert done.code == 1
    assert done.err.startswith(f"error: pipelines/cars.sql:{line}:{column}: {wanted}")


def test_two_scripts_with_one_target_are_refused_with_both_names(cli, script):
    script.with_name("lorries.sql").write_text(SCRIPT)
    done = cli("run", "cars")
    assert done.code == 1
    assert "pipelines/lorries.sql" in done.err
    assert "pipelines/cars.sql" in done.err


def test_debug_shows_where_an_error_came_from(cli, script):
    done = cli("--debug", "run", "carz")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "unknown pipeline 'carz'" in done.err
    assert "Traceback" not in cli("run", "carz").err


def test_status_leaves_out_a_wrong_script_and_names_it(cli, script):
    script.with_name("broken.sql").write_text("SELECT 1")
    done = cli("status", "--json")
    assert [each["name"] for each in done.json["pipelines"]] == ["cars"]
    assert "broken.sql:1:1" in done.json["errors"][0]
    assert done.err.startswith("warning: left out: pipelines/broken.sql:1:1")


def test_status_waits_two_seconds_at_most_for_a_source(cli, script):
    (found,) = cli("status", "--json").json["pipelines"]
    assert found["lag"] is None
    assert found["frontier"] is None
    assert "127.0.0.1:9" in found["lag_error"]
    assert "unknown" in cli("status").out
