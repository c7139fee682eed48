"""Tables of a model card: what each stage of a recipe did, and how answers hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]


def recipe_section(recipe: Found) -> str:
    """Every stage with its figures before and after, whether it was kept, and why."""
    stages = recipe["stages"]
    parts = [
        "## Compression",
        "Stages in their order; figures before and after each, quality on the validation split, "
        "latency predicted. "
        + f"A stage was kept if it lowers {recipe['cost']} or raises quality, at no more than "
        + f"{recipe['max_loss']:g} of quality for all of them.",
        _table(
            ("stage", "kept", "quality", "latency, ms", "ONNX, bytes", "parameters", "zeros"),
            [_costs(stage) for stage in stages],
        ),
        _table(
            ("stage", "FLOPs", "peak memory, bytes", "settings", "why"),
            [_more(stage) for stage in stages],
        ),
    ]
    if any(stage["before"]["robustness"] for stage in stages):
        parts.append("How answers hold before and after each stage:")
        parts.append(_stages_robustness(stages))
    return "\n\n".join(parts)


def robustness_section(columns: Mapping[str, Found | None]) -> str:
    """Measures of several files side by side, by the title of each; nothing where there are none.

    A measure that could not be had, or says nothing of such a file, is a dash.
    """
    found = {title: _cells(of) for title, of in columns.items() if of}
    rows = list(dict.fromkeys(name for cells in found.values() for name in cells))
    if not rows:
        return ""
    body = [(name, *(cells.get(name, "-") for cells in found.values())) for name in rows]
    return "\n\n".join(
        [
            "## How its answers hold",
            "On the same rows of the test split, one at a time, in ONNX Runtime; `metrics.json` "
            "has intervals.",
            _table(("", *found), body),
        ]
    )


def _stages_robustness(stages: Sequence[Found]) -> str:
    changes = [
        _changes(
            _cells(stage["before"]["robustness"] or {}),
            _cells((stage["after"] or {}).get("robustness") or {}),
        )
        for stage in stages
    ]
    names = list(dict.fromkeys(name for change in changes for name in change))
    titles = [stage["stage"]["kind"] for stage in stages]
    body = [(name, *(change.get(name, "-") for change in changes)) for name in names]
    return _table(("", *titles), body)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    names = dict.fromkeys([*before, *after])
    return {name: f"{before.get(name, '-')} → {after.get(name, '-')}" for name in names}


# --- cells --------------------------------------------------------------------------------------


def _costs(stage: Found) -> tuple[str, ...]:
    return (
        stage["stage"]["kind"],
        "yes" if stage["is_kept"] else "no",
        _change(stage, "quality", "{:.4f}".format),
        _change(stage, "latency_ms", "{:.3f}".format),
        _change(stage, "file_bytes", str),
        _change(stage, "num_params", str),
        _change(stage, "num_zeros", str),
    )


def _more(stage: Found) -> tuple[str, ...]:
    settings = {name: value for name, value in stage["stage"].items() if name != "kind"}
    return (
        stage["stage"]["kind"],
        _change(stage, "flops", str),
        _change(stage, "peak_memory_bytes", str),
        ", ".join(f"{name} {value}" for name, value in settings.items()),
        stage["reason"].replace("|", "\\|"),
    )


def _change(stage: Found, name: str, show: Callable[[Any], str]) -> str:
    before, after = (
        "-" if figures is None or figures[name] is None else show(figures[name])
        for figures in (stage["before"], stage["after"])
    )
    return before if before == after else f"{before} → {after}"


def _cells(robustness: Found) -> dict[str, str]:
    """Of one file, a figure for each line; measures that failed are left out."""
    cells: dict[str, str] = {}
    for name, write in _LINES.items():
        found = robustness.get(name)
        if found and "error" not in found:
            cells |= write(found)
    return cells


def _noise(found: Found) -> dict[str, str]:
    what = found["kind"]
    levels = {f"{100 * v['rate']:g} % of {what} disturbed": v["quality"] for v in found["levels"]}
    return {
        name: f"{value:.4f}"
        for name, value in {"quality, clean": found["clean"], **levels}.items()
    }


def _bit_flips(found: Found) -> dict[str, str]:
    return {
        f"bits flipped, one in {round(1 / level['rate']):,}": f"{level['quality']:.4f}"
        for level in found["levels"]
    }


def _word_swaps(found: Found) -> dict[str, str]:
    survived = found["survived"]
    return {
        "right answers that survive word swaps": "-" if survived is None else f"{survived:.1%}"
    }


_LINES: Mapping[str, Callable[[Found], dict[str, str]]] = {
    "noise": _noise,
    "calibration": lambda found: {"calibration error": f"{found['calibration_error']:.4f}"},
    "agreement": lambda found: {"agreement with the unsearched model": f"{found['share']:.1%}"},
    "bit_flips": _bit_flips,
    "word_swaps": _word_swaps,
}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
