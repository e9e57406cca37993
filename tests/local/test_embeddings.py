"""The local embedding service: OpenAI's interface, real vectors, and faults on demand."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import urllib3

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    ("model", "asked", "want"),
    [
        ("text-embedding-v4", {}, 1024),
        ("universal-sentence-encoder", {}, 512),
        ("text-embedding-v4", {"dimensions": 512}, 512),
        ("text-embedding-v4", {"dimensions": 10}, 10),
        ("universal-sentence-encoder", {"dimensions": 2048}, 2048),
    ],
)
def test_vectors_have_the_dimension_of_the_model_or_the_request_and_length_one(embeddings, model, asked, want):
    found = embeddings.vectors(["hello world", "guten Tag"], model, **asked)
    assert found.shape == (2, want)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_similar_texts_are_near_in_several_languages_and_padding_changes_no_distance(embeddings):
    texts = ["a cat sits on the mat", "eine Katze sitzt auf der Matte", "interest rates rose again"]
    wide = embeddings.vectors(texts)
    narrow = embeddings.vectors(texts, "universal-sentence-encoder")
    likeness = wide @ wide.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2
    assert narrow @ narrow.T == pytest.approx(likeness, abs=1e-5)


def test_one_text_and_base64_are_answered_as_openai_does(embeddings):
    body = {"model": "text-embedding-v4", "input": "hello", "encoding_format": "base64"}
    status, answer, _ = embeddings.post(body)
    assert status == 200
    assert answer["data"][0]["index"] == 0
    assert answer["usage"]["prompt_tokens"] > 0
    found = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    assert found == pytest.approx(embeddings.vectors(["hello"])[0], abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "x", "input": "a"}, 404, "known: text-embedding-v4"),
        ({"model": "text-embedding-v4", "input": []}, 400, "at least one text"),
        ({"model": "text-embedding-v4", "input": ["a", ""]}, 400, "input 1 is empty"),
        ({"model": "text-embedding-v4", "input": [3]}, 400, "input must be"),
        ({"model": "text-embedding-v4", "input": "a", "dimensions": 0}, 400, "dimensions"),
        ({"model": "text-embedding-v4", "input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"model": "text-embedding-v4", "input": "a", "more": 1}, 400, "unknown field more"),
        ([], 400, "JSON object"),
    ],
    ids=["model", "nothing", "empty", "number", "dimensions", "encoding", "field", "body"],
)
def test_a_request_that_is_wrong_is_refused_by_field(embeddings, body, status, words):
    found, answer, _ = embeddings.post(body)
    assert found == status
    assert words in answer["error"]["message"]
    assert embeddings.counters()["statuses"] == {str(status): 1}


def test_a_wrong_key_gets_nothing_unless_none_is_needed(embeddings):
    body = {"model": "text-embedding-v4", "input": "a"}
    status, answer, _ = embeddings.post(body, key="sk-wrong")
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    embeddings.limit(needs_key=False)
    assert embeddings.post(body, key="")[0] == 200


def test_a_rule_refuses_only_texts_that_it_names(embeddings):
    embeddings.fault(text="poison", status=400, message="content policy", times=None)
    assert embeddings.post({"model": "text-embedding-v4", "input": ["good", "poison"]})[0] == 400
    assert embeddings.post({"model": "text-embedding-v4", "input": ["good"]})[0] == 200
    assert embeddings.hits() == [1]
    assert embeddings.counters()["texts"] == 1


def test_a_rule_lets_some_pass_and_ends_after_its_times(embeddings):
    embeddings.fault(status=429, retry_after_s=1.5, skip=1, times=1)
    body = {"model": "text-embedding-v4", "input": "a"}
    answers = [embeddings.post(body) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 429, 200]
    assert answers[1][2]["Retry-After"] == "2"
    assert answers[1][2]["Retry-After-Ms"] == "1500"


def test_limits_of_rate_and_size_refuse_what_exceeds_them(embeddings):
    embeddings.limit(requests_per_s=2, batch=2, characters=5)
    many = {"model": "text-embedding-v4", "input": ["a", "b", "c"]}
    assert "may have 2" in embeddings.post(many)[1]["error"]["message"]
    long = {"model": "text-embedding-v4", "input": ["abcdef"]}
    assert "6 characters" in embeddings.post(long)[1]["error"]["message"]
    statuses = [embeddings.post({"model": "text-embedding-v4", "input": "a"})[0] for _ in range(4)]
    assert 429 in statuses


@pytest.mark.parametrize("wrong", ["count", "order", "index", "dimension", "nan"])
def test_an_answer_may_be_wrong_in_each_way(embeddings, wrong):
    body = {"model": "universal-sentence-encoder", "input": ["a", "b"]}
    right = embeddings.post(body)[1]["data"]
    embeddings.fault(wrong=wrong)
    found = embeddings.post(body)[1]["data"]
    expected = {
        "count": len(found) == 1,
        "order": [row["index"] for row in found] == [1, 0] and found[1] == right[0],
        "index": [row["index"] for row in found] == [1, 2],
        "dimension": len(found[0]["embedding"]) == 511,
        "nan": found[0]["embedding"][0] is None,
    }
    assert expected[wrong]


def test_a_connection_may_be_cut_after_the_texts_were_paid_for(embeddings):
    embeddings.fault(cut=True)
    with pytest.raises(urllib3.exceptions.HTTPError):
        embeddings.post({"model": "text-embedding-v4", "input": "a"})
    assert embeddings.counters()["texts"] == 1


def test_a_text_paid_for_twice_is_counted_and_a_revision_has_other_vectors(embeddings):
    first = embeddings.vectors(["a", "b"])
    assert embeddings.counters()["repeated"] == 0
    embeddings.limit(revision=3)
    second = embeddings.vectors(["a", "c"])
    counters = embeddings.counters()
    assert (counters["texts"], counters["repeated"], counters["requests"]) == (4, 1, 2)
    assert not np.allclose(first[0], second[0])


def test_a_request_that_outlives_a_reset_counts_no_more(embeddings):
    embeddings.limit(latency_s=0.5)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(embeddings.vectors, ["late"])
        deadline = time.monotonic() + 20
        while not embeddings.counters()["requests"]:
            assert time.monotonic() < deadline
        embeddings.reset()
        late.result()
    counters = embeddings.counters()
    assert (counters["answered"], counters["texts"]) == (0, 0)


def test_an_unknown_rule_is_refused_with_the_known_ones(embeddings):
    for bad in ({"colour": 1}, {"wrong": "smell"}, {"text": "("}):
        with pytest.raises(Exception, match="400"):
            embeddings.fault(**bad)


def test_the_key_outlives_a_restart_and_is_in_no_process_list(own_embeddings):
    server = own_embeddings()
    key = server.api_key
    command = Path(f"/proc/{server.service.status().pid}/cmdline").read_text()
    assert key not in command
    server.service.stop()
    server.service.start()
    assert server.service.api_key == key
    assert server.vectors(["a"]).shape == (1, 1024)
