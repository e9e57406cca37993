"""`target create` runs a psql script once, however often it is run."""

import pytest

from tests.declare.seeds import ddl_step, seed
from vector_assets.sinks import SINKS
from vector_assets.sinks.adbpg import AdbPgSink

INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'vector_test' ORDER BY indexdef"


@pytest.fixture
def local(postgres, monkeypatch):
    """The test server in the place of the local one; the seed's database is dropped after the test."""
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_POSTGRES_ADDRESS", f"{postgres.host}:{postgres.port}")
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_POSTGRES_USER", postgres.user)
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_POSTGRES_PASSWORD", postgres.password)
    yield postgres
    with postgres.connect("postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS adbpg_test WITH (FORCE)")


@pytest.fixture
def script(home):
    def write(text):
        file = home / "target.sql"
        file.write_text(text)
        return str(file)

    return write


def query(server, database, statement):
    with server.connect(database) as connection:
        return [row[0] for row in connection.execute(statement)]


def test_the_seed_s_step_1_makes_its_table_and_indexes_and_a_second_run_nothing(cli, script, local):
    file = script(ddl_step(seed(0)))
    planned = cli("target", "create", file, "--dry-run")
    assert planned.code == 0, planned.err
    assert query(local, "postgres", "SELECT 1 FROM pg_database WHERE datname = 'adbpg_test'") == []
    steps = cli("target", "create", file, "--json").json["steps"]
    assert {step["action"] for step in steps} == {"run"}
    notes = " ".join(note for step in steps for note in step["notes"])
    assert "DISTRIBUTED BY(id) is dropped" in notes
    assert "ann(feature) becomes hnsw ((feature::vector(10)) vector_l2_ops)" in notes
    indexes = query(local, "adbpg_test", INDEXES)
    assert len(indexes) == 5
    assert sum("hnsw (((feature)::vector(10)) vector_l2_ops)" in index for index in indexes) == 1
    storage = "SELECT attstorage::text FROM pg_attribute WHERE attrelid = 'vector_test.car_info'::regclass"
    assert query(local, "adbpg_test", f"{storage} AND attname = 'feature'") == ["p"]

    again = cli("target", "create", file, "--json").json["steps"]
    skipped = [step["sql"].split("(")[0] for step in again if step["action"] == "skip"]
    assert len(skipped) == 5  # the database and four indexes
    assert query(local, "adbpg_test", INDEXES) == indexes
    shown = cli("target", "create", file)
    assert "is the same" in shown.out
    assert "already exists" in shown.out


def test_a_plan_shows_each_step_with_its_line_and_does_nothing(cli, script, local):
    shown = cli(
        "target", "create", script("CREATE SCHEMA a;\n\nCREATE TABLE a.t (x int) DISTRIBUTED RANDOMLY;"), "--dry-run"
    )
    assert "line 3" in shown.out
    assert "DISTRIBUTED RANDOMLY is dropped" in shown.out
    assert query(local, "postgres", "SELECT 1 FROM pg_namespace WHERE nspname = 'a'") == []


@pytest.fixture
def at(postgres, monkeypatch):
    """A database without pgvector, and the options that name it."""
    database = postgres.create_database(vector=False)
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_TARGET_PASSWORD", postgres.password)
    return database, ("--url", postgres.jdbc_url(database), "--user", postgres.user)


TABLE = "CREATE TABLE IF NOT EXISTS public.t (id int, c text, v float4[]);\n"
EQUAL = {
    "a column": ("(c)", "(c)", True),
    "another order": ("(c)", "(c DESC)", False),
    "an expression written differently": ("(lower(c))", "( LOWER (c) )", True),
    "another expression": ("(lower(c))", "(upper(c))", False),
    "an option": ("(id) WITH (fillfactor = 70)", "(id) WITH (fillfactor='70')", True),
    "another option": ("(id) WITH (fillfactor = 70)", "(id)", False),
    "another method": ("USING hash (id)", "(id)", False),
    "a predicate": ("(id) WHERE id > 5", "(id) WHERE (id>5)", True),
    "columns included": ("(id) INCLUDE (c)", "(id)", False),
    "the default method": ("(id)", "USING btree (id)", True),
    "ann with its defaults": ("USING ann(v) WITH (dim='3')", "USING ann(v) WITH (DIM=3, DISTANCEMEASURE=L2)", True),
    "ann with another measure": ("USING ann(v) WITH (dim='3')", "USING ann(v) WITH (dim=3, distancemeasure=ip)", False),
    "ann and hnsw": ("USING ann(v) WITH (dim='3')", "USING hnsw ((v::vector(3)) vector_l2_ops)", True),
}


