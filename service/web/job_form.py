"""The form of a new job: what was typed, as a job spec, and what is wrong with it, by field.

A field is called as its place in the spec: `targets[0].workload.seq_len`. What was left empty is
left out, so that the service's own defaults hold and its own checks speak.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from starlette.datastructures import QueryParams

from search.errors import InvalidInput
from service.jobs.job_spec import JobSpec, TargetSpec
from service.validation import field_errors

MAX_TARGETS = 8
MS, SHARE = "ms", "share"
MORE = "more"
"""The field of whatever has no field of its own, as YAML."""
PART = re.compile(r"[a-z_0-9]+")
TARGET = re.compile(r"targets\[([0-7])\]\.(.+)")
BUDGETS = ("budget_ms", "budget_ratio")
LISTS = ("exports",)

LABELS = {
    "name": "Name",
    "task": "Task",
    "model.upload": "Model",
    "data.upload": "Data",
    "data.text": "Texts",
    "data.text_pair": "Second texts",
    "data.label": "Labels",
    "data.image": "Images",
    "exports": "Formats beside ONNX",
    "labels": "Labels",
    MORE: "Anything else, as YAML",
}
SETTINGS: dict[str, dict[str, str]] = {
    "Search": {
        "space.preset": "Space of networks",
        "search.population": "Networks of a generation",
        "search.generations": "Generations",
        "search.sampler": "Sampler",
        "search.fidelity_rows": "Rows to judge a network on",
    },
    "Training": {
        "training.max_seq_len": "Tokens of a text",
        "training.batch_size": "Batch size",
        "training.learning_rate": "Learning rate",
        "training.teacher_epochs": "Epochs of fine-tuning",
        "training.supernet_epochs": "Epochs of the supernet",
        "training.distill_epochs": "Epochs of distilling a winner",
    },
    "Measuring": {
        "measuring.num_networks": "Networks to measure",
        "measuring.max_minutes": "Minutes at most",
        "measuring.max_age_hours": "Hours that a predictor is trusted",
        "robustness.rows": "Rows for the robustness report",
        "seed": "Seed",
    },
}
"""What has a field beside model, data and targets, under its heading."""
TARGET_LABELS = {
    "device": "Device",
    "budget": "Latency at most",
    "statistic": "Statistic",
    "workload.runtime": "Runtime",
}
TARGET_SETTINGS = {
    "workload.batch_size": "Batch size",
    "workload.seq_len": "Tokens",
    "workload.threads": "Threads",
    "min_quality": "Lowest quality",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A field that the spec describes itself.

    Attributes:
        default: as it is shown where nothing was typed.
        choices: of a field with a few values.
    """

    path: str
    label: str
    help: str
    default: str
    choices: tuple[str, ...]


class JobForm:
    """What was typed.

    Attributes:
        num_targets: so many have fields, at least one.
    """

    def __init__(self, fields: Iterable[tuple[str, str]] = (), *, num_targets: int = 1) -> None:
        given = list(fields)
        self._values = {name: value.replace("\r\n", "\n") for name, value in given}
        self._lists = {key: [v for name, v in given if name == key] for key in LISTS}
        used = [int(found[1]) + 1 for name, _ in given if (found := TARGET.fullmatch(name))]
        self.num_targets = min(MAX_TARGETS, max([num_targets, *used]))

    @classmethod
    def of(cls, fields: QueryParams) -> JobForm:
        return cls(fields.multi_items())

    def value(self, name: str) -> str:
        """As it was typed."""
        return self._values.get(name, "")

    def has(self, name: str, value: str) -> bool:
        """Of a field with several values, whether this is one of them."""
        return value in self._lists.get(name, ())

    def with_target(self) -> JobForm:
        """One more, which begins as the last one is."""
        last, new = f"targets[{self.num_targets - 1}]", f"targets[{self.num_targets}]"
        if self.num_targets >= MAX_TARGETS:
            return self
        copied = [
            (name.replace(last, new), value)
            for name, value in self._items()
            if name.startswith(last) and not name.endswith(".budget")
        ]
        return JobForm([*self._items(), *copied], num_targets=self.num_targets + 1)

    def without_target(self, index: int) -> JobForm:
        kept = []
        for name, value in self._items():
            found = TARGET.fullmatch(name)
            place = int(found[1]) if found else -1
            if found is not None and place > index:
                kept.append((f"targets[{place - 1}].{found[2]}", value))
            elif place != index:
                kept.append((name, value))
        return JobForm(kept, num_targets=max(1, self.num_targets - 1))

    def spec(self) -> JobSpec:
        """Raises: FormErrors."""
        try:
            content = self._content()
        except InvalidInput as error:
            raise FormErrors([error], self) from None
        try:
            return JobSpec.model_validate(content)
        except ValidationError as error:
            raise FormErrors(field_errors(error.errors(), JobSpec), self) from None

    def _items(self) -> list[tuple[str, str]]:
        single = [(k, v) for k, v in self._values.items() if k not in LISTS]
        return single + [(key, value) for key, values in self._lists.items() for value in values]

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = {"targets": [{} for _ in range(self.num_targets)]}
        for name, typed in self._values.items():
            value = typed.strip()
            found = TARGET.fullmatch(name)
            if not value or name in LISTS:
                continue
            if found is not None:
                _put_target(content["targets"][int(found[1])], found[2], value, self, name)
            elif name == "labels":
                content["labels"] = _read_labels(value)
            elif name in _own_fields():
                _put(content, name, value)
        content |= {key: values for key, values in self._lists.items() if values}
        return _merged(content, _read_more(self.value(MORE)))


