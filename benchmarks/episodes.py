"""What becomes of incidents: how many alerts and episodes a real series makes, as figures and as a picture.

    python benchmarks/episodes.py --data DIR [--series machine_temperature_system_failure] [--seconds 100] [--rate 0.01]

DIR holds nab/. Trains on the history of the series with default settings but for the budget, runs the whole of it
through the stream's code, and draws docs/images/episodes.png: values, score and threshold, and episodes, over the
labelled incidents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import typer
from matplotlib import pyplot
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table

from command import progress, run
from model.registry import Registry
from origin import ROOT, commit, today
from stream_app.cli.main import exit_code
from stream_app.judge import Verdict
from stream_app.offline import score_rows
from stream_app.settings import Settings, load_settings
from streaming.incidents import Span, Told, episodes_of, first_alert, incidents_of
from streaming.series import Series, load, names
from training.data import from_arrays
from training.loop import train

PICTURE = ROOT / "docs" / "images" / "episodes.png"
# Of Okabe and Ito's palette, which those who see fewer colours can tell apart.
BLUE, ORANGE, VERMILION, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#6E6E6E"

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Account:
    """What was found in a series: verdicts on its scored rows behind the history, episodes, labelled incidents."""

    series: Series
    verdicts: Sequence[Verdict]
    episodes: Sequence[Told]
    incidents: Sequence[Span]

    @property
    def false(self) -> list[Told]:
        """Episodes that were open in no incident."""
        return [told for told in self.episodes if not any(told.touches(incident) for incident in self.incidents)]


def main(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Holds nab/.")],
    series: Annotated[str, typer.Option("--series", metavar="NAME", help="Of NAB's.")] = (
        "machine_temperature_system_failure"
    ),
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Of learning.")] = 100.0,
    rate: Annotated[float, typer.Option("--rate", help="Budget: false alarms per normal record.")] = 0.01,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png")] = PICTURE,
) -> None:
    """Draw and count."""
    chosen = load(names(data, f"nab/{series}")[0], data)
    account = _watch(chosen, load_settings(None, {"threshold.target_rate": rate}), seconds)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(account, out)
    _print(account)
    console.print(f"{out} is drawn", markup=False)


def _watch(series: Series, settings: Settings, seconds: float) -> Account:
    """Learns from the history, and takes the whole series as a stream would."""
    with tempfile.TemporaryDirectory() as folder, progress(console, TextColumn("{task.percentage:>3.0f} %")) as bar:
        registry, history = Registry(folder), slice(series.history)
        dataset = from_arrays(series.rows[history], "sequence", timestamps=series.times[history])
        task = bar.add_task("learning", total=1.0)
        train(
            dataset,
            "sequence",
            registry,
            series.name,
            seconds,
            on_progress=lambda state: bar.update(task, completed=state.share),
        )
        bar.update(task, completed=1.0)
        detector = registry.load(series.name, device=settings.worker.device, profile=settings.worker.profile)
        results = score_rows(detector, series.rows, settings, series.times)
        scored = list(bar.track(results, total=len(series.rows), description="scoring"))
    verdicts = [row.verdict for row in scored if row.verdict is not None]
    watched = [verdict for verdict in verdicts if verdict.offset >= series.history]
    return Account(series, watched, episodes_of(watched), incidents_of(series.y, series.times))


def draw(account: Account, file: Path) -> None:
    """Three panels over one time axis, as PNG."""
    series, verdicts = account.series, account.verdicts
    style = {
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
    with mpl.rc_context(style):
        figure, (values, scores, bars) = pyplot.subplots(
            3, 1, figsize=(12.0, 7.0), sharex=True, height_ratios=(3, 3, 1.1)
        )
        for axes in (values, scores, bars):
            _shade(axes, account)
        values.plot(_dates(series.times), series.rows[:, 0], color=BLUE, linewidth=0.7, label="value")
        values.set_ylabel("value, as recorded")
        times = _dates([verdict.event_time for verdict in verdicts])
        scores.plot(times, [verdict.score for verdict in verdicts], color=GREY, linewidth=0.7, label="score")
        scores.plot(times, [verdict.threshold for verdict in verdicts], color=VERMILION, label="threshold")
        scores.set_ylabel("score, −log₁₀ p")
        scores.set_ylim(bottom=0.0)
        _draw_episodes(bars, account.episodes)
        bars.xaxis.set_major_formatter(ConciseDateFormatter(AutoDateLocator()))
        bars.set_xlabel("event time, UTC")
        values.set_title(_title(account), loc="left", fontsize=12)
        figure.legend(*_legend(values, scores, bars), loc="outside lower center", ncols=7, frameon=False)
        figure.align_ylabels()
        figure.savefig(file, dpi=110, metadata={"Software": None})
        pyplot.close(figure)


def _legend(*panels: Any) -> tuple[list[Any], list[str]]:
    """Each thing once, though several panels have it."""
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(named.values()), list(named)


def _shade(axes: Any, account: Account) -> None:
    first, end = account.series.times[[0, account.series.history - 1]]
    axes.axvspan(*_dates([first, end]), color=GREY, alpha=0.15, linewidth=0, label="learned from")
    for number, incident in enumerate(account.incidents):
        label = None if number else "labelled incident"
        axes.axvspan(*_dates(incident), color=ORANGE, alpha=0.3, linewidth=0, label=label)


def _draw_episodes(axes: Any, episodes: Sequence[Told]) -> None:
    for number, told in enumerate(episodes):
        starts = _dates([span.begin for span in told.spans])
        lengths = [timedelta(seconds=span.end - span.begin) for span in told.spans]
        label = None if number else "episode"
        axes.broken_barh(list(zip(starts, lengths, strict=True)), (0.0, 0.6), color=GREEN, label=label)
    alerts = _dates([time for told in episodes for time in told.alerts])
    axes.plot(alerts, [0.85] * len(alerts), "v", color=VERMILION, markersize=5, label="alert")
    axes.set_ylim(-0.1, 1.1)
    axes.set_yticks([])
    axes.set_ylabel("episodes")


def _title(account: Account) -> str:
    anomalous = sum(verdict.is_anomaly for verdict in account.verdicts)
    alerts = sum(len(told.alerts) for told in account.episodes)
    return (
        f"NAB {account.series.case}: {len(account.verdicts):,} records watched, {anomalous:,} anomalous, "
        f"{len(account.episodes)} episodes, {alerts} alerts"
    )


def _print(account: Account) -> None:
    incidents, episodes = account.incidents, account.episodes
    covered = [any(told.touches(incident) for told in episodes) for incident in incidents]
    shown = Table(title=_title(account), title_justify="left")
    for column in ("incident", "covered", "first alert in it", "episodes", "alerts"):
        shown.add_column(column, justify="left" if column == "incident" else "right")
    for incident, is_covered in zip(incidents, covered, strict=True):
        touching = [told for told in episodes if told.touches(incident)]
        at = first_alert(incident, episodes)
        shown.add_row(
            f"{_moment(incident.begin)} – {_moment(incident.end)}",
            "yes" if is_covered else "no",
            "–" if at is None else f"after {(at - incident.begin) / 3600.0:.1f} h",
            str(len(touching)),
            str(sum(len(told.alerts) for told in touching)),
        )
    false = account.false
    shown.add_section()
    shown.add_row("outside of incidents", "", "", str(len(false)), str(sum(len(told.alerts) for told in false)))
    output = Console(width=120, highlight=False)
    output.print(shown)
    output.print(f"{sum(covered)} of {len(incidents)} incidents are covered. {today()}, commit {commit()}.")


def _dates(times: Sequence[float] | NDArray[np.float64] | Span) -> list[datetime]:
    return [datetime.fromtimestamp(time, UTC) for time in times]


def _moment(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}"


if __name__ == "__main__":
    mpl.use("Agg")
    run(main, console, exit_code)
