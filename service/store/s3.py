"""Blobs as objects of a bucket, with a local cache for those that are read as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from service.store.cache import BlobCache
from service.store.digest import HashingWriter, digest_of
from service.store.protocol import (
    PIECE_BYTES,
    SHA256,
    ArtifactStore,
    BlobDamaged,
    BlobNotFound,
    StoredBlob,
    StoreUnavailable,
    Unfinished,
    check_name,
)

PART_BYTES = 16 * 1024**2
"""Larger files are sent in parts of this size, or of as much as keeps them below `MAX_PARTS`."""
MAX_PARTS = 9_000
MAX_RESUMES = 5
CONNECT_SECONDS = 5
READ_SECONDS = 60
TRIES = 5
_MISSING = ("404", "NoSuchKey", "NotFound")


class S3Store:
    """`<prefix>/ab/<sha256>` in a bucket. Credentials come from the standard AWS_* variables.

    Args:
        cache: where blobs are kept that were asked for by `path`.
        endpoint_url: of a server that is not Amazon's.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        cache: BlobCache,
        endpoint_url: str | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._cache = cache
        self._endpoint_url = endpoint_url
        self._part_bytes = part_bytes

    @classmethod
    def from_url(cls, url: str, *, cache: BlobCache, endpoint_url: str | None) -> S3Store:
        """Of `s3://bucket/prefix`."""
        parts = urlsplit(url)
        return cls(parts.netloc, parts.path, cache=cache, endpoint_url=endpoint_url)

    def check(self) -> None:
        with self._told("look at"):
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except self._client.exceptions.ClientError as error:
                if _code(error) in (*_MISSING, "NoSuchBucket"):
                    raise self._no_bucket() from None
                raise

    def put(self, source: Path, sha256: str | None = None) -> str:
        name = sha256 or digest_of(source).sha256
        size_bytes = source.stat().st_size
        found = self._head(name)
        if found is None or found["ContentLength"] != size_bytes:
            with source.open("rb") as file, self._told("write to"):
                if size_bytes <= self._part_bytes:
                    self._send(file.read(), name)
                else:
                    self._send_in_parts(file, size_bytes, name)
        return name

    def put_bytes(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        with self._told("write to"):
            self._send(content, sha256)
        return sha256

    @contextmanager
    def receive(self, expected_bytes: int = 0) -> Iterator[HashingWriter]:
        # An object is named by its content, which is known at the end.
        with self._cache.temporary_file(expected_bytes) as temporary:
            with temporary.open("wb") as stream:
                writer = HashingWriter(stream)
                yield writer
            self.put(temporary, writer.sha256)

    def path(self, sha256: str) -> Path:
        check_name(sha256)

        def fetch(writer: HashingWriter) -> None:
            for piece in self.open_range(sha256, 0, self.size_bytes(sha256)):
                writer.write(piece)

        return self._cache.get(sha256, lambda: self.size_bytes(sha256), fetch)

    def open_range(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        if start >= stop:
            self.size_bytes(sha256)
            return iter(())
        return self._pieces(sha256, self._open(sha256, start, stop), start, stop)

    def exists(self, sha256: str) -> bool:
        return self._head(sha256) is not None

    def size_bytes(self, sha256: str) -> int:
        found = self._head(sha256)
        if found is None:
            raise BlobNotFound(sha256)
        return int(found["ContentLength"])

    def delete(self, sha256: str) -> None:
        with self._told("delete from"):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(sha256))
        self._cache.remove(sha256)

    def list_blobs(self) -> Iterator[StoredBlob]:
        for found in self._pages("list_objects_v2", "Contents"):
            sha256 = found["Key"].rpartition("/")[2]
            if SHA256.fullmatch(sha256) and found["Key"] == self._key(sha256):
                yield StoredBlob(
                    sha256=sha256,
                    size_bytes=found["Size"],
                    modified_at=found["LastModified"].timestamp(),
                )

    def list_unfinished(self) -> Iterator[Unfinished]:
        """Uploads in parts that nobody completed; their parts are paid for until they go."""
        for upload in self._pages("list_multipart_uploads", "Uploads"):
            parts = self._client.list_parts(
                Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
            yield Unfinished(
                name=f"{upload['Key']}?{upload['UploadId']}",
                size_bytes=sum(part["Size"] for part in parts.get("Parts", ())),
                modified_at=upload["Initiated"].timestamp(),
            )

    def discard(self, unfinished: Unfinished) -> None:
        key, _, upload_id = unfinished.name.partition("?")
        with self._told("delete from"):
            try:
                self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=key, UploadId=upload_id
                )
            except self._client.exceptions.NoSuchUpload:
                return

    # --- sending ---------------------------------------------------------------------------

    def _send(self, content: bytes, sha256: str) -> None:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BlobDamaged(f"what was to be stored as {sha256} is something else")
        self._client.put_object(
            Bucket=self.bucket,
            Key=self._key(sha256),
            Body=content,
            # A server that knows the header compares; another one ignores it.
            ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
        )

    def _send_in_parts(self, file: BinaryIO, size_bytes: int, sha256: str) -> None:
        """Seen by readers when the last part is there and the whole is what its name says."""
        place = {"Bucket": self.bucket, "Key": self._key(sha256)}
        upload = self._client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")
        place["UploadId"] = upload["UploadId"]
        try:
            parts = self._parts_sent(file, size_bytes, sha256, place)
            self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        except BaseException:
            self._client.abort_multipart_upload(**place)
            raise

    def _parts_sent(
        self, file: BinaryIO, size_bytes: int, sha256: str, place: dict[str, str]
    ) -> list[dict[str, Any]]:
        part_bytes = max(self._part_bytes, -(-size_bytes // MAX_PARTS))
        whole = hashlib.sha256()
        parts: list[dict[str, Any]] = []
        while content := file.read(part_bytes):
            whole.update(content)
            checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
            number = len(parts) + 1
            sent = self._client.upload_part(
                **place, PartNumber=number, Body=content, ChecksumSHA256=checksum
            )
            part = {"PartNumber": number, "ETag": sent["ETag"]}
            if "ChecksumSHA256" in sent:
                part["ChecksumSHA256"] = sent["ChecksumSHA256"]
            parts.append(part)
        if whole.hexdigest() != sha256:
            raise BlobDamaged(f"what was to be stored as {sha256} is something else")
        return parts

    # --- reading ---------------------------------------------------------------------------

    def _head(self, sha256: str) -> dict[str, Any] | None:
        key = self._key(sha256)
        with self._told("read"):
            try:
                found: dict[str, Any] = self._client.head_object(Bucket=self.bucket, Key=key)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise
        return found

    def _open(self, sha256: str, start: int, stop: int) -> Any:
        key = self._key(sha256)
        with self._told("read"):
            try:
                found = self._client.get_object(
                    Bucket=self.bucket, Key=key, Range=f"bytes={start}-{stop - 1}"
                )
            except self._client.exceptions.ClientError as error:
                if _code(error) in _MISSING:
                    raise BlobNotFound(sha256) from None
                raise
        return found["Body"]

    def _pieces(self, sha256: str, body: Any, start: int, stop: int) -> Iterator[bytes]:
        """A connection that breaks is opened again where it broke."""
        from botocore.exceptions import BotoCoreError

        for _ in range(MAX_RESUMES):
            try:
                with closing(body):
                    for piece in body.iter_chunks(PIECE_BYTES):
                        start += len(piece)
                        yield piece
            except BotoCoreError as error:
                cause = str(error)
            else:
                cause = "it ended too early"
            if start >= stop:
                return
            body = self._open(sha256, start, stop)
        raise StoreUnavailable(f"reading {sha256} from {self.bucket!r} broke off: {cause}")

    # --- the bucket ------------------------------------------------------------------------

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}{check_name(sha256)[:2]}/{sha256}"

    def _pages(self, operation: str, field: str) -> Iterator[dict[str, Any]]:
        with self._told("list"):
            pages = self._client.get_paginator(operation).paginate(
                Bucket=self.bucket, Prefix=self._prefix
            )
            for page in pages:
                yield from page.get(field, ())

    @cached_property
    def _client(self) -> Any:
        """Made where it is first needed: never carried over into a child process."""
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise StoreUnavailable(
                "this installation cannot use S3 (boto3 is missing); install snugnet[s3]"
            ) from None
        config = Config(
            retries={"mode": "standard", "max_attempts": TRIES},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            # The newer default sends checksums in a form that other servers do not know.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.session.Session().client("s3", endpoint_url=self._endpoint_url, config=config)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Errors of the library as ours: what S3 refuses may be allowed once it is put right."""
        client = self._client
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except client.exceptions.ClientError as error:
            if _code(error) == "NoSuchBucket":
                raise self._no_bucket() from None
            raise StoreUnavailable(f"cannot {doing} the bucket {self.bucket!r}: {error}") from None
        except BotoCoreError as error:
            raise StoreUnavailable(f"cannot {doing} the bucket {self.bucket!r}: {error}") from None

    def _no_bucket(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"there is no bucket {self.bucket!r}; create it, or name another one in "
            "SNUGNET_ARTIFACTS_URL"
        )


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_a_store(store: S3Store) -> ArtifactStore:
    """For the type checker alone."""
    return store
