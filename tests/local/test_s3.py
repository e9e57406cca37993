"""The local S3 server keeps its objects and keys, listens on the loopback address only, and refuses strangers."""

import pytest

from tests.fix_services import start
from vector_assets.local.s3 import BUCKET, S3Service

pytestmark = pytest.mark.service


@pytest.fixture
def service(services_home):
    service = S3Service(services_home / "own-s3")
    start(service)
    yield service
    service.erase()


def test_objects_and_keys_survive_a_restart_and_a_crash(service):
    keys = service.keys
    service.client().put_object(Bucket=BUCKET, Key="a/b", Body=b"1")
    service.stop()
    service.start()
    service.kill()
    service.start()
    assert service.keys == keys
    assert service.client().get_object(Bucket=BUCKET, Key="a/b")["Body"].read() == b"1"
    assert service.status().state == "up"
    assert (service.state_dir / "s3.json").stat().st_mode & 0o077 == 0
