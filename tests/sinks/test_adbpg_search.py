"""A search finds the nearest rows by the index that is there, and cannot do anything else."""

import numpy as np
import pytest

from vector_assets.engine.abilities import DISTANCE, Sampling, Searchable, SearchQuery
from vector_assets.engine.errors import ConfigError, PlanError

DDL = "CREATE TABLE car_info (id bigint PRIMARY KEY, color varchar(10), price int, feature float4[])"
HNSW = "CREATE INDEX by_feature ON car_info USING hnsw ((feature::vector(4)) vector_{}_ops)"
BY_L2 = HNSW.format("l2")
ROWS = 2000
DIMENSION = 4


def vectors():
    return np.random.default_rng(7).normal(size=(ROWS, DIMENSION)).astype(np.float32)


def fill(cars, cast=""):
    values = [(n, ("red", "blue")[n % 2], n, row.tolist()) for n, row in enumerate(vectors())]
    with cars.admin.cursor() as cursor:
        cursor.executemany(f"INSERT INTO car_info VALUES (%s, %s, %s, %s{cast})", values)


@pytest.fixture
def filled(make_cars):
    """A table of 2,000 cars with vectors, and a sink over it."""

    def make(ddl=DDL, index=BY_L2, cast="", **options):
        cars = make_cars(ddl, vector=True)
        fill(cars, cast)
        if index:
            cars.execute(index)
        cars.execute("ANALYZE car_info")
        return cars, cars.sink(None, **options)

    return make


ASKED = (0.1, -0.2, 0.3, 0.4)
DISTANCES = {
    "l2": lambda v, q: np.linalg.norm(v - q, axis=1),
    "ip": lambda v, q: -(v @ q),
    "cosine": lambda v, q: 1 - (v @ q) / (np.linalg.norm(v, axis=1) * np.linalg.norm(q)),
}


def expected(metric, k=5, keep=lambda n: True):
    distances = DISTANCES[metric](vectors().astype(float), np.array(ASKED))
    order = [n for n in np.argsort(distances).tolist() if keep(n)][:k]
    return order, [float(distances[n]) for n in order]


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_the_index_is_used_by_its_own_metric_and_finds_the_nearest(filled, metric):
    _, sink = filled(index=HNSW.format(metric))
    assert isinstance(sink, Searchable)
    result = sink.search(SearchQuery(ASKED, 5), explain=True)
    ids, distances = expected(metric)
    assert result.rows.column("id").to_pylist() == ids
    assert result.rows.column(DISTANCE).to_pylist() == pytest.approx(distances, rel=1e-4)
    assert "hnsw index by_feature" in result.how
    assert "Index Scan using by_feature" in result.plan
    assert "actual time" in result.plan
    assert sink.search(SearchQuery(ASKED, 5)).plan is None


def test_an_exact_search_compares_every_row(filled):
    _, sink = filled()
    result = sink.search(SearchQuery(ASKED, 50, exact=True), explain=True)
    assert result.rows.column("id").to_pylist() == expected("l2", 50)[0]
    assert "by_feature" not in result.plan
    assert "exact" in result.how


def test_a_metric_without_an_index_is_answered_by_comparing_and_says_so(filled):
    _, sink = filled()
    result = sink.search(SearchQuery(ASKED, 5, metric="cosine"))
    assert result.rows.column("id").to_pylist() == expected("cosine")[0]
    assert "no index for it" in result.how


COLUMNS = {
    "vector": ("vector(4)", "USING hnsw (feature vector_l2_ops)", "::real[]::vector"),
    "halfvec": ("halfvec(4)", "USING hnsw (feature halfvec_l2_ops)", "::real[]::halfvec"),
    "ivfflat": ("vector(4)", "USING ivfflat (feature vector_l2_ops) WITH (lists = 1)", "::real[]::vector"),
    "array over halfvec": ("float4[]", "USING hnsw ((feature::halfvec(4)) halfvec_l2_ops)", ""),
    "float8[]": ("float8[]", "USING hnsw ((feature::vector(4)) vector_l2_ops)", ""),
}


@pytest.mark.parametrize(("type_", "index", "cast"), COLUMNS.values(), ids=COLUMNS.keys())
def test_every_kind_of_vector_column_is_searched_by_its_index(filled, type_, index, cast):
    _, sink = filled(DDL.replace("float4[]", type_), f"CREATE INDEX i ON car_info {index}", cast)
    result = sink.search(SearchQuery(ASKED, 3))
    assert "index i" in result.how, result.how
    assert result.rows.column("id").to_pylist()[0] == expected("l2")[0][0]
    assert len(result.rows.column("feature").to_pylist()[0]) == DIMENSION


def test_a_condition_that_few_rows_meet_still_gives_k_rows(filled):
    _, sink = filled()
    result = sink.search(SearchQuery(ASKED, 10, where="price % 50 = 0 AND color LIKE 'r%'"))
    assert result.rows.column("id").to_pylist() == expected("l2", 10, lambda n: n % 50 == 0)[0]


