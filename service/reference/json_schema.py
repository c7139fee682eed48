"""JSON schemas as tables of their fields."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.reference.markdown import code, prose, table

LIMITS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true`, `false`",
    "object": "object",
    "null": "nothing",
}


@dataclass(frozen=True, slots=True)
class Schemas:
    """Definitions by name, and the anchors of those that a page describes."""

    definitions: Mapping[str, Any]
    anchors: Mapping[str, str] = field(default_factory=dict)

    def kind(self, schema: Mapping[str, Any]) -> str:
        """What a value may be, in a few words."""
        if "$ref" in schema:
            return self._reference(schema["$ref"].rsplit("/", 1)[-1])
        if "const" in schema:
            return code(schema["const"])
        if "enum" in schema:
            return ", ".join(map(code, schema["enum"]))
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                kinds = [self.kind(one) for one in schema[key] if one.get("type") != "null"]
                return " or ".join(dict.fromkeys(kinds))
        if schema.get("type") == "array":
            return f"list of {self.kind(schema.get('items', {}))}"
        if isinstance(schema.get("additionalProperties"), Mapping):
            return f"object of {self.kind(schema['additionalProperties'])}"
        limits = [f"{sign} {schema[key]}" for key, sign in LIMITS.items() if key in schema]
        kind = KINDS.get(schema.get("type", ""), "anything")
        return f"{kind} {', '.join(limits)}".strip()

    def _reference(self, name: str) -> str:
        if name in self.anchors:
            return f"[{name}](#{self.anchors[name]})"
        definition = self.definitions[name]
        return self.kind(definition) if "properties" not in definition else name


def fields_of(
    schema: Mapping[str, Any], schemas: Schemas, leaving_out: Collection[str] = ()
) -> str:
    """Empty where it has none."""
    required = schema.get("required", ())
    rows = (
        (
            code(name),
            schemas.kind(one),
            "required" if name in required else default_of(one),
            prose(one.get("description", "")),
        )
        for name, one in schema.get("properties", {}).items()
        if name not in leaving_out
    )
    return table(("key", "value", "default", "is"), rows)


def default_of(schema: Mapping[str, Any]) -> str:
    """Empty where it is none, or another object whose fields tell theirs."""
    value = schema.get("default")
    if value is None or value in ([], {}, "") or isinstance(value, Mapping):
        return ""
    return code(value if isinstance(value, str) else json.dumps(value))
