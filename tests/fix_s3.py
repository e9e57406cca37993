"""An S3 server for tests: `s3`, shared by a session, with a fresh folder of its bucket for every test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fix_services import start
from vector_assets.local.s3 import BUCKET, REGION, S3Service

_numbers = itertools.count()


class S3Server:
    """A running server and how Paimon and pyarrow reach it."""

    def __init__(self, service: S3Service) -> None:
        self.service = service
        self.host, self.port = service.address.split(":")[0], service.port
        self.access_key, self.secret_key = service.keys

    @property
    def endpoint(self) -> str:
        """The address, with its protocol."""
        return self.service.endpoint

    def folder(self) -> str:
        """`s3://<bucket>/<a fresh folder>`."""
        return f"s3://{BUCKET}/test-{next(_numbers)}"

    def options(self, port: int | None = None) -> dict[str, str]:
        """Options by Paimon's names; `port` may be a proxy's."""
        return {
            "s3.endpoint": f"http://{self.host}:{port or self.port}",
            "s3.access-key": self.access_key,
            "s3.secret-key": self.secret_key,
            "s3.region": REGION,
            "s3.path.style.access": "true",
        }


@pytest.fixture(scope="session")
def _s3_service(services_home: Path) -> Iterator[S3Service]:
    service = S3Service(services_home / "s3")
    start(service)
    yield service
    service.erase()


@pytest.fixture
def s3(_s3_service: S3Service) -> S3Server:
    return S3Server(_s3_service)
