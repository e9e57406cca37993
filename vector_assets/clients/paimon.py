"""Paimon tables on a file system or an object store, through pypaimon (imported when a table is opened: 1 s).

The catalog is the folder itself.

A snapshot becomes the table's newest by creating the file `snapshot-<n>`, and whoever creates it first has won.
pypaimon looks whether the file is there and then renames onto it, which lets two processes win; here the file is made
by one request that fails when it exists: `link` on a file system, `If-None-Match: *` on S3.
"""

import errno
import hashlib
import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.fs as pafs

from vector_assets.engine.errors import ConfigError, FatalError, TransientError, UnavailableError

if TYPE_CHECKING:
    from pypaimon.common.file_io import FileIO
    from pypaimon.snapshot.snapshot import Snapshot
    from pypaimon.table.file_store_table import FileStoreTable

S3_SCHEMES = frozenset({"s3", "s3a"})
OSS_SCHEMES = frozenset({"oss"})
SCHEMES = ("file", *sorted(S3_SCHEMES | OSS_SCHEMES))
_UNREACHABLE = ("curlCode", "Couldn't connect", "timed out", "Timeout", "NETWORK_CONNECTION")
"""Words of pyarrow's OSError when the store did not answer; it has no class of its own for it."""

# pypaimon reports every lost race and every retry of ours as a warning with a traceback
logging.getLogger("pypaimon").setLevel(logging.ERROR)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn what pypaimon and pyarrow raise into ours.

    Raises:
        UnavailableError: the store does not answer.
        TransientError: the store refused or failed; a full disk is one of the reasons.
        ConfigError: no permission, or a package is missing.
        FatalError: pypaimon gave up for a reason of its own.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, ImportError, pa.ArrowException) as error:
        raise _translated(place, error) from error


def _translated(place: str, error: BaseException) -> Exception:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, ImportError):
        return ConfigError(f"{place}: {error}: pip install 'vector-assets[paimon]'")
    if isinstance(cause, OSError):
        text = str(cause)
        if isinstance(cause, PermissionError) or "ACCESS_DENIED" in text or "SignatureDoesNotMatch" in text:
            return ConfigError(f"{place}: no permission: {text}")
        if any(word in text for word in _UNREACHABLE):
            return UnavailableError(f"{place}: the store does not answer: {text}")
        return TransientError(f"{place}: {text}")
    return FatalError(f"{place}: {type(error).__name__}: {error}")


class LostRaceError(Exception):
    """Another commit made the snapshot that was to follow the one looked at; nothing of ours is visible."""


@dataclass(frozen=True, slots=True)
class Login:
    """How an object store is reached; nothing of it is shown."""

    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    path_style: bool = False

    @property
    def url(self) -> str | None:
        """The endpoint with its protocol."""
        return self.endpoint if not self.endpoint or "://" in self.endpoint else f"https://{self.endpoint}"