@pytest.mark.parametrize(("one", "other", "is_equal"), EQUAL.values(), ids=EQUAL.keys())
def test_an_index_without_a_name_is_made_unless_an_equal_one_is_there(cli, script, postgres, at, one, other, is_equal):
    database, where = at
    text = f"{TABLE}CREATE INDEX ON public.t {one};\nCREATE INDEX ON public.t {other};"
    done = cli("target", "create", script(text), *where, "--json").json["steps"]
    assert (done[-1]["action"] == "skip") is is_equal
    count = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND tablename = 't'"
    before = query(postgres, database, count)
    assert before == [1 if is_equal else 2]
    assert cli("target", "create", script(text), *where).code == 0
    assert query(postgres, database, count) == before


def test_an_index_with_a_name_is_left_alone_only_if_it_is_the_same(cli, script, at):
    _, where = at
    text = f'{TABLE}CREATE INDEX "By C" ON public.t (c);\nCREATE INDEX by_c ON public.t (c);'
    assert cli("target", "create", script(text), *where).code == 0
    again = cli("target", "create", script(text), *where, "--json").json["steps"]
    assert [step["action"] for step in again] == ["run", "skip", "skip"]
    changed = cli("target", "create", script(text.replace("by_c ON public.t (c)", "by_c ON public.t (id)")), *where)
    assert changed.code == 1
    assert "target.sql:3:1: 42P07" in changed.err
    assert "the 2 steps before it are done" in changed.err


