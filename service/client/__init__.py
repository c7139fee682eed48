"""The SDK: everything that a program or the command line does over HTTP.

with Client("http://127.0.0.1:8000", api_key) as client:
    model = client.upload_folder(Path("my-model"))
    job = client.submit(spec)
    for event in client.stream(job.id):
        print(event.message)
    client.download(job.id, Path("winners"))

`AsyncClient` has the same methods, to be awaited. Requests that the network or a busy server ate
are sent again; a POST is known to the server by its key, and never carried out twice.
"""

from service.client.client import AsyncClient, Client
from service.client.downloads import sha256_of
from service.client.errors import (
    AlreadyDownloading,
    ApiError,
    Conflict,
    Corrupted,
    HasChanged,
    NotAllowed,
    NotFound,
    Rejected,
    Unreachable,
)

__all__ = [
    "AlreadyDownloading",
    "ApiError",
    "AsyncClient",
    "Client",
    "Conflict",
    "Corrupted",
    "HasChanged",
    "NotAllowed",
    "NotFound",
    "Rejected",
    "Unreachable",
    "sha256_of",
]
