"""The Iceberg sink keeps the contract."""

import shutil

import pytest

from tests.sinks.contract import SinkContract
from tests.sinks.iceberg_target import lake  # noqa: F401  (fixture)


class TestIcebergSink(SinkContract):
    @pytest.fixture
    def open_sink(self, lake):  # noqa: F811
        return lambda: lake.sink(None)

    @pytest.fixture
    def rows(self, lake):  # noqa: F811
        return lambda: [(row["id"], row["color"], row["feature"]) for row in lake.rows()]

    @pytest.fixture
    def cut(self, lake):  # noqa: F811
        def cut():
            # a directory in the place of the catalog's file: it cannot be opened
            (lake.folder / "catalog.db").unlink()
            (lake.folder / "catalog.db").mkdir()
            shutil.rmtree(lake.folder / "warehouse" / "nothing", ignore_errors=True)

        return cut
