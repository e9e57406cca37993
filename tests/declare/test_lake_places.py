"""Folders are looked into where they lie: on disk, and in an object store by the options of either format."""

import pyarrow.fs as pafs
import pytest

from vector_assets.declare.lake_places import refuse_full_folder
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.sinks.iceberg_options import IcebergOptions
from vector_assets.sinks.paimon_options import PaimonOptions

PLACE = Place("job.yaml", 7, 11)
TABLE = {"connector": "iceberg", "catalog-database": "d", "catalog-table": "t"}
NAMES = {
    "s3.endpoint": "s3.endpoint",
    "s3.access-key": "s3.access-key-id",
    "s3.secret-key": "s3.secret-access-key",
    "s3.region": "s3.region",
}
"""Paimon's options of a store by Iceberg's names."""


def refuse(options, folder: str) -> None:
    refuse_full_folder(options, folder, "job orders", PLACE)


def test_a_folder_on_disk_is_empty_or_not_there(tmp_path):
    options = IcebergOptions.parse(TABLE, "connector iceberg")
    refuse(options, str(tmp_path))
    refuse(options, f"file://{tmp_path}/nothing")
    (tmp_path / "x").touch()
    with pytest.raises(ConfigError, match=rf"job.yaml:7:11: job orders: path {tmp_path} is not empty: it holds 'x'"):
        refuse(options, str(tmp_path))
    with pytest.raises(ConfigError, match="it holds 'x'"):
        refuse(options, str(tmp_path / "x"))


@pytest.mark.parametrize("kind", ["iceberg", "paimon"])
def test_a_folder_in_an_object_store_is_empty_or_not_there(s3, kind):
    given = s3.options()
    folder = s3.folder()
    if kind == "iceberg":
        raw = TABLE | {NAMES[name]: text for name, text in given.items() if name in NAMES}
        options = IcebergOptions.parse(raw, "connector iceberg")
    else:
        options = PaimonOptions.parse({"connector": "paimon", "path": folder, **given}, "connector paimon")
    refuse(options, folder)
    store = pafs.S3FileSystem(
        access_key=s3.access_key, secret_key=s3.secret_key, endpoint_override=s3.endpoint, region=given["s3.region"]
    )
    with store.open_output_stream(f"{folder.removeprefix('s3://')}/inner/file.txt") as stream:
        stream.write(b"x")
    with pytest.raises(ConfigError, match=r"is not empty: it holds '(inner|file\.txt)'"):
        refuse(options, folder)
    if kind == "iceberg":
        refuse(options, f"{folder}2")
