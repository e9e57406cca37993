"""The target is checked before the first row: names, types, key, vector dimensions, grants."""

import secrets

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, Feed, car, rows_of
from vector_assets.engine.abilities import SearchQuery
from vector_assets.engine.core import Merge
from vector_assets.engine.errors import ConfigError, PlanError

pytestmark = pytest.mark.service


def prepared(cars, schema=SCHEMA, key=(), **options):
    return cars.sink(None, **options).prepare(schema, key)


def test_a_missing_table_is_named_with_its_neighbours(cars):
    with pytest.raises(PlanError, match=r"table 'car_inf' does not exist in schema public \(did you mean 'car_info'"):
        prepared(cars, tablename="car_inf")
    with pytest.raises(PlanError, match=r"schema 'publik' does not exist .*did you mean 'public'"):
        prepared(cars, targetschema="publik")


def test_a_missing_column_is_named_with_its_neighbours(cars):
    schema = SCHEMA.set(1, pa.field("colour", pa.string()))
    with pytest.raises(
        PlanError, match=r"column colour does not exist \(did you mean 'color'\?\); columns there: id, "
    ):
        prepared(cars, schema)


def test_a_view_is_not_a_table(cars):
    cars.execute("CREATE VIEW car_view AS SELECT * FROM car_info")
    with pytest.raises(PlanError, match="car_view is a view"):
        prepared(cars, tablename="car_view")


def test_names_match_in_any_case_unless_case_counts(make_cars):
    cars = make_cars('CREATE TABLE "Car_Info" ("ID" int PRIMARY KEY, "Color" text, feature text)')
    sink = cars.sink(tablename="car_info")
    target = sink.prepare(SCHEMA, ())
    assert target.key == ("id",)
    Feed(sink).apply(car(1))
    assert cars.rows('SELECT "ID", "Color" FROM "Car_Info"') == [(1, "red")]
    with pytest.raises(PlanError, match="table 'car_info' does not exist"):
        prepared(cars, tablename="car_info", casesensitive=1)
    with pytest.raises(PlanError, match="column id does not exist"):
        prepared(cars, tablename="Car_Info", casesensitive=1)
    exact = pa.schema([("ID", pa.int32()), ("Color", pa.string())])
    assert prepared(cars, exact, tablename="Car_Info", casesensitive=1).key == ("ID",)


def test_names_that_differ_in_case_only_must_be_written_exactly(make_cars):
    cars = make_cars('CREATE TABLE car_info (id int PRIMARY KEY, color text, "Color" text, feature text)')
    with pytest.raises(PlanError, match="column color may be color or Color: set 'casesensitive' = '1'"):
        prepared(cars)
    prepared(cars, casesensitive=1)
    cars.execute('CREATE TABLE "CARS" (a int); CREATE TABLE "Cars" (a int)')
    with pytest.raises(PlanError, match="table 'cars' may be CARS or Cars"):
        prepared(cars, tablename="cars")
    with pytest.raises(PlanError, match="columns id and ID are both id there"):
        prepared(cars, pa.schema([("id", pa.int32()), ("ID", pa.int32())]))


HOSTILE = ['id"; DROP TABLE car_info; --', "it's %s {} \\", "ordinality", "o", "Größe", "a b.c"]


@pytest.mark.parametrize("writemode", [0, 1, 2])
def test_hostile_names_are_only_names(make_cars, writemode):
    cars = make_cars("")
    quoted = ['"' + name.replace('"', '""') + '"' for name in HOSTILE]
    schema, table = 'sche"ma', 'ta"ble; --'
    cars.execute('CREATE SCHEMA "sche""ma"')
    columns = ", ".join(f"{name} int" for name in quoted)
    cars.execute(f'CREATE TABLE "sche""ma"."ta""ble; --" ({columns}, PRIMARY KEY ({quoted[0]}, {quoted[1]}))')
    arrow = pa.schema([(name, pa.int32()) for name in HOSTILE])
    sink = cars.sink(arrow, targetschema=schema, tablename=table, casesensitive=1, writemode=writemode)
    feed = Feed(sink)
    rows = pa.table([[1, 1, 2]] * len(HOSTILE), schema=arrow).append_column("_position", pa.array([0, 1, 2]))
    if writemode == 2:
        rows = rows.slice(1)
    for _ in range(2):
        sink.commit(feed.stage(rows))
    if writemode == 2:
        keys = rows.select([*HOSTILE[:2], "_position"]).slice(0, 1)
        sink.commit(feed.stage(rows.slice(0, 0), keys))
    found = cars.rows('SELECT * FROM "sche""ma"."ta""ble; --" ORDER BY 1')
    assert found == [(number,) * len(HOSTILE) for number in ((2,) if writemode == 2 else (1, 2))]