def test_without_an_index_arrays_that_have_no_distance_are_left_out(filled):
    cars, sink = filled(index="")
    for number, vector in enumerate(("{1,2}", None, "{}", "{1,NULL,2,3}")):
        cars.execute("INSERT INTO car_info VALUES (%s, 'red', 1, %s)", [9001 + number, vector])
    result = sink.search(SearchQuery(ASKED, ROWS + 10, where="id > 1990"))
    assert sorted(result.rows.column("id").to_pylist()) == list(range(1991, ROWS))


CONDITIONS = {
    "two statements": "true; DROP TABLE car_info",
    "a comment": "true -- ",
    "closing our bracket": "true) OR (true",
    "a select": "id IN (SELECT id FROM car_info)",
    "a parameter": "id = $1",
    "a function with effects": "pg_sleep(1) IS NULL",
    "an unknown column": "prize < 10",
    "no condition": "price + 1",
    "a number that is none": "price < 'x'",
    "nothing": "",
}


@pytest.mark.parametrize("where", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_a_condition_is_one_boolean_expression(filled, where):
    cars, sink = filled(index="")
    with pytest.raises(ConfigError, match="condition"):
        sink.search(SearchQuery(ASKED, 5, where=where))
    assert cars.value("SELECT count(*) FROM car_info") == ROWS


def test_a_search_cannot_write(filled):
    cars, sink = filled(index="")
    cars.execute("CREATE FUNCTION f(int) RETURNS boolean LANGUAGE sql AS 'DELETE FROM car_info RETURNING true'")
    with pytest.raises(ConfigError, match=r"25006 .*read-only"):
        sink.search(SearchQuery(ASKED, 5, where="f(price)"))
    assert cars.value("SELECT count(*) FROM car_info") == ROWS


MISTAKES = {
    "another dimension": (SearchQuery((1.0, 2.0)), "column feature has 4 dimensions, the vector has 2"),
    "no such column": (SearchQuery(ASKED, column="featur"), "did you mean 'feature'"),
    "no such metric": (SearchQuery(ASKED, metric="euclid"), "known: l2, ip, cosine, l1"),
    "no rows asked": (SearchQuery(ASKED, 0), "want 1 to"),
}


@pytest.mark.parametrize(("query", "wanted"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(filled, query, wanted):
    _, sink = filled()
    with pytest.raises(ConfigError, match=wanted):
        sink.search(query)


def test_a_table_without_vectors_or_without_an_extension_cannot_be_searched(make_cars):
    plain = make_cars("CREATE TABLE car_info (id int)", vector=True).sink(None)
    with pytest.raises(PlanError, match="no vector column"):
        plain.search(SearchQuery(ASKED))
    without = make_cars(DDL).sink(None)
    with pytest.raises(PlanError, match="CREATE EXTENSION vector"):
        without.search(SearchQuery(ASKED))


def test_of_several_vector_columns_the_one_with_an_index_is_meant(filled):
    cars, sink = filled(DDL.replace("feature float4[]", "feature float4[], other float8[]"))
    assert " of feature " in sink.search(SearchQuery(ASKED)).how
    cars.execute("CREATE INDEX ON car_info USING hnsw ((other::vector(4)) vector_l2_ops)")
    with pytest.raises(ConfigError, match="which vector column"):
        sink.search(SearchQuery(ASKED))
    assert " of other " in sink.search(SearchQuery(ASKED, column="other")).how


def test_an_index_over_a_function_of_the_column_is_not_taken_for_one_over_the_column(filled):
    _, sink = filled(
        index="CREATE INDEX i ON car_info USING hnsw ((l2_normalize(feature::vector(4))::vector(4)) vector_l2_ops)"
    )
    result = sink.search(SearchQuery(ASKED, 5))
    assert result.rows.column("id").to_pylist() == expected("l2")[0]
    assert "no index for it" in result.how


def test_names_and_the_extension_s_schema_are_quoted(make_cars):
    cars = make_cars("", vector=False)
    cars.execute('CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext; CREATE SCHEMA "Order"')
    cars.execute('CREATE TABLE "Order"."Us%er" (id int, "Fea ""ture" float4[])')
    cars.execute("""INSERT INTO "Order"."Us%er" SELECT n, ARRAY[n, 1] FROM generate_series(1, 3000) n""")
    cars.execute('CREATE INDEX ON "Order"."Us%er" USING hnsw (("Fea ""ture"::ext.vector(2)) ext.vector_l2_ops)')
    cars.execute('ANALYZE "Order"."Us%er"')
    sink = cars.sink(None, targetschema="Order", tablename="Us%er", casesensitive=1)
    result = sink.search(SearchQuery((3.0, 1.0), 1))
    assert result.rows.column("id").to_pylist() == [3]
    assert "hnsw index" in result.how
    assert "did not use" not in result.how
    assert len(sink.sample(3)) == 3


def test_a_sample_is_of_vectors_that_are_there(filled):
    _, sink = filled()
    assert isinstance(sink, Sampling)
    sample = sink.sample(20)
    assert len(sample) == 20
    known = {row.tobytes() for row in vectors()}
    assert {np.array(vector, np.float32).tobytes() for vector in sample} <= known
