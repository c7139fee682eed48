"""A job as a terminal shows it while it runs: stages, front, targets, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.cli.front_chart import Mark, draw_front
from service.cli.job_report import amount
from service.cli.job_story import JobStory, TargetStory, quality_name, show_quality
from service.jobs.stages import stages_of
from service.schemas import Job, JobState

MAX_CHART_ROWS = 14
BAR_WIDTH = 30
GAP = "  "
# Events that scroll by above, the header, the bar, the axis with its numbers and legend.
OTHER_ROWS = 12


class JobView:
    """What is drawn: the newest state of the job, and its story.

    Args:
        clock: epoch seconds.
    """

    def __init__(self, job: Job, story: JobStory, clock: Callable[[], float] = time.time) -> None:
        self.job = job
        self.story = story
        self._clock = clock

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_ascii = not options.encoding.startswith("utf")
        yield self._header()
        yield self._stages(options.max_width, is_ascii)
        if not self.job.state.is_final:
            yield self._bar()
        rows = min(MAX_CHART_ROWS, console.size.height - OTHER_ROWS - len(self.story.targets))
        yield from draw_front(
            list(self._marks()),
            self._budgets_ms(),
            width=options.max_width,
            height=rows,
            show_quality=lambda quality: show_quality(self.story.task, quality),
            is_ascii=is_ascii,
        )
        if self.story.points or any(t.measured_ms is not None for t in self.story.targets):
            yield self._targets()

    def _header(self) -> Text:
        job = self.job
        header = Text(no_wrap=True, overflow="ellipsis")
        header.append(f"{job.name or job.id} ", style="bold")
        header.append(f"{job.state}  ")
        header.append(self._times(), style="dim")
        return header

    def _times(self) -> str:
        job, now = self.job, self._clock()
        if job.started_at is None:
            return "waits for a worker" if job.state is JobState.QUEUED else ""
        if job.finished_at is not None:
            return f"took {duration(job.finished_at - job.started_at)}"
        elapsed = f"{duration(now - job.started_at)} so far"
        if job.estimated_finish is not None:
            return f"{elapsed}, about {duration(job.estimated_finish - now)} left"
        return f"{elapsed}; time left not known yet" if job.state is JobState.RUNNING else elapsed

    def _stages(self, width: int, is_ascii: bool) -> Text:
        """All of them, with the time in those that were entered; no line breaks one apart."""
        seconds = self.story.clock.seconds(self._clock())
        lines = Text()
        room = width
        for stage in stages_of(self.job.spec.get("supernet_of")):
            told = self._stage(stage, seconds.get(stage), is_ascii)
            if len(told) > room:
                lines.append("\n")
                room = width
            lines.append_text(told).append(GAP)
            room -= len(told) + len(GAP)
        return lines

    def _stage(self, stage: str, seconds: float | None, is_ascii: bool) -> Text:
        done, going, to_come = ("+", ">", "-") if is_ascii else ("✓", "▸", "·")
        if seconds is None:
            return Text(f"{to_come} {stage}", style="dim")
        is_current = stage == self.story.clock.stage and not self.job.state.is_final
        mark, style = (going, "bold") if is_current else (done, "green")
        return Text(f"{mark} {stage} {duration(seconds)}", style=style)

    def _bar(self) -> Table:
        progress = self.job.progress
        row = Table.grid(padding=(0, 1))
        total = progress.total or None
        row.add_row(
            Text(self.job.stage or self.job.state),
            ProgressBar(total=total, completed=progress.done, width=BAR_WIDTH, pulse=not total),
            Text(amount(progress)),
        )
        return row

    def _first(self) -> list[TargetStory]:
        """Targets whose latency is the chart's: those that promise what the first one does."""
        return [target for target in self.story.targets if target.promise == 0]

    def _budgets_ms(self) -> list[float]:
        return [t.budget_ms for t in self._first() if t.budget_ms is not None]

    def _marks(self) -> Iterator[Mark]:
        budgets_ms = self._budgets_ms()
        best = {id(self.story.best(target)) for target in self._first()}
        for point in self.story.points:
            latency_ms = point.latency_ms(0)
            if latency_ms is None:
                continue
            kind = "compared"
            if point.is_candidate:
                is_kept = not budgets_ms or latency_ms <= max(budgets_ms)
                kind = "best" if id(point) in best else "kept" if is_kept else "slow"
            yield Mark(latency_ms, point.quality, kind)
        for target in self._first():
            if target.measured_ms is not None and target.quality is not None:
                yield Mark(target.measured_ms, target.quality, "measured")

    def _targets(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        name = quality_name(self.story.task)
        for column in ("target", "budget", "predicted", "measured", name, ""):
            table.add_column(column, justify="left" if column in ("target", "") else "right")
        for index, target in enumerate(self.story.targets):
            table.add_row(*self._target(index, target))
        return table

    def _target(self, index: int, target: TargetStory) -> tuple[str | Text, ...]:
        predicted_ms, quality = target.predicted_ms, target.quality
        best = self.story.best(target)
        if quality is None and best is not None:
            predicted_ms, quality = best.latency_ms(target.promise), best.quality
        ratio = f"{target.budget_ratio:g} of it" if target.budget_ratio is not None else ""
        return (
            f"{index} ({target.statistic})",
            ratio if target.budget_ms is None else _ms(target.budget_ms),
            _ms(predicted_ms),
            _ms(target.measured_ms),
            "" if quality is None else show_quality(self.story.task, quality),
            _verdict(target, has_candidate=best is not None),
        )


def duration(seconds: float) -> str:
    """As `4:05`, or `1:02:03` from an hour on."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def _verdict(target: TargetStory, *, has_candidate: bool) -> Text:
    if target.is_met is not None:
        return Text("met", "bold green") if target.is_met else Text("missed", "bold red")
    if target.quality is not None:
        return Text("in training")
    return Text("best so far" if has_candidate else "nothing within it yet", "dim")
