"""What a server's errors mean to the engine."""

import grpc
import pytest

from vector_assets.clients.milvus import (
    LimitedError,
    Login,
    NoCollectionError,
    NotLoadedError,
    RefusedError,
    connect,
    refused,
    unanswered,
)
from vector_assets.engine.errors import ConfigError, PlanError, TransientError, UnavailableError


class Failure(grpc.RpcError):
    def __init__(self, code: str, details: str) -> None:
        self._code, self._details = grpc.StatusCode[code], details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses", UnavailableError),
        ("UNAVAILABLE", "Ssl handshake failed: certificate verify failed", ConfigError),
        ("DEADLINE_EXCEEDED", "", UnavailableError),
        ("UNAUTHENTICATED", "auth check failure", ConfigError),
        ("PERMISSION_DENIED", "", ConfigError),
        ("RESOURCE_EXHAUSTED", "rate limit exceeded", LimitedError),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (70000000 vs. 67108864)", RefusedError),
        ("UNIMPLEMENTED", "unknown service", RefusedError),
        ("INTERNAL", "stream reset", TransientError),
        ("UNKNOWN", "", TransientError),
    ],
)
def test_a_request_without_an_answer(code, details, kind):
    error = unanswered(Failure(code, details), "milvus: people", 5)
    assert type(error) is kind
    assert str(error).startswith("milvus: people: ")


@pytest.mark.parametrize(
    ("code", "is_lite", "kind"),
    [
        (1, False, UnavailableError),
        (1, True, RefusedError),
        (3, False, LimitedError),
        (8, False, LimitedError),
        (9, False, UnavailableError),
        (100, False, NoCollectionError),
        (100, True, NoCollectionError),
        (101, False, NotLoadedError),
        (200, False, PlanError),
        (503, False, TransientError),
        (800, False, ConfigError),
        (1100, False, RefusedError),
        (1401, False, ConfigError),
        (65535, False, RefusedError),
    ],
)
def test_an_answer_that_is_an_error(code, is_lite, kind):
    assert type(refused(code, "reason", "milvus", is_lite=is_lite)) is kind
    assert isinstance(refused(65535, "reason", "milvus", is_lite=False, is_retriable=True), TransientError)


def test_a_rate_limit_says_how_long_to_wait_and_long_messages_are_cut():
    assert refused(8, "rate limit", "milvus", is_lite=False).retry_after == 1.0
    assert len(str(refused(1100, "x" * 5000, "milvus", is_lite=False))) < 400


def test_a_server_that_does_not_answer_is_unavailable_within_seconds(proxy, milvus):
    gate = proxy(milvus.host, milvus.port)
    api = connect(Login(gate.host, gate.port), "milvus")
    gate.stop()
    with pytest.raises(UnavailableError):
        api.collections()
    api.close()
    with pytest.raises(UnavailableError):
        api.collections()
    with pytest.raises(UnavailableError, match="UNAVAILABLE"):
        connect(Login(gate.host, gate.port), "milvus")


def test_a_server_without_tls_and_an_unknown_database_are_config_errors(milvus):
    with pytest.raises(ConfigError, match="WRONG_VERSION_NUMBER"):
        connect(Login(milvus.host, milvus.port, secure=True), "milvus")
    with pytest.raises(ConfigError, match="nowhere"):
        connect(Login(milvus.host, milvus.port, database="nowhere"), "milvus")


def test_a_missing_collection_is_named(milvus):
    api = connect(Login(milvus.host, milvus.port), "milvus")
    with pytest.raises(NoCollectionError, match="people"):
        api.describe("people")
    api.close()
