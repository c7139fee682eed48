"""The tables of `benchmarks.combinations` as Markdown, within a page that keeps its prose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.combinations_figure import draw_combinations

BEGIN = "<!-- tables: python -m benchmarks.combinations --from-results -->"
END = "<!-- end of the tables -->"
TITLES = {
    "bert": "BERT: MiniLM on movie sentences",
    "vit": "ViT: pictures",
    "decoder": "Decoder: Python's own modules",
}
GROUPS = {
    "alone": "Alone",
    "pair": "Two techniques",
    "order": "Orders",
    "search": "Searched in a supernet",
}
NEW_PAGE = f"""# What compression techniques do together

Each technique alone, in pairs, and in the orders that papers argue about, on one model of each
family. *Layers* halves the depth (those whose loss does least damage go), *widths* halves the
FLOPs by removing heads and neurons, so that what has both is a quarter of the original. Every
recipe that trains has the same number of steps, divided among its stages; *distil* is soft
labels and hidden states of the original, *labels* the training labels alone. "More training,
nothing else" is the control: what it gains, any recipe gains that trains.

Quality is that of the exported file on the test split, with the paired 95 % interval of its
difference from the original on the same rows (of each recipe by itself, not of all at once). *MB
on paper* is what the weights take in their format; ternary weights, which no runtime here reads,
are timed and weighed as files of the rounded weights in fp32. Zeros do not make a file
smaller until it is packed. A searched network starts from the weights of a supernet, whose
training is not counted in the budget: it is shared by every budget and device.

{BEGIN}
{END}
"""


def write_page(figures: Mapping[str, Any], path: Path) -> None:
    """Puts tables and pictures into the page, and leaves what people wrote around them.

    Raises:
        ValueError: the page has lost the marks between which they stand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.is_file() else NEW_PAGE
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} lacks {BEGIN!r} or, after it, {END!r}")
    tables = "\n".join(_tables(figures["families"], path))
    path.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", encoding="utf-8")


def numbered(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """Recipes that were judged, by the numbers that tables and pictures give them; the original
    is 0."""
    return list(enumerate((one for one in recipes if "refused" not in one), start=1))


def _tables(families: Mapping[str, Mapping[str, Any]], path: Path) -> Iterator[str]:
    for name, family in families.items():
        picture = path.with_name(f"combinations-{name}.png")
        draw_combinations(
            family, picture, title=TITLES[name], numbered=numbered(family["recipes"])
        )
        yield f"## {TITLES[name]}"
        yield ""
        yield from _described(family)
        yield ""
        yield f"![quality against latency and size]({picture.name})"
        yield ""
        yield from _table(family)
        yield ""
        if left_out := list(_left_out(family)):
            yield from (*left_out, "")


def _described(family: Mapping[str, Any]) -> Iterator[str]:
    workload, found = family["workload"], family["searched"]
    yield (
        f"{family['rows']['train']:,} rows to learn from, {family['rows']['test']:,} to judge by. "
        f"Every recipe that trains does so for {family['steps_of_a_recipe']:,} steps. Latency: "
        f"p50 of the ONNX file, {workload['seq_len']} tokens, batch {workload['batch_size']}, one "
        f"thread, all in one session. The supernet behind searched networks took "
        f"{found['supernet_steps']:,} steps and {found['evaluations']} evaluations a search "
        "besides."
    )


def _left_out(family: Mapping[str, Any]) -> Iterator[str]:
    for one in family["recipes"]:
        if "refused" in one:
            yield f"- Refused: *{one['name']}* ({one['refused']})."
    for way in family["searched"]["found_nothing"]:
        yield f"- The search by {way} found nothing as cheap as it was asked for."


def _table(family: Mapping[str, Any]) -> Iterator[str]:
    unit = "% of perplexity" if family["metric"] == "log_likelihood" else "points"
    yield (
        f"| # | recipe | quality | against the original, {unit} [95 %] | p50 ms | x faster "
        "| FLOPs | MB | MB gzipped | MB on paper |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    original = family["original"]
    yield _row(0, "**the original**", original, original, family["metric"])
    group = None
    for number, one in numbered(family["recipes"]):
        if one["group"] != group:
            group = one["group"]
            yield f"| | **{GROUPS[group]}** | | | | | | | | |"
        yield _row(number, one["name"], one, original, family["metric"])


def _row(
    number: int, name: str, one: Mapping[str, Any], original: Mapping[str, Any], metric: str
) -> str:
    sizes = (f"{one[kind] / 1e6:.2f}" for kind in ("file_bytes", "gzip_bytes", "paper_bytes"))
    cells = (
        str(number),
        name,
        one["shown"].removeprefix("perplexity "),
        "" if one is original else _difference(one["against_original"], metric),
        f"{one['p50_ms']:.3f}",
        f"{one['speedup']:.2f}",
        f"{one['flops'] / original['flops']:.0%}",
        *sizes,
    )
    return f"| {' | '.join(cells)} |"


def _difference(found: Mapping[str, float], metric: str) -> str:
    def shown(value: float) -> float:
        return 100 * (math.exp(-value) - 1 if metric == "log_likelihood" else value)

    middle = shown(found["difference"])
    lower, upper = sorted((shown(found["lower"]), shown(found["upper"])))
    return f"{middle:+.1f} [{lower:+.1f}, {upper:+.1f}]"
