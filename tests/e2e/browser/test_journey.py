"""From the form to the files."""

from __future__ import annotations

from collections import Counter

import pytest

from service.client import Client
from service.schemas import JobState
from tests.e2e.browser.journey import NAME, Journey

pytestmark = pytest.mark.browser

NOT_EVALUATED = (": front", "winners", "unsearched", "budget")


def test_a_job_made_by_the_form_is_the_one_that_was_filled_in(
    journey: Journey, client: Client
) -> None:
    job = client.job(journey.job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.name == NAME
    assert [target["budget_ratio"] for target in job.spec["targets"]] == [1.0, 0.9]
    assert job.spec["search"]["generations"] == 6
    assert job.spec["space"]["ffn_dim"] == [16, 32, 64]


def test_the_form_says_beside_the_field_what_is_wrong_with_it(journey: Journey) -> None:
    assert "how long an inference may take" in journey.refusal


def test_an_api_killed_amid_the_search_loses_and_doubles_no_point_of_the_front(
    journey: Journey, client: Client
) -> None:
    """The page was open all the time: its table against what the API says was evaluated."""
    assert journey.was_away
    assert not journey.was_reloaded
    evaluated = client.evaluations(journey.job_id)
    told = Counter(
        (one.source, one.fingerprint, f"{one.metrics['latency_ms']:.6g}") for one in evaluated
    )
    shown: Counter[tuple[str, str, str]] = Counter()
    for (series, name, latency), times in journey.points.items():
        if not any(part in series for part in NOT_EVALUATED):
            shown[source_of(series), name, latency] += times
    assert shown == told
    assert {source for source, _, _ in told} == {"search", "random", "uniform", "flops"}
    print(f"{sum(told.values())} points, none lost, none doubled")


def source_of(series: str) -> str:
    """Of the legend's words, of which the others have "search" among them."""
    words = ("random", "uniform", "flops", "search")
    return next(word for word in words if word in series.lower())


def test_the_table_has_as_many_points_as_the_picture(journey: Journey) -> None:
    assert journey.num_rows == journey.num_drawn > 0


def test_what_is_downloaded_is_what_the_page_and_the_api_say(
    journey: Journey, client: Client
) -> None:
    told = {artifact.sha256 for artifact in client.artifacts(journey.job_id)}
    assert any(name.endswith(".onnx") for name in journey.downloads)
    for name, (shown, downloaded) in journey.downloads.items():
        assert shown == downloaded, name
        assert downloaded in told, name
    print(f"{len(journey.downloads)} files downloaded and verified")


def test_the_browser_complained_of_nothing_but_the_lost_connection(journey: Journey) -> None:
    assert journey.errors == []