RESERVED = [("id", "bigint PRIMARY KEY"), ("order", "varchar(10)"), ("user", "float4[]")]


def test_reserved_words_are_names_like_any_other(make_cars):
    cars = make_cars("")
    cars.execute('CREATE SCHEMA "select"; CREATE EXTENSION vector SCHEMA "select"')
    cars.execute(f"""CREATE TABLE "select"."order" ({", ".join(f'"{name}" {kind}' for name, kind in RESERVED)})""")
    cars.execute('CREATE INDEX "table" ON "select"."order" USING hnsw (("user"::"select".vector(2))'
                 ' "select".vector_l2_ops)')  # fmt: skip
    arrow = pa.schema([("id", pa.int64()), ("order", pa.string()), ("user", pa.list_(pa.float32()))])
    sink = cars.sink(arrow, targetschema="select", tablename="order", conflictmode="upsert")
    feed = Feed(sink)
    rows = pa.table([[1, 2], ["red", "blue"], [[1, 1], [5, 5]]], schema=arrow)
    sink.commit(feed.stage(rows.append_column("_position", pa.array([0, 1]))))
    assert sink.search(SearchQuery((5.0, 4.0), 1)).rows.column("id").to_pylist() == [2]
    assert len(sink.sample(2)) == 2
    # the key of token rows is the name as it was before names were quoted for SQL
    assert cars.rows("SELECT DISTINCT target FROM vector_assets.batches") == [("select.order",)]
    cars.execute("""UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"select"."table"'::regclass""")
    (reindex,) = (finding.remedy for finding in sink.diagnose() if "is not valid" in finding.what)
    cars.execute(reindex)
    assert cars.value("""SELECT indisvalid FROM pg_index WHERE indexrelid = '"select"."table"'::regclass""")


def test_a_grant_that_is_advised_runs_as_it_is_written(make_cars):
    cars = make_cars('CREATE SCHEMA "select"; CREATE TABLE "select"."order" (id bigint PRIMARY KEY)')
    name = f"user {secrets.token_hex(4)}"
    cars.execute(f"""CREATE ROLE "{name}" LOGIN PASSWORD 'guestword'""")
    try:
        options = {"targetschema": "select", "tablename": "order", "username": name, "password": "guestword"}
        sink = cars.sink(None, **options)
        advice = [finding.remedy for finding in sink.diagnose() if f"user {name} may not" in finding.what]
        assert len(advice) == 2
        for remedy in advice:
            cars.execute(remedy.removesuffix(", unless the pipeline leaves them out"))
        found = [finding.what for finding in sink.diagnose()]
        assert f"user {name} may read and write select.order" in found
    finally:
        sink.close()
        cars.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