class FormErrors(Exception):
    """What is wrong with a form; `by_field` as its fields are called, `other` of none of them."""

    def __init__(self, errors: Iterable[InvalidInput], form: JobForm) -> None:
        super().__init__()
        self.by_field: dict[str, str] = {}
        self.other: list[str] = []
        for error in errors:
            name, reason = _place(error, form), _reason(error, form)
            if name is None:
                self.other.append(f"{error.field}: {reason}")
            else:
                self.by_field.setdefault(name, f"{reason[:1].upper()}{reason[1:]}.")


def as_yaml(spec: JobSpec) -> str:
    """A job file: what was asked for, without defaults."""
    return yaml.safe_dump(_asked(spec), sort_keys=False, allow_unicode=True, width=90)


def as_curl(spec: JobSpec, url: str) -> str:
    """The same job as a command, for a server at `url`; the key comes from the environment."""
    body = json.dumps(_asked(spec), indent=2, ensure_ascii=False)
    return (
        f"curl --fail-with-body {url}/v1/search-jobs \\\n"
        '  --header "Authorization: Bearer $SNUGNET_API_KEY" \\\n'
        '  --header "Content-Type: application/json" \\\n'
        f"  --data-binary @- <<'JOB'\n{body}\nJOB"
    )


def label_of(name: str) -> str:
    """What the form calls a field: "Target 0: Tokens"."""
    target = TARGET.fullmatch(name)
    if target is not None:
        label = (TARGET_LABELS | TARGET_SETTINGS).get(target[2], target[2])
        return f"Target {target[1]}: {label}"
    known = [LABELS, *SETTINGS.values()]
    return next((labels[name] for labels in known if name in labels), name)


def settings(heading: str) -> list[Setting]:
    return [_setting(path, label) for path, label in SETTINGS[heading].items()]


def target_settings(index: int) -> list[Setting]:
    return [
        _setting(f"targets[{index}].{path}", label, TargetSpec, path)
        for path, label in TARGET_SETTINGS.items()
    ]


def _setting(
    name: str, label: str, model: type[BaseModel] = JobSpec, path: str | None = None
) -> Setting:
    field = _field_at(model, path or name)
    is_choice = get_origin(field.annotation) is Literal
    return Setting(
        path=name,
        label=label,
        help=" ".join((field.description or "").replace("`", "").split()),
        default="" if field.default is None else f"{field.default}",
        choices=tuple(map(str, get_args(field.annotation))) if is_choice else (),
    )


def _field_at(model: type[BaseModel], path: str) -> FieldInfo:
    *parents, last = path.split(".")
    for parent in parents:
        annotation = model.model_fields[parent].annotation
        assert isinstance(annotation, type), path
        assert issubclass(annotation, BaseModel), path
        model = annotation
    return model.model_fields[last]


@cache
def _own_fields() -> frozenset[str]:
    apart = {"labels", MORE, *LISTS}
    return frozenset(LABELS.keys() - apart).union(*SETTINGS.values())


def _put(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = value


def _put_target(target: dict[str, Any], path: str, value: str, form: JobForm, name: str) -> None:
    if path == "budget":
        is_share = form.value(f"{name}_unit") == SHARE
        target["budget_ratio" if is_share else "budget_ms"] = (
            _percent(value) if is_share else value
        )
    elif path != "budget_unit" and all(PART.fullmatch(part) for part in path.split(".")):
        _put(target, path, value)


def _percent(text: str) -> Any:
    """As a share; what is no number stays as it is, for the spec to refuse."""
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        return text


def _read_labels(text: str) -> dict[str, str]:
    labels = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise InvalidInput("labels", f"must be key=value on each line, got {line!r}")
        labels[key.strip()] = value.strip()
    return labels


def _read_more(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidInput(MORE, f"is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InvalidInput(MORE, "must hold keys and values, such as `supernet_of: job_...`")
    return found


def _merged(content: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in `more` holds; parts that both have are merged."""
    found = dict(content)
    for key, value in more.items():
        ours = found.get(key)
        both = isinstance(ours, dict) and isinstance(value, dict)
        found[key] = _merged(ours, value) if both and ours is not None else value
    return found


def _place(error: InvalidInput, form: JobForm) -> str | None:
    """The field that an error is shown beside; None where it is of none."""
    field = error.field
    found = TARGET.fullmatch(field)
    if found is not None and int(found[1]) < form.num_targets:
        path = "budget" if found[2] in BUDGETS else found[2]
        if path in TARGET_LABELS | TARGET_SETTINGS:
            return f"targets[{found[1]}].{path}"
    if field in _own_fields() or field == MORE:
        return field
    if field in ("model", "data"):
        return f"{field}.upload"
    first = re.split(r"[.\[]", field)[0]
    if first in ("labels", *LISTS):
        return first
    return MORE if form.value(MORE).strip() else None


def _reason(error: InvalidInput, form: JobForm) -> str:
    place = _place(error, form)
    if place is None or place == MORE:
        return error.reason if error.field == MORE else f"{error.field} {error.reason}"
    typed = form.value(place).strip()
    if place.endswith(".budget") and not typed:
        return "say how long an inference may take"
    if place.endswith(".budget") and error.field.endswith(".budget_ratio"):
        return "must be above 0 and at most 100 percent"
    if place.endswith(".upload") and not typed:
        return "choose one, or upload files"
    return error.reason


def _asked(spec: JobSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_unset=True)
