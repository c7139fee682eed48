"""What selects offer."""

from __future__ import annotations

from dataclasses import dataclass

from service.database.models import Upload
from service.web.formats import as_bytes, as_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    value: str
    label: str


def model_choice(upload: Upload) -> Choice:
    summary = upload.summary or {}
    shape = summary.get("shape") or {}
    told = (
        f"{shape.get('family', 'model')}, {shape.get('num_layers')} layers of "
        f"{shape.get('embed_dim')}, {as_bytes(summary.get('size_bytes'))}"
    )
    return Choice(value=upload.id, label=f"{told} ({upload.id})")


def data_choice(upload: Upload, name: str | None) -> Choice:
    told = f"{name or 'data'}, {as_count((upload.summary or {}).get('num_rows'))} rows"
    return Choice(value=upload.id, label=f"{told} ({upload.id})")