@pytest.mark.parametrize(
    ("arrow", "spelled", "words"),
    [
        (pa.string(), "int", "column color is integer, which takes INT; the pipeline sends STRING .* use a CAST"),
        (pa.float64(), "int", "the pipeline sends DOUBLE"),
        (pa.float64(), "numeric(10,2)", "which takes DECIMAL, INT"),
        (pa.int32(), "text", "which takes STRING"),
        (pa.int32(), "boolean", "which takes BOOLEAN"),
        (pa.timestamp("us"), "date", "which takes DATE"),
        (pa.list_(pa.string()), "float4[]", "takes STRING, ARRAY of numbers; the pipeline sends ARRAY"),
        (pa.list_(pa.int64()), "text[]", "takes ARRAY of STRING"),
        (pa.map_(pa.string(), pa.string()), "jsonb", "the pipeline sends MAP"),
        (pa.string(), "inet", "has the type inet, which cannot be written"),
        (pa.string(), "interval", "has the type interval, which cannot be written"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_types_that_do_not_go_together_are_refused(make_cars, arrow, spelled, words):
    cars = make_cars(f"CREATE TABLE car_info (id int PRIMARY KEY, color {spelled}, feature text)")
    with pytest.raises(PlanError, match=words):
        prepared(cars, SCHEMA.set(1, pa.field("color", arrow)))


@pytest.mark.parametrize(
    ("column", "fits"),
    [
        ("wheels int NOT NULL", False),
        ("wheels int", True),
        ("wheels int NOT NULL DEFAULT 4", True),
        ("wheels serial", True),
        ("wheels int GENERATED ALWAYS AS IDENTITY", True),
        ("wheels int GENERATED BY DEFAULT AS IDENTITY", True),
        ("wheels int GENERATED ALWAYS AS (id * 4) STORED", True),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("writemode", [0, 1])
def test_columns_left_out_must_take_care_of_themselves(make_cars, column, fits, writemode):
    cars = make_cars(f"CREATE TABLE car_info (id int PRIMARY KEY, gone int, feature text, color text, {column})")
    cars.execute("ALTER TABLE car_info DROP COLUMN gone")
    if not fits:
        with pytest.raises(PlanError, match=r"column wheels .integer. is NOT NULL, and the pipeline does not send it"):
            prepared(cars)
        return
    Feed(cars.sink(writemode=writemode)).apply(car(1), car(2))
    assert cars.rows("SELECT id, color, feature FROM car_info ORDER BY id") == [car(1), car(2)]


@pytest.mark.parametrize("how", ["ALWAYS AS IDENTITY", "ALWAYS AS (3) STORED"])
def test_columns_that_the_target_makes_cannot_be_sent(make_cars, how):
    cars = make_cars(f"CREATE TABLE car_info (id int GENERATED {how}, color text, feature text)")
    with pytest.raises(PlanError, match="column id is generated by the target: leave it out"):
        prepared(cars)


def test_a_domain_that_refuses_nulls_must_be_sent(make_cars):
    cars = make_cars(
        "CREATE DOMAIN wheels AS int NOT NULL DEFAULT 4;"
        "CREATE TABLE car_info (id int PRIMARY KEY, color text, feature text, wheels wheels)"
    )
    with pytest.raises(PlanError, match=r"column wheels .* the pipeline does not send it"):
        prepared(cars)


@pytest.mark.parametrize(
    ("keys", "declared", "expected"),
    [
        ("PRIMARY KEY (id)", (), ("id",)),
        ("PRIMARY KEY (id), UNIQUE (color)", (), ("id",)),
        ("PRIMARY KEY (id), UNIQUE (color)", ("color",), ("color",)),
        ("UNIQUE (color, id)", (), ("color", "id")),
        ("UNIQUE (color, id)", ("id", "color"), ("color", "id")),
        ("PRIMARY KEY (wheels)", (), ()),
        ("PRIMARY KEY (wheels), UNIQUE (id)", (), ("id",)),
        ("UNIQUE (id) DEFERRABLE", (), ()),
        ("EXCLUDE USING btree (id WITH =)", (), ()),
    ],
    ids=str,
)
def test_the_key_is_the_declared_one_or_the_targets_own(make_cars, keys, declared, expected):
    cars = make_cars(f"CREATE TABLE car_info (id int, color text, feature text, wheels serial, {keys})")
    sink = cars.sink(None)
    target = sink.prepare(SCHEMA, declared)
    assert target.key == expected
    assert sink.merge is (Merge.FIRST if expected else Merge.APPEND)
    assert any("has no key" in note for note in target.notes) is (not expected)


@pytest.mark.parametrize(
    ("keys", "declared", "words"),
    [
        ("PRIMARY KEY (id)", ("color",), r"PRIMARY KEY \(color\) is declared, the target has car_info_pkey \(id\)"),
        ("CHECK (id > 0)", ("id",), "the target has no unique index"),
        ("PRIMARY KEY (id)", ("wheel",), "key column wheel is not among the columns sent"),
        ("UNIQUE (id), UNIQUE (color)", (), "several unique indexes .* declare PRIMARY KEY"),
    ],
    ids=["another", "none", "not-sent", "several"],
)
def test_a_key_that_is_not_the_targets_is_refused(make_cars, keys, declared, words):
    cars = make_cars(f"CREATE TABLE car_info (id int, color text, feature text, {keys})")
    with pytest.raises(PlanError, match=words):
        prepared(cars, key=declared)


def test_partial_and_expression_indexes_are_no_keys(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int, color text, feature text)")
    cars.execute("CREATE UNIQUE INDEX ON car_info (id) WHERE id > 0; CREATE UNIQUE INDEX ON car_info (lower(color))")
    assert prepared(cars).key == ()
    cars.execute("CREATE UNIQUE INDEX ON car_info (id) INCLUDE (color)")
    assert prepared(cars).key == ("id",)


PGVECTOR = {
    "vector type": ("vector(3)", ""),
    "halfvec type": ("halfvec(3)", ""),
    "cast index": ("float4[]", "CREATE INDEX ON car_info USING hnsw ((feature::vector(3)) vector_l2_ops)"),
    "half cast index": ("vector", "CREATE INDEX ON car_info USING hnsw ((feature::halfvec(3)) halfvec_l2_ops)"),
}


@pytest.mark.parametrize(("spelled", "index"), PGVECTOR.values(), ids=list(PGVECTOR))
def test_the_dimension_is_the_types_or_the_indexs(make_cars, spelled, index):
    cars = make_cars(f"CREATE TABLE car_info (id int PRIMARY KEY, color text, feature {spelled})", vector=True)
    if index:
        cars.execute(index)
    sink = cars.sink()
    assert sink.prepare(SCHEMA, ()).notes == ()
    staged = Feed(sink).stage(rows_of(car(1), car(2, feature="[1,2]")))
    assert [row["error"] for row in staged.rejected.to_pylist()] == ["column feature: 2 dimensions, wanted 3"]
    with pytest.raises(PlanError, match=r"dimension of column feature is not clear: 4 \(option .*, 3 \((type|index) "):
        prepared(cars, vector__dimensions="feature:4")


def test_indexes_of_two_dimensions_are_refused(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, color text, feature float4[])", vector=True)
    for dimension in (3, 4):
        cars.execute(f"CREATE INDEX ON car_info USING hnsw ((feature::vector({dimension})) vector_l2_ops)")
    with pytest.raises(PlanError, match=r"3 .index car_info_feature_idx., 4 .index car_info_feature_idx1."):
        prepared(cars)


def test_the_dimension_of_a_fastann_index_is_read_from_its_options(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, color text, feature float4[])")
    # FastANN exists on AnalyticDB only; the catalog rows are what it leaves there
    cars.execute(
        "CREATE ACCESS METHOD ann TYPE INDEX HANDLER bthandler;"
        "CREATE OPERATOR CLASS any_ann DEFAULT FOR TYPE anyarray USING ann AS OPERATOR 1 <, OPERATOR 3 =,"
        " OPERATOR 5 >, FUNCTION 1 btarraycmp(anyarray, anyarray);"
        "CREATE INDEX ON car_info USING ann (feature);"
        "SET allow_system_table_mods = on;"
        "UPDATE pg_class SET reloptions = '{dim=3,pq_enable=0}' WHERE relname = 'car_info_feature_idx'"
    )
    staged = Feed(cars.sink()).stage(rows_of(car(1), car(2, feature="{1,2}")))
    assert [row["error"] for row in staged.rejected.to_pylist()] == ["column feature: 2 dimensions, wanted 3"]


def test_a_dimension_that_nobody_knows_is_declared_or_noted(cars):
    notes = prepared(cars).notes
    assert notes[0] == "dimension of feature: not checked"
    assert "neither fastann nor pgvector" in notes[1]
    assert "dimension of feature: not checked" not in prepared(cars, vector__dimensions="feature:3").notes
    with pytest.raises(PlanError, match=r"names color, which is no vector column .*vector columns: feature"):
        prepared(cars, vector__dimensions="color:3")


def test_a_wrong_password_or_database_is_a_configuration_error_without_the_password(cars):
    for wrong in ({"password": "geheim"}, {"username": "nobody_here", "password": "geheim"},
                  {"url": f"jdbc:postgresql://{cars.host}:{cars.port}/nowhere", "password": "geheim"}):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            prepared(cars, **wrong)
        assert "geheim" not in str(caught.value)
        assert "adbpg" in str(caught.value) or str(cars.port) in str(caught.value)


@pytest.fixture
def guest(cars):
    name = f"guest_{cars.database}"
    cars.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'guestword'; GRANT CREATE ON DATABASE {cars.database} TO {name}")
    yield name
    cars.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_a_missing_grant_is_named(cars, guest):
    login = {"username": guest, "password": "guestword"}
    with pytest.raises(PlanError, match="lacks INSERT on id, color, feature"):
        prepared(cars, **login)
    cars.execute(f"GRANT INSERT ON car_info TO {guest}")
    with pytest.raises(PlanError, match="lacks SELECT on id"):
        prepared(cars, **login)
    cars.execute(f"GRANT SELECT (id) ON car_info TO {guest}")
    Feed(cars.sink(**login)).apply(car(1), car(1))
    for right in ("SELECT", "UPDATE"):
        with pytest.raises(PlanError, match=f"lacks {right} on color, feature"):
            prepared(cars, conflictmode="update", **login)
        cars.execute(f"GRANT {right} (color, feature) ON car_info TO {guest}")
    for write in (0, 1, 2):
        feed = Feed(cars.sink(conflictmode="update", writemode=write, **login), pipeline=f"way{write}")
        feed.apply(car(1, f"way {write}"))
        assert cars.value("SELECT color FROM car_info") == f"way {write}"
    with pytest.raises(PlanError, match="permission denied for table car_info"):
        feed.apply(deletes=(1,))
    cars.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(PlanError, match="lacks USAGE on schema public"):
        prepared(cars, **login)


def test_row_level_security_forbids_copy_only(cars, guest):
    cars.execute(f"GRANT INSERT, SELECT ON car_info TO {guest}")
    cars.execute("ALTER TABLE car_info ENABLE ROW LEVEL SECURITY; CREATE POLICY every ON car_info USING (true)")
    login = {"username": guest, "password": "guestword"}
    with pytest.raises(PlanError, match="row-level security applies"):
        prepared(cars, **login)
    Feed(cars.sink(writemode=0, **login)).apply(car(1))
    assert len(cars.rows()) == 1