class Storage:
    """The folder of one table and how to reach it. `path` is as the user wrote it, without a slash at its end."""

    def __init__(self, path: str, login: Login | None = None) -> None:
        self.path = path.rstrip("/")
        self.login = login or Login()
        self.scheme = urlparse(self.path).scheme or "file"
        self.place = f"paimon: {self.path}"

    @property
    def is_local(self) -> bool:
        """True on a mounted file system."""
        return self.scheme == "file"

    @property
    def settings(self) -> dict[str, str]:
        """The login by pypaimon's names."""
        login = self.login
        if self.scheme in OSS_SCHEMES:
            names = {
                "fs.oss.endpoint": login.endpoint, "fs.oss.accessKeyId": login.access_key,
                "fs.oss.accessKeySecret": login.secret_key, "fs.oss.securityToken": login.session_token,
                "fs.oss.region": login.region,
            }  # fmt: skip
        else:
            names = {
                "s3.endpoint": login.endpoint, "s3.access-key": login.access_key, "s3.secret-key": login.secret_key,
                "s3.session-token": login.session_token, "s3.region": login.region,
                "s3.path.style.access": "true" if login.path_style else None,
            }  # fmt: skip
        return {name: value for name, value in names.items() if value}

    @cached_property
    def file_io(self) -> "FileIO":
        """pypaimon's view of the store."""
        from pypaimon.common.file_io import FileIO
        from pypaimon.common.options import Options

        with translated(self.place):
            found = FileIO.get(self.path, Options(self.settings))
            if self.scheme in S3_SCHEMES:
                found.filesystem = self._s3_filesystem()
            return found

    def _s3_filesystem(self) -> pafs.S3FileSystem:
        """pypaimon's own tries ten times, which takes a minute and a half when nobody listens; the engine retries."""
        login = self.login
        return pafs.S3FileSystem(
            access_key=login.access_key, secret_key=login.secret_key, session_token=login.session_token,
            region=login.region, endpoint_override=login.endpoint, force_virtual_addressing=not login.path_style,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=2), connect_timeout=5, request_timeout=60,
        )  # fmt: skip

    def under(self, path: str) -> "Storage":
        """Another folder of the same store."""
        other = Storage(path, self.login)
        other.__dict__["file_io"] = self.file_io
        return other

    def exists(self) -> bool:
        """True when the folder is there; on an object store, when anything lies in it."""
        with translated(self.place):
            return bool(self.file_io.exists(self.path))

    def parent(self) -> "Storage":
        """The folder that holds this one."""
        return self.under(self.path.rpartition("/")[0])

    def make(self) -> None:
        """Make the folder."""
        with translated(self.place):
            self.file_io.mkdirs(self.path)

    def files(self) -> Iterator[pafs.FileInfo]:
        """Every file below the folder."""
        with translated(self.place):
            if self.is_local:
                root = local_path(self.path)
                yield from pafs.LocalFileSystem().get_file_info(
                    pafs.FileSelector(str(root), recursive=True, allow_not_found=True)
                )
            else:
                root_key = self.file_io.to_filesystem_path(self.path)
                selector = pafs.FileSelector(root_key, recursive=True, allow_not_found=True)
                yield from self.file_io.filesystem.get_file_info(selector)

    def delete(self, path: str) -> None:
        """Delete one file that `files` named."""
        with translated(self.place):
            (pafs.LocalFileSystem() if self.is_local else self.file_io.filesystem).delete_file(path)

    def load(self) -> "FileStoreTable | None":
        """The table of the folder as its newest schema has it; None when there is none."""
        from pypaimon.common.identifier import Identifier
        from pypaimon.schema.schema_manager import SchemaManager
        from pypaimon.table.file_store_table import FileStoreTable

        with translated(self.place):
            schema = SchemaManager(self.file_io, self.path).latest()
            if schema is None:
                return None
            return FileStoreTable(self.file_io, Identifier("default", "table"), self.path, schema)

    def incarnation(self) -> str | None:
        """Changes when the table is dropped and made anew: hash of its first schema, which holds when it was made."""
        path = f"{self.path}/schema/schema-0"
        with translated(self.place):
            if not self.file_io.exists(path):
                return None
            return hashlib.sha256(self.file_io.read_file_utf8(path).encode()).hexdigest()[:16]

    def create_file(self, path: str, text: str) -> bool:
        """Make a file that is not there, whole and durable; False when it is.

        Raises:
            OSError: the store failed; the file may be there.
        """
        if self.is_local:
            return _create_local(local_path(path), text.encode())
        if self.scheme in S3_SCHEMES:
            return self._create_s3(path, text.encode())
        return bool(self.file_io.try_to_write_atomic(path, text))

    def replace_file(self, path: str, text: str) -> None:
        """Write a file whether it is there or not; nobody ever sees half of it.

        Raises:
            OSError: the store failed.
        """
        if not self.is_local:
            self.file_io.overwrite_file_utf8(path, text)
            return
        target = local_path(path)
        draft = _draft(target, text.encode())
        draft.replace(target)
        sync(target.parent)

    @cached_property
    def _client(self) -> Any:
        try:
            import botocore.session
            from botocore.config import Config
        except ImportError as error:
            raise ConfigError(f"{self.place}: needs botocore: pip install 'vector-assets[paimon]'") from error
        style = "path" if self.login.path_style else "virtual"
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.login.url,
            aws_access_key_id=self.login.access_key,
            aws_secret_access_key=self.login.secret_key,
            aws_session_token=self.login.session_token,
            region_name=self.login.region or "us-east-1",
            config=Config(
                s3={"addressing_style": style}, connect_timeout=10, read_timeout=60, retries={"max_attempts": 1}
            ),
        )

    def _create_s3(self, path: str, data: bytes) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        url = urlparse(path if "://" in path else f"s3://{path}")
        try:
            self._client.put_object(Bucket=url.netloc, Key=url.path.lstrip("/"), Body=data, IfNoneMatch="*")
        except ClientError as error:
            code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            # 409: another conditional request for the key is under way
            if code in {409, 412}:
                return False
            raise OSError(f"{path}: {error}") from error
        except BotoCoreError as error:
            raise OSError(f"{path}: timed out or refused: {error}") from error
        return True

    def creates_exclusively(self) -> bool:
        """True when the store was seen to refuse a file that exists, so that of two commits only one can win."""
        if self.is_local:
            return True
        if self.scheme not in S3_SCHEMES:
            return False
        probe = f"{self.path}/.vector_assets-{uuid.uuid4()}"
        with translated(self.place):
            try:
                return self.create_file(probe, "1") and not self.create_file(probe, "2")
            finally:
                self.file_io.delete_quietly(probe)


def local_path(path: str) -> Path:
    """The path of a `file:` URL or of a plain path."""
    parsed = urlparse(path)
    return Path(parsed.path if parsed.scheme else path)


def _draft(path: Path, data: bytes) -> Path:
    """A file beside `path` that holds `data` for good."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4()}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _create_local(path: Path, data: bytes) -> bool:
    draft = _draft(path, data)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    sync(path.parent)
    return True


def sync(path: Path) -> None:
    """Force a file or a folder out to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems know no fsync of a folder
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def properties_of(snapshot: "Snapshot | None") -> Mapping[str, str]:
    """What a snapshot's writer noted in it."""
    return dict(snapshot.properties or {}) if snapshot is not None else {}
