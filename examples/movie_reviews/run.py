"""The demo: a real search on this machine, from an empty folder to files that keep a budget.

Starts the embedded service, submits the job over REST as any client would, follows it, downloads
what it found, and stops what it started. Interrupted, it goes on where it was when run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from examples.movie_reviews.prepare import model_folder, prepare_data
from service.cli.reports import write_report
from service.cli.watching import watch_job
from service.client import Client
from service.embedded.embedded import EmbeddedService
from service.jobs.jobfile import parse_job
from service.schemas import Job, JobState

HERE = Path(__file__).parent
STATE = Path(".snugnet/demo")
OUTPUT = Path("demo-output")


def main() -> int:
    arguments = _arguments()
    job_file = HERE / f"{arguments.job}.yaml"
    output = arguments.output
    state = STATE / job_file.stem
    if arguments.fresh:
        shutil.rmtree(state, ignore_errors=True)
        shutil.rmtree(output, ignore_errors=True)
    console = Console()
    console.print("preparing the data", highlight=False)
    data = prepare_data(Path(".snugnet/demo-data"))
    console.print("starting the service (API, broker, worker, measuring agent)", highlight=False)
    try:
        with EmbeddedService(state) as instance:
            console.print(f"it listens at {instance.url}", highlight=False)
            with Client(instance.url, instance.api_key) as client:
                job = watch_job(client, _find_or_submit(client, state, job_file, data), console)
                client.download(job.id, output)
                page, _ = write_report(client, job.id, output / f"report-{job.id}.html")
    except KeyboardInterrupt:
        console.print("\nstopped; `make demo` goes on from here, FRESH=1 starts anew")
        return 130
    (state / "job-id").unlink(missing_ok=True)  # the next run is a new job
    if not (output / "report.json").is_file():
        return 1
    report = _finish_report(output, job)
    _print_report(console, report, output)
    console.print(f"the report, with its pictures: {page}", highlight=False, soft_wrap=True)
    return 0 if job.state is JobState.SUCCEEDED else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run")
    jobs = parser.add_mutually_exclusive_group()
    for name, told in (("small", "every stage, little training"), ("recipe", "a recipe besides")):
        jobs.add_argument(
            f"--{name}", dest="job", action="store_const", const=f"job-{name}", help=told
        )
    parser.set_defaults(job="job")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args()


def _find_or_submit(client: Client, state: Path, job_file: Path, data: Path) -> str:
    """The interrupted job of an earlier run, or a new one."""
    note = state / "job-id"
    if note.is_file():
        return note.read_text()
    wanted = yaml.safe_load(job_file.read_text())
    wanted["model"] = {"path": str(model_folder())}
    wanted["data"] = {"path": str(data.resolve())}
    job = client.submit(parse_job(wanted, Path.cwd()).resolve(client))
    note.write_text(job.id)
    return job.id


def _finish_report(output: Path, job: Job) -> dict[str, Any]:
    """Adds how long the job took; its parts are in the report already."""
    path = output / "report.json"
    report: dict[str, Any] = json.loads(path.read_text())
    ended = job.finished_at or time.time()
    report = {"wall_s": round(ended - (job.started_at or job.created_at), 1), **report}
    path.write_text(json.dumps(report, indent=1) + "\n")
    return report


def _print_report(console: Console, report: dict[str, Any], output: Path) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("network", "budget", "p50", "p95", "quality", "kept", "speed-up", "size", "met")
    for column in columns:
        table.add_column(column, justify="left" if column == "network" else "right")
    unsearched = report["baseline"]
    for name, key in (("unsearched", "baseline"), ("in int8", "quantized_only")):
        if report[key]:
            table.add_row(name, "", *_figures(report[key], unsearched), "")
    for index, target in enumerate(report["targets"]):
        met = "yes" if target["is_met"] else "NO"
        figures = _figures(target, unsearched) if "quality" in target else [""] * 6
        table.add_row(f"target {index}", f"{target['budget_ms']:.2f} ms", *figures, met)
    console.print(table)
    search, predictor = report["search"], report["predictor"]
    lines = (
        f"search: {search['evaluations']} evaluations, hypervolume {search['hypervolume']:.3f}, "
        f"random search {search['baselines']['random']['hypervolume']:.3f}",
        f"predictor: off by {predictor['mape']:.1%} on networks it had not seen "
        f"(depth alone {predictor['depth_only_mape']:.1%})",
        f"{report['wall_s']:.0f} s; everything is in {output}/, the picture is "
        f"{output}/pareto.png",
    )
    for line in lines:
        console.print(line, highlight=False)


def _figures(row: dict[str, Any], unsearched: dict[str, Any]) -> list[str]:
    return [
        f"{row['p50_ms']:.2f} ms",
        f"{row['p95_ms']:.2f} ms",
        f"{row['quality']:.1%}",
        f"{row['quality'] / unsearched['quality']:.1%}",
        f"{row.get('speedup', unsearched['p50_ms'] / row['p50_ms']):.2f}x",
        f"{row['size_bytes'] / 1e6:.1f} MB",
    ]


if __name__ == "__main__":
    sys.exit(main())
