"""How the API describes itself, in OpenAPI: names that a generated client is read by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from service.schemas import Problem

BEARER = HTTPBearer(
    scheme_name="apiKey",
    bearerFormat="snug_<id>_<secret>",
    description="A key as `snugnet keys create` or `POST /v1/api-keys` shows it, once",
    auto_error=False,  # the refusal is ours, and a problem like any other
)

METHODS = ("get", "put", "post", "patch", "delete")


def operation_id(route: APIRoute) -> str:
    """`search_jobs_cancel`: what a route is grouped by, then what it does; a generated client
    names its methods so."""
    doing = "list" if route.name == "list_all" else route.name
    return "_".join([*_tags(route.tags), doing]).lower().replace(" ", "_")


def describe(app: FastAPI) -> None:
    """Add what FastAPI does not know: the schema that all errors refer to, and summaries."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(schema.pop("$defs", {}))
        schemas["Problem"] = schema
        for operations in document["paths"].values():
            for method in METHODS:
                if method in operations:
                    operations[method]["summary"] = _summary(operations[method])
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _summary(operation: dict[str, Any]) -> str:
    """ "Search jobs: cancel"."""
    tag = " ".join(_tags(operation.get("tags", ())))
    doing = operation["operationId"].removeprefix(tag.lower().replace(" ", "_") + "_")
    return f"{tag[:1].upper()}{tag[1:]}: {doing.replace('_', ' ')}"


def _tags(tags: Iterable[object]) -> list[str]:
    return [str(tag) for tag in tags]
