"""EMBED over a real embedding service: vectors, what is paid and what is not, and everything a service does wrong."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vector_assets.clients.embeddings import EmbeddingsClient
from vector_assets.clients.embeddings_limits import Gate, StoppedError
from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.engine.core import KIND, POSITION, Decoded
from vector_assets.engine.errors import ConfigError, FatalError, PlanError
from vector_assets.transforms.embedding import EmbeddingTransform
from vector_assets.transforms.embedding_asking import Model
from vector_assets.transforms.embedding_cache import Claims, EmbeddingCache

OUTPUT = pa.schema([("id", pa.int64()), ("v", pa.list_(pa.float32()))])
TEXTS = [f"text number {number}" for number in range(40)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    return tmp_path


def options(embeddings: Any, **more: Any) -> EmbeddingOptions:
    given = {
        "url": embeddings.url, "api-key": embeddings.api_key, "model": "universal-sentence-encoder",
        "dimensions": "16", "batch-size": "8", "retry-wait": "10 ms", "timeout": "30 s",
    } | {name.replace("_", "-"): value for name, value in more.items()}  # fmt: skip
    return EmbeddingOptions.parse({name: str(value) for name, value in given.items() if value is not None}, "EMBED")


def transform(embeddings: Any, output: pa.Schema = OUTPUT, pipeline: str = "p", **more: Any) -> EmbeddingTransform:
    columns = [field.name for field in output if pa.types.is_list(field.type)]
    return EmbeddingTransform(columns, options(embeddings, **more), output, pipeline=pipeline)


def rows(texts: list[str | None], kinds: list[int] | None = None, first: int = 0) -> pa.Table:
    table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "v": pa.array(texts, pa.string())})
    if kinds is not None:
        table = table.append_column(KIND, pa.array(kinds, pa.int8()))
    return table.append_column(POSITION, pa.array(range(first, first + len(texts)), pa.int64()))


def shown(decoded: Decoded) -> dict[int, list[float] | None]:
    return dict(zip(decoded.rows["id"].to_pylist(), decoded.rows["v"].to_pylist(), strict=True))


def errors(decoded: Decoded) -> dict[int, str]:
    assert set(decoded.rejected["stage"].to_pylist()) <= {"transform"}
    return dict(zip(decoded.rejected[POSITION].to_pylist(), decoded.rejected["error"].to_pylist(), strict=True))


def assert_right(embeddings: Any, decoded: Decoded, texts: list[str]) -> None:
    """Every row has the vector of its own text."""
    wanted = embeddings.vectors(texts, "universal-sentence-encoder", dimensions=16)
    found = np.array([shown(decoded)[number] for number in range(len(texts))], np.float32)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_every_row_has_the_vector_of_its_text_and_each_text_is_sent_once(embeddings, encoding) -> None:
    texts = [*TEXTS, *TEXTS]
    made = transform(embeddings, encoding_format=encoding).apply(rows(texts))
    assert made.rows.schema.field("v").type == OUTPUT.field("v").type
    assert (made.usage["embedded"], made.usage["reused"]) == (40, 0)
    counters = embeddings.counters()
    assert (counters["requests"], counters["texts"], counters["largest_batch"]) == (5, 40, 8)
    assert made.usage["tokens"] == counters["tokens"] > 0
    assert_right(embeddings, made, texts)


def test_unchanged_texts_are_never_sent_again(embeddings) -> None:
    first = transform(embeddings).apply(rows(TEXTS))
    before = embeddings.counters()["requests"]
    again = transform(embeddings, pipeline="other").apply(rows(TEXTS))
    assert embeddings.counters()["requests"] == before
    assert again.rows.equals(first.rows)
    assert again.usage == {"embedded": 0, "reused": 40, "tokens": 0, "cost_micros": 0}


@pytest.mark.parametrize(
    ("change", "paid"),
    [
        ({"revision": "2"}, 3), ({"dimensions": 32}, 3), ({"model": "text-embedding-v4"}, 3), ({"prefix": "q: "}, 3),
        ({"batch_size": 2}, 0), ({"max_characters": 6, "too_long": "truncate"}, 1), ({"encoding_format": "base64"}, 0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_what_makes_another_vector_is_paid_for_again(embeddings, change, paid) -> None:
    texts = ["short", "second", "third!!"]
    transform(embeddings).apply(rows(texts))
    assert transform(embeddings, **change).apply(rows(texts)).usage["embedded"] == paid


def test_nulls_and_rows_that_take_away_have_no_vector_and_cost_nothing(embeddings) -> None:
    made = transform(embeddings).apply(rows(["a", "b", "c", None, "d"], kinds=[0, 1, 2, 0, 3]))
    assert [vector is not None for vector in shown(made).values()] == [True, False, True, False, False]
    assert embeddings.counters()["texts"] == 2
    empty = transform(embeddings).apply(rows([]))
    assert (empty.rows.num_rows, empty.rows.schema.field("v").type) == (0, OUTPUT.field("v").type)


def test_texts_that_cannot_be_sent_are_dead_letters_by_themselves(embeddings) -> None:
    made = transform(embeddings, max_characters=10).apply(rows(["good", "", "  \n", "much too long"], first=100))
    assert shown(made).keys() == {0}
    assert errors(made) == {
        101: "column v: EMBED: the text is empty; NULLIF makes it a NULL vector",
        102: "column v: EMBED: the text is empty; NULLIF makes it a NULL vector",
        103: "column v: EMBED: the text has 13 characters, option 'max-characters' is 10",
    }
    assert embeddings.counters()["texts"] == 1


def test_a_column_may_be_of_doubles_and_two_columns_are_two_vectors(embeddings) -> None:
    output = pa.schema([("v", pa.list_(pa.float64())), ("w", pa.list_(pa.float32()))])
    table = pa.table({"v": ["a", "b"], "w": ["b", None], POSITION: pa.array([0, 1], pa.int64())})
    made = transform(embeddings, output).apply(table)
    assert made.rows["v"][1].as_py() == made.rows["w"][0].as_py()
    assert made.rows["w"][1].as_py() is None
    assert (made.usage["embedded"], made.usage["reused"]) == (2, 1)


def test_a_poison_text_costs_only_itself(embeddings) -> None:
    texts = [*TEXTS[:5], "a POISON text", *TEXTS[5:20]]
    embeddings.fault(text="POISON", status=400, message="content is not allowed", times=None)
    # one request at a time: else a text may be answered before the poison, and no trial is needed
    made = transform(embeddings, concurrency=1).apply(rows(texts))
    (reason,) = errors(made).values()
    assert reason == "column v: EMBED: universal-sentence-encoder: HTTP 400: content is not allowed"
    assert made.rows.num_rows == 20
    counters = embeddings.counters()
    # the trial text, once, beside the twenty
    assert (counters["texts"], counters["repeated"]) == (21, 0)
    embeddings.service.ask("DELETE", "counters")
    again = transform(embeddings).apply(rows(texts))
    assert (again.usage["embedded"], again.usage["reused"]) == (0, 20)
    assert embeddings.counters()["requests"] == 2


def test_a_service_that_refuses_everything_makes_no_dead_letters(embeddings) -> None:
    embeddings.fault(status=400, message="dimensions are not supported", times=None)
    with pytest.raises(PlanError, match=r"no text is to blame.*dimensions are not supported"):
        transform(embeddings).apply(rows(TEXTS))
    assert embeddings.counters()["texts"] == 0


def test_a_smaller_limit_of_the_service_is_found_and_kept(embeddings) -> None:
    embeddings.limit(batch=5)
    made = transform(embeddings, batch_size=16, concurrency=1)
    assert made.apply(rows(TEXTS)).usage["embedded"] == 40
    assert made.model.most == 4
    refused = embeddings.counters()["refused"]
    assert made.apply(rows([text.upper() for text in TEXTS])).usage["embedded"] == 40
    assert embeddings.counters()["refused"] == refused


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "retry_after_s": 0.05}, {"status": 429}, {"status": 500}, {"status": 503}, {"cut": True},
        {"wrong": "count"}, {"wrong": "order"}, {"wrong": "index"}, {"wrong": "dimension"}, {"wrong": "body"},
        {"delay_s": 2.5},
    ],
    ids=lambda fault: "-".join(f"{name}-{value}" for name, value in fault.items()),
)  # fmt: skip
def test_a_fault_that_passes_leaves_every_row_with_its_own_vector(embeddings, fault) -> None:
    embeddings.fault(text="number 3$", **fault)
    made = transform(embeddings, timeout="2 s" if "delay_s" in fault else "30 s").apply(rows(TEXTS))
    assert made.rejected.num_rows == 0
    assert_right(embeddings, made, TEXTS)
    assert embeddings.hits()[0] >= 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 429}, "has had too many requests"),
        ({"status": 500}, "could not answer"),
        ({"status": 503}, "does not answer .*outage"),
        ({"delay_s": 3}, r"did not answer in 2 s \(option 'timeout'\)"),
        ({"status": 402}, "no money left"),
        ({"status": 429, "retry_after_s": 5000}, "wants no request for 5000 s"),
        ({"wrong": "count"}, "answers 7 vectors for 8 texts"),
        ({"wrong": "index"}, "answers index 8, wanted each of 0 to 7 once"),
        ({"wrong": "dimension"}, r"answers vectors of 15 numbers, wanted 16 \(option 'dimensions'\)"),
        ({"wrong": "body"}, "answers no list of vectors"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_fault_that_stays_stops_the_run_by_name_and_keeps_what_is_paid(embeddings, fault, message) -> None:
    embeddings.fault(text="number 39$", times=None, **fault)
    with pytest.raises(FatalError, match=message):
        transform(
            embeddings, timeout="2 s", retries=0 if "delay_s" in fault else 1, outage="50 ms", concurrency=1
        ).apply(rows(TEXTS))
    embeddings.reset()
    made = transform(embeddings).apply(rows(TEXTS))
    assert (made.usage["reused"], made.usage["embedded"]) == (32, 8)
    assert_right(embeddings, made, TEXTS)


def test_a_vector_that_is_no_number_costs_its_text_only(embeddings) -> None:
    embeddings.fault(text="number 8$", wrong="nan")
    made = transform(embeddings).apply(rows(TEXTS))
    assert errors(made) == {
        8: "column v: EMBED: the vector that universal-sentence-encoder answers has NaN or an infinity"
    }
    assert transform(embeddings).apply(rows(TEXTS)).usage["embedded"] == 1


def test_another_dimension_than_before_is_refused(embeddings, tmp_path) -> None:
    transform(embeddings, dimensions=None).apply(rows(["a"]))
    EmbeddingCache(options(embeddings, dimensions=None).space)  # the same space
    embeddings.fault(wrong="dimension", times=None)
    with pytest.raises(FatalError, match="answers vectors of 511 numbers, those before had 512"):
        transform(embeddings, dimensions=None).apply(rows(["b"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"api_key": "wrong"}, "refuses option 'api-key'"),
        ({"model": "nobody"}, "the model 'nobody' does not exist"),
    ],
)
def test_a_wrong_declaration_is_told_without_the_key(embeddings, change, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        transform(embeddings, **change).apply(rows(TEXTS))
    assert embeddings.api_key not in str(caught.value)
    assert embeddings.counters()["texts"] == 0


def test_max_cost_stops_a_batch_before_it_is_sent_and_counts_the_whole_day(embeddings) -> None:
    made = transform(embeddings, price=1_000_000, max_cost=150)
    first = made.apply(rows(TEXTS[:8]))
    tokens = embeddings.counters()["tokens"]
    assert first.usage["cost_micros"] == tokens * 1_000_000
    requests = embeddings.counters()["requests"]
    with pytest.raises(FatalError, match=r"p: 32 texts would cost about .* option 'max-cost' is 150: nothing of this"):
        transform(embeddings, price=1_000_000, max_cost=150).apply(rows(TEXTS))
    assert embeddings.counters()["requests"] == requests
    assert made.apply(rows(TEXTS[:8])).usage["reused"] == 8
    (paid,) = made.model.cache.paid(pipeline="p")
    assert (paid.requests, paid.texts, paid.tokens, paid.cost) == (1, 8, tokens, float(tokens))


def test_a_stop_sends_nothing_more_and_keeps_what_came_back(embeddings) -> None:
    embeddings.limit(latency_s=0.2)
    stop = threading.Event()
    made = transform(embeddings, concurrency=1)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(made.heeding(stop).apply, rows(TEXTS))
        deadline = time.monotonic() + 20
        while embeddings.counters()["answered"] < 1:
            assert time.monotonic() < deadline
        stop.set()
        with pytest.raises(StoppedError):
            future.result()
    answered = embeddings.counters()["answered"]
    assert answered < 5
    assert made.apply(rows(TEXTS)).usage["reused"] == 8 * answered
    assert embeddings.counters()["repeated"] == 0


def test_threads_and_pipelines_share_the_limit_of_a_service_and_pay_a_text_once(embeddings) -> None:
    embeddings.limit(latency_s=0.05)
    several = [transform(embeddings, pipeline=name, concurrency=3) for name in ("a", "b", "c", "d")]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda each: each.apply(rows(TEXTS)), several))
    assert all(each.rows.equals(made[0].rows) for each in made)
    assert sum(each.usage["embedded"] for each in made) == 40
    counters = embeddings.counters()
    assert (counters["texts"], counters["most_at_once"]) == (40, 3)


def test_a_rate_limit_is_waited_for(embeddings) -> None:
    embeddings.limit(requests_per_s=20)
    made = transform(embeddings, batch_size=2).apply(rows(TEXTS))
    assert made.usage["embedded"] == 40
    assert embeddings.counters()["repeated"] == 0


def test_requests_per_minute_keeps_them_apart() -> None:
    moments = iter([0.0, 0.0, 0.4, 0.6])
    gate = Gate(clock=lambda: next(moments))
    for _ in range(2):
        with gate.passed(5, 0.5, threading.Event()):
            pass
    assert list(moments) == []


def waiting_for(gate: Gate, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(gate._waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_of_requests_that_wait_the_earlier_batch_s_go_first_and_hold_up_nobody_who_may_pass() -> None:
    gate, passed, stop = Gate(), [], threading.Event()

    def ask(turn: int, most: int) -> None:
        with gate.passed(most, 0.0, stop, turn):
            passed.append(turn)

    with ThreadPoolExecutor(8) as pool, gate.passed(2, 0.0, stop), gate.passed(2, 0.0, stop):
        for number, turn in enumerate((3, 2, 3, 1, 2)):
            pool.submit(ask, turn, 1)
            waiting_for(gate, number + 1)
        # another pipeline, which may have more requests at once, does not wait for those that may not go
        pool.submit(ask, 9, 3).result(timeout=10)
        assert passed == [9]
    assert passed == [9, 1, 2, 2, 3, 3]


def test_requests_are_cut_by_bytes_too(embeddings) -> None:
    texts = [f"{number} {'x' * 500}" for number in range(4)] + ["y" * 3000]
    transform(embeddings, batch_bytes=1024).apply(rows(texts))
    assert (embeddings.counters()["requests"], embeddings.counters()["largest_batch"]) == (3, 2)


def test_a_cache_that_was_removed_is_made_again(embeddings, home) -> None:
    made = transform(embeddings)
    made.apply(rows(TEXTS[:3]))
    for file in (home / "cache").iterdir():
        file.unlink()
    assert made.apply(rows(TEXTS[:3])).usage["embedded"] == 3


def test_a_damaged_cache_stops_the_run_by_name(embeddings, home) -> None:
    (home / "cache").mkdir()
    (home / "cache" / "embeddings.db").write_bytes(b"no database " * 400)
    with pytest.raises(FatalError, match=r"embedding cache .*embeddings\.db: file is not a database"):
        transform(embeddings).apply(rows(TEXTS[:3]))
    assert embeddings.counters()["requests"] == 0


def test_sizing_sends_nothing(embeddings) -> None:
    made = transform(embeddings)
    assert made.sizing(rows(TEXTS)).known.to_pylist() == [False] * 40
    assert not made.model.cache.is_there()
    made.apply(rows(TEXTS[:10]))
    sizing = made.sizing(rows([*TEXTS, ""]))
    assert (sum(sizing.known.to_pylist()), len(set(sizing.keys.to_pylist())), sizing.rejected) == (10, 40, 1)
    assert embeddings.counters()["texts"] == 10


def test_claims_are_taken_all_at_once_and_given_back() -> None:
    claims = Claims()
    assert claims.take([b"a", b"b"]) == [True, True]
    assert claims.take([b"b", b"c"]) == [False, True]
    claims.release([b"a", b"b"])
    assert claims.take([b"b"]) == [True]


def test_a_service_that_is_not_there_is_waited_for_and_then_named(own_embeddings) -> None:
    server = own_embeddings()
    server.service.stop()
    client = EmbeddingsClient(options(server))
    with pytest.raises(FatalError, match="cannot be reached"):
        Model(options(server, outage="300 ms"), "p").answer(["a"], threading.Event())
    server.service.start()
    assert client.embed(["a"], threading.Event()).vectors.shape == (1, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "ftp://host"}, "want http://host:port/v1"),
        ({"url": "http://me:pw@host/v1"}, "want an address without credentials"),
        ({"max-cost": "1"}, "option 'max-cost' wants option 'price'"),
        ({"too-long": "truncate"}, "wants option 'max-characters'"),
        ({"batch": "1"}, "unknown option 'batch'.*'batch-size'"),
    ],
)
def test_wrong_options_are_refused_by_name(given, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        EmbeddingOptions.parse({"url": "http://host/v1", "model": "m"} | given, "EMBED")
    assert "pw" not in str(caught.value)


def test_an_address_is_completed() -> None:
    for url in ("http://host/v1", "http://host/v1/", "http://host/v1/embeddings"):
        assert EmbeddingOptions.parse({"url": url, "model": "m"}, "EMBED").url == "http://host/v1/embeddings"
