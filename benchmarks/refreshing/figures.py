"""What a refresh came to: figures of each phase, the picture, and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from detection.page import table
from refreshing.scenario import NEW_SHARE, PLANTED_SHARE
from refreshing.story import Account

WINDOW = 300  # normal records that a share of false alarms in the picture is of
FEW = 20  # planted anomalies that a share of found ones is of
BEFORE, OLD, NEW = "before the change", "changed, old version", "changed, new version"
BLUE, ORANGE, VERMILION, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#6E6E6E"


def summarise(account: Account) -> dict[str, Any]:
    """Counts and shares of each phase, when what happened, and the stages of the run that led to the new version."""
    change, swap, end = account.began["change"], account.began["swap"], len(account.published)
    ranges = {BEFORE: (0, change), OLD: (change, swap), NEW: (swap, end)}
    finished = [event for event in account.told if event["event"] == "finished"]
    return {
        "records": end,
        "runs": [{name: run[name] for name in ("trigger", "due", "outcome", "why", "seconds")} for run in finished],
        "stages": {
            event["stage"]: {name: event[name] for name in ("passed", "why", "seconds")}
            for event in account.told
            if event["event"] == "stage" and event["state"] == "done"
        },
        "shifts": sum(event.get("state") == "shift" for event in account.scored.values()),
        "phases": {name: _phase(account, *bounds) for name, bounds in ranges.items()},
    }


def _phase(account: Account, first: int, end: int) -> dict[str, float]:
    scores, crossed, planted = account.of(first, end)
    return {
        "first": first,
        "records": len(scores),
        "planted": int(planted.sum()),
        "false_alarms": int(crossed[~planted].sum()),
        "false_alarm_share": float(crossed[~planted].mean()),
        "found": int(crossed[planted].sum()),
        "auroc": float(roc_auc_score(planted, scores)),
    }


def draw(account: Account, budget: float, file: Path) -> None:
    """Three panels over the records: scores and threshold, share of false alarms, share of planted found."""
    scores, crossed, planted = account.of(0, len(account.published))
    threshold = np.array([account.scored[place]["threshold"] for place in range(len(scores))])
    places = np.arange(len(scores))
    style = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure, (top, middle, bottom) = pyplot.subplots(
            3, 1, figsize=(12.0, 8.0), sharex=True, height_ratios=(3, 2, 2), layout="constrained"
        )
        top.plot(places[~planted], scores[~planted], ".", color=GREY, markersize=2, label="normal")
        top.plot(places[planted], scores[planted], ".", color=VERMILION, markersize=4, label="planted anomaly")
        top.plot(places, threshold, color=BLUE, linewidth=1.2, label="threshold")
        top.set_ylabel("score (−log10 of the share\nof normals as high)")
        top.legend(loc="upper right", frameon=False)
        _share(middle, places[~planted], crossed[~planted], WINDOW, VERMILION)
        middle.axhline(budget, color=GREEN, linestyle="--", linewidth=1.0, label=f"budget, {budget:.0%}")
        middle.set_yscale("symlog", linthresh=budget)
        middle.set_ylim(0.0, 1.5)
        middle.set_ylabel(f"false alarms,\nshare of {WINDOW} normals")
        middle.legend(loc="upper right", frameon=False)
        _share(bottom, places[planted], crossed[planted], FEW, BLUE)
        bottom.set_ylabel(f"planted anomalies\nfound, share of {FEW}")
        bottom.set_ylim(0.0, 1.05)
        bottom.set_xlabel("records published")
        marks = (("change", ORANGE, "camera and products change"), ("swap", GREEN, "new version in service"))
        for what, color, text in marks:
            for axes in (top, middle, bottom):
                axes.axvline(account.began[what], color=color, linewidth=1.5)
            top.annotate(text, (account.began[what], 1.0), xycoords=("data", "axes fraction"), va="bottom", fontsize=10)
        figure.savefig(file, dpi=110)
        pyplot.close(figure)


def _share(axes: Any, places: NDArray[np.int64], crossed: NDArray[np.bool_], window: int, color: str) -> None:
    if len(crossed) >= window:
        mean = np.convolve(crossed, np.full(window, 1.0 / window), mode="valid")
        axes.plot(places[window - 1 :], mean, color=color, linewidth=1.2)


def render(figures: Mapping[str, Any]) -> str:
    """The page."""
    where = figures["origin"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    phases = [
        [
            name,
            f"{of['records']:,}",
            f"{of['false_alarms']:,}",
            f"{of['false_alarm_share']:.2%}",
            f"{of['found']} of {of['planted']}",
            f"{of['auroc']:.3f}",
        ]
        for name, of in figures["phases"].items()
    ]
    stages = [[name, f"{of['seconds']:.0f} s", of["why"].replace("\n", "; ")] for name, of in figures["stages"].items()]
    settings = ", ".join(f"`{name}={value}`" for name, value in figures["settings"].items())
    swap, change = (figures["phases"][name]["first"] for name in (NEW, OLD))
    return f"""# Weights that refresh themselves, on real pictures

MNIST's digits 0 to 6 are normal; pictures of a broken or dirty camera are planted as anomalies, {PLANTED_SHARE:.0%} of
the records. Then the camera gets brighter and flatter, and 7 comes as a new kind of normal, {NEW_SHARE:.0%} of the
normal ones. Nobody does anything: drift fires the schedule, the trainer takes a snapshot of the stream, trains, holds
the new version against the old, lets it score beside it, and the worker takes it over, {swap - change:,} records after
the change. The false-alarm budget is {figures["budget"]:.0%}.

The old version alerts at everything until the stream's threshold takes it for a lasting shift and follows. Then it is
quiet, and blind: all records score alike. The new version finds anomalies again, as soon as the threshold has come down
to its scores.

{table(["phase", "records", "false alarms", "share of normals", "planted anomalies found", "AUROC"], phases)}

![Scores, false alarms and what was found, over the records](images/refresh.png)

The run that made the new version, and what its stages came to:

{table(["stage", "took", "outcome"], stages)}

Measured by `make refresh DATA=DIR` on {where["date"]}, {where["machine"]}, commit {where["commit"]}; {versions};
{figures["seconds"]:g} s of learning each time, {figures["rate"]:g} records a second, and besides the default settings
{settings}.
"""
