from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from search.pareto import Candidate, ParetoFront
from search.space import SubnetConfig
from service.reports.charts import Axis, Chart, Guide, Series, rounded
from service.reports.effects import effects_of, waterfalls
from service.reports.fronts import front_of, hypervolumes

SUBNET = SubnetConfig(layers=(0,), num_heads=(1,), ffn_dim=(8,))


def chart() -> Chart:
    return Chart(
        key="c",
        title="A chart",
        caption="It shows.",
        x=Axis(label="latency", unit="ms"),
        y=Axis(label="accuracy", form="percent"),
        series=[
            Series(label="dots", mark="points", x=[1.0, 2.0], y=[0.5, 0.75], names=["a", "b"]),
            Series(
                label="ways", mark="links", x=[1.0], y=[0.5], x_to=[3.0], y_to=[0.25], names=["w"]
            ),
            Series(label="ranges", mark="points", x=[4.0], y=[0.5], low=[0.4], high=[0.6]),
        ],
        guides=[Guide(axis="x", value=2.5, label="budget")],
    )


def test_the_table_has_every_point_and_every_guide() -> None:
    assert chart().columns == [
        *("series", "name", "latency, ms (from)", "latency, ms (to)"),
        *("accuracy (from)", "accuracy (to)", "from", "to"),
    ]
    assert list(chart().rows()) == [
        ["dots", "a", "1", "", "50.00%", "", "", ""],
        ["dots", "b", "2", "", "75.00%", "", "", ""],
        ["ways", "w", "1", "3", "50.00%", "25.00%", "", ""],
        ["ranges", "", "4", "", "50.00%", "", "40.00%", "60.00%"],
        ["budget", "", "2.5", "", "", "", "", ""],
    ]


def test_pages_of_the_table_are_the_table() -> None:
    every = list(chart().rows())
    for size in range(1, 7):
        pages = [chart().rows(start, start + size) for start in range(0, len(every), size)]
        assert [row for page in pages for row in page] == every


def test_places_of_categories_are_told_by_name() -> None:
    axis = Axis(label="stage", categories=["first", "second"])
    assert [axis.show(0.0), axis.show(1.0)] == ["first", "second"]


def test_lists_of_another_length_are_refused() -> None:
    with pytest.raises(ValidationError, match="1 y for 2 x"):
        Series(label="dots", mark="points", x=[1.0, 2.0], y=[0.5])


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        rounded([1.0, float("nan")])


def test_neighbours_that_mean_the_same_have_one_entry_in_the_legend() -> None:
    def series(label: str, mark: str, role: str) -> Series:
        return Series.model_validate(
            {"label": label, "mark": mark, "role": role, "x": [1.0], "y": [1.0]}
        )

    drawn = chart().model_copy(
        update={
            "series": [
                series("search", "points", "search"),
                series("search: front", "step", "search"),
                series("upper", "line", "faint"),
                series("lower", "line", "faint"),
            ]
        }
    )
    assert [entry.label for entry in drawn.legend] == ["search", "upper", "lower"]


@pytest.mark.parametrize("seed", range(20))
def test_the_front_and_its_volume_are_those_of_the_search(seed: int) -> None:
    rng = random.Random(seed)
    places = [(rng.choice([0.5, 1.0, 2.0, rng.random() * 4]), rng.random()) for _ in range(60)]
    places += places[:5]
    limits = {"slowest_ms": 3.0, "chance": 0.3, "best": 1.0}
    volumes = hypervolumes(places, **limits)
    assert len(volumes) == len(places)
    for count in (1, 2, 10, len(places)):
        front = ParetoFront.of(
            Candidate(subnet=SUBNET, latency_ms=ms, quality=quality)
            for ms, quality in places[:count]
        )
        volume = front.hypervolume(reference_latency_ms=3.0, reference_quality=0.3)
        assert volumes[count - 1] == pytest.approx(volume / (3.0 * 0.7))
    assert front_of(places) == [(c.latency_ms, c.quality) for c in front]


def test_a_stage_that_was_taken_back_is_told_and_not_drawn() -> None:
    stages = [
        {"stage": "search", "quality": 0.7, "latency_ms": 2.0},
        {"stage": "prune", "quality": 0.5, "latency_ms": 1.0, "kept": False, "note": "too much"},
        {"stage": "measure", "quality": 0.75, "latency_ms": 2.5, "size_bytes": 5_000_000},
    ]
    unsearched = {"quality": 0.8, "p50_ms": 8.0, "size_bytes": 20_000_000}
    effects = effects_of({"stages": stages}, unsearched)
    assert [(e.stage, e.kept) for e in effects] == [
        *(("fine-tuned", True), ("found", True), ("prune", False), ("measured", True)),
    ]
    charts = {chart.y.label: chart for chart in waterfalls(effects, 0, "accuracy")}
    latency = charts["p50 latency"]
    assert latency.x.categories == ["fine-tuned", "found", "measured"]
    assert [series.role for series in latency.series] == ["total", "better"]
    assert charts["accuracy"].y.low is not None
    assert "does not begin at 0" in charts["accuracy"].caption
    assert latency.y.low is None
