"""Which store the settings name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.settings import Settings
from service.store.cache import BlobCache
from service.store.filesystem import FilesystemStore
from service.store.protocol import ArtifactStore


def open_store(settings: Settings) -> ArtifactStore:
    """Not asked yet whether it can be used: see `ArtifactStore.check`."""
    url = settings.artifacts_url
    if urlsplit(url).scheme == "s3":
        from service.store.s3 import S3Store

        return S3Store.from_url(url, cache=_cache(settings), endpoint_url=settings.s3_endpoint_url)
    root = Path(unquote(urlsplit(url).path)) if url else settings.blobs_dir
    return FilesystemStore(root, reserve_bytes=settings.reserve_bytes)


def _cache(settings: Settings) -> BlobCache:
    return BlobCache(
        settings.data_dir / "cache",
        limit_bytes=settings.cache_bytes,
        # No step and no request lasts longer with a path that it was given.
        keep_seconds=2 * settings.step_limit_seconds,
        reserve_bytes=settings.reserve_bytes,
    )
