"""`search` shows the nearest rows of a pipeline's target, and how good its index is."""

import pytest


@pytest.fixture
def landed(job):
    """Thirty cars in the target, with a vector index."""
    job.execute("CREATE INDEX by_feature ON vector_test.car_info USING hnsw ((feature::vector(3)) vector_l2_ops)")
    job.produce(range(30))
    job.run()
    job.execute("ANALYZE vector_test.car_info")
    return job


def test_the_nearest_rows_are_shown_with_their_distance(landed, cli):
    found = cli("search", "cars", "--vector", "{7.5,1,2}", "--k", "3", "--json").json
    assert found["rows"][0] | {"landed_by": 0} == found["rows"][0] | {
        "id": 7,
        "price": 7,
        "_distance": 0.0,
        "landed_by": 0,
    }
    assert sorted(row["id"] for row in found["rows"]) == [6, 7, 8]
    assert found["plan"] is None
    shown = cli("search", "cars", "--vector", "[7.5,1,2]", "--k", "3", "--explain", "--where", "price < 8").out
    assert "rows in" in shown
    assert "l2 distance (<->) of feature" in shown
    assert "Limit" in shown


def test_a_vector_may_come_from_a_file_and_columns_are_those_asked_for(landed, cli, tmp_path):
    file = tmp_path / "query.json"
    file.write_text("[7.5, 1, 2]\n")
    found = cli("search", "cars", "--vector-file", str(file), "--exact", "--metric", "cosine", "--json").json
    assert len(found["rows"]) == 10
    assert "exact" in found["how"]


def test_the_recall_of_the_index_is_measured(landed, cli):
    recall = cli("search", "cars", "--check", "--samples", "8", "--k", "5", "--json").json["recall"]
    assert recall["samples"] == 8
    assert recall["mean"] >= 0.9
    assert "recall@5" in cli("search", "cars", "--check", "--samples", "2", "--k", "5").out


MISTAKES = {
    "no numbers": (["--vector", "abc"], "--vector: want [0.1,0.2,...]"),
    "texts": (["--vector", '["a"]'], "want a list of numbers"),
    "infinity": (["--vector", "[1e999,1,2]"], "NaN or infinity"),
    "another dimension": (["--vector", "[1,2]"], "has 3 dimensions, the vector has 2"),
    "a condition": (["--vector", "[1,2,3]", "--where", "colour = 1"], "colour"),
    "no such file": (["--vector-file", "none.json"], "none.json: cannot be read"),
}


@pytest.mark.parametrize(("options", "wanted"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_one_line(job, cli, options, wanted):
    done = cli("search", "cars", *options)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert wanted in done.err


def test_without_a_vector_there_is_nothing_to_search(job, cli):
    assert cli("search", "cars").code == 2
    assert cli("search", "cars", "--vector", "[1]", "--vector-file", "x").code == 2
    refused = cli("search", "cars", "--check")
    assert refused.code == 1
    assert "no rows with a vector" in refused.err
