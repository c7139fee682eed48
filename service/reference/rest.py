"""The API, from its own description."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from service import openapi
from service.reference.json_schema import Schemas, default_of, fields_of
from service.reference.markdown import code, page, prose, table

INTRODUCTION = """\
Everything is JSON under `/v1`, described by [openapi.json](../openapi.json) too, from which
clients for other languages can be made. Calls carry `Authorization: Bearer <API key>`. Errors
are `application/problem+json` as RFC 9457 has it, each with a stable `code`, the fields at fault
and a `request_id`; POSTs may carry an `Idempotency-Key`, and then take effect once."""
IN_HEADINGS = ("get", "post", "put", "patch", "delete", "head")
# Of nearly every call, and told once above.
SILENT = ("idempotency-key",)


def document() -> str:
    api: dict[str, Any] = json.loads(openapi.document())
    definitions = api["components"]["schemas"]
    objects = {name: s for name, s in definitions.items() if "properties" in s}
    schemas = Schemas(definitions, {name: f"schema-{name.lower()}" for name in objects})
    groups: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = defaultdict(list)
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            if method in IN_HEADINGS:
                groups[operation["summary"].partition(":")[0]].append((method, path, operation))
    parts = [INTRODUCTION]
    for group, calls in sorted(groups.items()):
        parts.append(f"## {group}")
        for method, path, operation in calls:
            parts += [f"### {method.upper()} {path}", *_described(operation, schemas)]
    parts.append("## Objects")
    for name, schema in sorted(objects.items()):
        parts += [f"### {name} {{ #schema-{name.lower()} }}", prose(schema.get("description", ""))]
        parts.append(fields_of(schema, schemas))
    return page("REST", *parts)


def _described(operation: Mapping[str, Any], schemas: Schemas) -> Iterator[str]:
    yield prose(operation.get("description") or operation["summary"])
    yield table(
        ("parameter", "in", "value", "default", "is"),
        (
            (
                code(one["name"]),
                one["in"],
                schemas.kind(one["schema"]),
                "required" if one["required"] else default_of(one["schema"]),
                prose(one.get("description", "")),
            )
            for one in operation.get("parameters", ())
            if one["name"].lower() not in SILENT
        ),
    )
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        yield "Body: " + " or ".join(_contents(body, schemas)) + "."
    answers = []
    for status, answer in operation["responses"].items():
        if status < "400":
            told = " or ".join(_contents(answer.get("content", {}), schemas))
            answers.append(f"{status}{' with ' + told if told else ''}")
    yield f"Answers {', '.join(answers)}."


def _contents(content: Mapping[str, Any], schemas: Schemas) -> Iterator[str]:
    for media_type, described in content.items():
        if media_type == "application/json":
            yield schemas.kind(described["schema"])
        else:
            yield code(media_type)
