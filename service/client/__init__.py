"""The SDK: everything that a program or the command line does over HTTP.

client = Client("http://127.0.0.1:8000", api_key)
model = client.upload_folder(Path("my-model"))
job = client.submit(spec)
for event in client.events(job.id):
    print(event.message)
client.download(job.id, Path("winners"))
"""

from service.client.connection import sha256_of
from service.client.errors import (
    ApiError,
    Conflict,
    Corrupted,
    NotAllowed,
    NotFound,
    Rejected,
    Unreachable,
)
from service.client.sync import Client

__all__ = [
    "ApiError",
    "Client",
    "Conflict",
    "Corrupted",
    "NotAllowed",
    "NotFound",
    "Rejected",
    "Unreachable",
    "sha256_of",
]
