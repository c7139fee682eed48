"""Reports over HTTP and on the command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.cli.errors import NOT_FOUND
from service.database.models import Tenant
from service.reports.schema import JobReport
from service.settings import Settings
from tests.service.commands import Cli
from tests.service.reports.conftest import served
from tests.service.reports.pages import Page
from tests.service.serving import listening, sdk
from tests.workers.steps.conftest import WholeJob


def path_of(whole_job: WholeJob) -> str:
    return f"/v1/search-jobs/{whole_job.job.id}/report"


def test_it_comes_as_json(http: TestClient, whole_job: WholeJob, report: JobReport) -> None:
    answer = http.get(path_of(whole_job))
    assert answer.status_code == 200
    told = JobReport.model_validate(answer.json())
    same = {"written_at": report.written_at}
    assert told.model_copy(update=same) == report


def test_it_comes_as_a_file_to_be_saved(http: TestClient, whole_job: WholeJob) -> None:
    answer = http.get(path_of(whole_job), params={"format": "html"})
    assert answer.headers["content-type"].startswith("text/html")
    name = f'attachment; filename="report-{whole_job.job.id}.html"'
    assert answer.headers["content-disposition"] == name
    assert "front" in Page(answer.text).charts


def test_another_format_is_refused(http: TestClient, whole_job: WholeJob) -> None:
    answer = http.get(path_of(whole_job), params={"format": "pdf"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["format"]


def test_another_tenant_is_told_that_there_is_no_such_job(whole_job: WholeJob) -> None:
    other = "ten_reader"
    with whole_job.workshop.database.write() as session:
        session.merge(Tenant(id=other, name=other))
    with served(whole_job.workshop, other) as http:
        for form in ("json", "html"):
            answer = http.get(path_of(whole_job), params={"format": form})
            assert answer.status_code == 404
            assert answer.json()["code"] == "not_found"


def test_a_client_reads_both(http: TestClient, whole_job: WholeJob) -> None:
    with sdk(http) as client:
        told = client.report(whole_job.job.id)
        page = client.report_html(whole_job.job.id)
    assert told.id == whole_job.job.id
    assert list(Page(page).charts) == [chart.key for chart in told.charts]


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys)


@pytest.fixture
def _server(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    # A copy: whoever makes a key for tests registers a device too.
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(whole_job.workshop.settings.data_dir / "snugnet.db", folder)
    with listening(Settings(data_dir=folder)) as (url, key):
        monkeypatch.setenv("SNUGNET_URL", url)
        monkeypatch.setenv("SNUGNET_API_KEY", key)
        yield


@pytest.mark.usefixtures("_server")
def test_the_command_line_writes_both_files_and_names_them(
    cli: Cli, whole_job: WholeJob, tmp_path: Path
) -> None:
    job_id = whole_job.job.id
    code, out, _ = cli("report", job_id)
    assert (code, out) == (0, f"report-{job_id}.html\nreport-{job_id}.json\n")
    told = JobReport.model_validate_json((tmp_path / f"report-{job_id}.json").read_text())
    page = Page((tmp_path / f"report-{job_id}.html").read_text())
    assert list(page.charts) == [chart.key for chart in told.charts]
    assert cli("report", job_id, "-o", "there/mine.html")[0] == 0
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"mine.html", "mine.json"}


@pytest.mark.usefixtures("_server")
def test_the_command_line_writes_nothing_for_a_job_that_is_not_there(
    cli: Cli, tmp_path: Path
) -> None:
    code, out, err = cli("report", "job_none", "-o", "mine.html")
    assert (code, out) == (NOT_FOUND, "")
    assert "job_none" in err
    assert not list(tmp_path.glob("*mine*"))


@pytest.mark.usefixtures("_server")
def test_the_command_line_writes_html_only(cli: Cli, whole_job: WholeJob) -> None:
    code, _, err = cli("report", whole_job.job.id, "-o", "report.pdf")
    assert code != 0
    assert "must end with .html" in err
