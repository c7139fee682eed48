"""Which trained supernets may stand in for one of a job's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.shape import ModelShape
from search.space import SearchSpace
from service.client import Client, Rejected
from service.database.db import Database
from service.database.models import Upload
from service.jobs import jobs
from service.steps.step_types import NewStep
from tests.service.serving import upload_both


@pytest.fixture
def spec(client: Client, tmp_path: Path) -> dict[str, Any]:
    return {**upload_both(client, tmp_path), "space": {"precision": ["fp32"]}}


def trained(database: Database, spec: dict[str, Any], kind: str = "search") -> str:
    """A job of `spec` whose supernet has got as far as a step of this kind."""
    with database.write() as session:
        upload = session.get(Upload, spec["model"]["upload"])
        assert upload is not None
        assert upload.summary is not None
        shape = ModelShape.from_dict({**upload.summary["shape"], "num_labels": 2})
        space = SearchSpace.for_shape(shape, "small")
        first = NewStep(kind=kind, input={"space": space.to_dict()})
        return jobs.create_job(session, spec, name="", first=first).id


def refusal(client: Client, spec: dict[str, Any], **parts: Any) -> tuple[str, str]:
    with pytest.raises(Rejected) as caught:
        client.submit({**spec, **parts})
    (error,) = caught.value.problem.errors
    return error.field, error.reason


def test_a_job_may_search_a_trained_supernet_again(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    earlier = trained(database, spec)
    space = {"preset": "small", "precision": ["fp32", "int8"]}
    job = client.submit({**spec, "supernet_of": earlier, "space": space})
    assert job.spec["supernet_of"] == earlier


def test_a_job_that_does_not_exist_or_has_not_trained_is_named(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    assert refusal(client, spec, supernet_of="job_x")[0] == "supernet_of"
    young = trained(database, spec, kind="teacher")
    field, reason = refusal(client, spec, supernet_of=young)
    assert field == "supernet_of"
    assert "has not trained its supernet" in reason


def test_widths_that_were_never_trained_are_refused(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    earlier = trained(database, spec)
    field, reason = refusal(client, spec, supernet_of=earlier, space={"preset": "wide"})
    assert field.startswith("space.")
    assert "trained" in reason


def test_other_data_or_another_cut_need_a_supernet_of_their_own(
    client: Client, database: Database, spec: dict[str, Any], tmp_path: Path
) -> None:
    earlier = trained(database, spec)
    small = {"preset": "small"}
    training = {"max_seq_len": 8}
    field, reason = refusal(client, spec, supernet_of=earlier, space=small, training=training)
    assert (field, "tokens" in reason) == ("supernet_of", True)
    rows = tmp_path / "other.csv"
    rows.write_text("text,label\n" + "".join(f"good {i},{i % 2}\n" for i in range(60)))
    other = {"upload": client.upload_file(rows).id}
    field, reason = refusal(client, spec, supernet_of=earlier, space=small, data=other)
    assert (field, "other files of 'data'" in reason) == ("supernet_of", True)