def test_an_extension_is_made_once_whoever_asks_for_it(cli, script, postgres, at):
    database, where = at
    text = f"CREATE EXTENSION IF NOT EXISTS fastann;\n{TABLE}CREATE INDEX ON public.t USING ann(v) WITH (dim='3');"
    steps = cli("target", "create", script(text), *where, "--json").json["steps"]
    assert [step["sql"].startswith("CREATE EXTENSION") for step in steps] == [True, False, False]
    assert "vector" in steps[0]["sql"]
    assert query(postgres, database, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == ["vector"]
    own = cli("target", "create", script("CREATE EXTENSION vector;"), *where, "--json").json["steps"]
    assert [step["action"] for step in own] == ["skip"]


def test_an_index_that_is_not_valid_is_made_anew(cli, script, postgres, at):
    database, where = at
    text = f"{TABLE}CREATE INDEX ON public.t (c);"
    cli("target", "create", script(text), *where)
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indrelid = 'public.t'::regclass")
    assert cli("target", "create", script(text), *where, "--json").json["steps"][-1]["action"] == "run"
    assert query(postgres, database, "SELECT count(*) FROM pg_index WHERE indrelid = 'public.t'::regclass") == [2]


def test_a_user_who_may_make_no_temporary_table_is_told_instead_of_making_an_index_twice(
    cli, script, postgres, at, monkeypatch
):
    database, where = at
    text = f"{TABLE}CREATE INDEX ON public.t (c);"
    cli("target", "create", script(text), *where)
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS maker; CREATE ROLE maker LOGIN PASSWORD 'sesame'")
        connection.execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC; ALTER TABLE public.t OWNER TO maker")
        connection.execute("GRANT CREATE ON SCHEMA public TO maker")
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_TARGET_PASSWORD", "sesame")
    done = cli("target", "create", script(text), *where[:2], "--user", "maker")
    assert done.code == 1
    assert "target.sql:2:1: 42501" in done.err
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("REASSIGN OWNED BY maker TO CURRENT_USER; DROP OWNED BY maker; DROP ROLE maker")


def test_without_fastann_and_pgvector_nothing_is_made_and_one_error_says_what_to_install(cli, script, postgres, at):
    database, where = at
    with postgres.connect("postgres", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET extension_control_path = '/none'")
    text = f"{TABLE}CREATE INDEX ON public.t USING ann(v) WITH (dim='3');"
    done = cli("target", "create", script(text), *where)
    assert done.code == 1
    assert "target.sql:2:1: this needs vectors, and the server has neither FastANN nor pgvector" in done.err
    assert "install the pgvector package" in done.err
    assert len(done.err.splitlines()) == 1 or "error" in done.err.splitlines()[-1]
    assert query(postgres, database, "SELECT to_regclass('public.t')") == [None]


def test_a_user_who_may_not_do_it_is_told_what_is_missing_before_anything_is_made(
    cli, script, postgres, at, monkeypatch
):
    database, _ = at
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS maker")
        connection.execute("CREATE ROLE maker LOGIN PASSWORD 'sesame'")
        connection.execute("GRANT CREATE ON SCHEMA public TO maker")
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_MAKER", "sesame")
    where = ("--url", postgres.jdbc_url(database), "--user", "maker", "--password-secret", "maker")
    done = cli("target", "create", script(f"{TABLE}CREATE INDEX ON t USING ann(v) WITH (dim='3');"), *where)
    assert "CREATE EXTENSION vector" in done.err
    assert query(postgres, database, "SELECT to_regclass('public.t')") == [None]
    done = cli("target", "create", script("CREATE DATABASE its_own;"), *where)
    assert "may not make databases" in done.err
    assert "sesame" not in done.err
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM maker; DROP ROLE maker")


REFUSED = {
    "an unknown option": (
        "CREATE INDEX ON t USING ann(v) WITH (dimm='3');",
        "unknown option 'dimm' (did you mean 'dim'?)",
    ),
    "no dimension": ("CREATE INDEX ON t USING ann(v);", "needs the option dim"),
    "an unknown measure": ("CREATE INDEX ON t USING ann(v) WITH (dim=3, distancemeasure=l3);", "known: l2, ip, cosine"),
    "a number out of range": ("CREATE INDEX ON t USING ann(v) WITH (dim='0');", "from 1 to 8192"),
    "too many dimensions": ("CREATE INDEX ON t USING ann(v) WITH (dim='4001');", "at most 4000"),
    "another psql command": ("\\dx fastann\n", r"psql's \dx fastann is not known here"),
    "a database nobody makes": ("\\c nowhere\n", "there is no database nowhere"),
    "nothing": ("-- nothing\n", "holds no statement"),
    "what the server refuses": ("CREATE TABEL t (x int);", "42601"),
}


@pytest.mark.parametrize(("text", "wanted"), REFUSED.values(), ids=REFUSED.keys())
def test_errors_name_file_and_line(cli, script, at, text, wanted):
    done = cli("target", "create", script(text), *at[1])
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("error: target.sql:1:1: ")
    assert wanted in last


def test_a_pipeline_names_the_server(job, cli, script):
    file = script("CREATE TABLE other (id int, v float4[]) DISTRIBUTED BY (id);")
    assert cli("target", "create", file, "--pipeline", "cars").code == 0
    assert query(job.postgres, job.database, "SELECT to_regclass('other') IS NOT NULL") == [True]


class OwnTarget(AdbPgSink):
    """A sink that makes its target."""

    def create_target(self, schema, declared_key):
        return (f"made {self.options.table} with {', '.join(schema.names)}",)


def test_a_pipeline_s_script_lets_its_sinks_make_their_targets(job, cli, monkeypatch):
    file = str(job.folder / "pipelines" / "cars.sql")
    refused = cli("target", "create", file)
    assert refused.code == 1
    assert "a sink adbpg does not make its target: give a psql script" in refused.err
    monkeypatch.setitem(SINKS, "adbpg", f"{__name__}:OwnTarget")
    (done,) = cli("target", "create", file, "--json").json["targets"]
    assert done["made"] == ["made car_info with id, market_time, color, price, feature"]
    assert cli("target", "create", file, "--url", "x").code == 2
