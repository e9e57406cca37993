"""Ledgers of both kinds for the same tests."""

import pytest


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.service)])
def ledger_location(request, tmp_path) -> str:
    """A ledger's location: a file, then a server."""
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else request.getfixturevalue("postgres_ledger")
