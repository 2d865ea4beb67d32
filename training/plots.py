"""Figures as PNG: distributions of scores, ROC and precision–recall curves, examples with heat maps, training curves.

matplotlib is an extra (`plots`); without it every function here raises UsageError. Nothing needs a display.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from stream_app.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NORMAL, ANOMALOUS, OURS = "#4477aa", "#cc3311", "#111111"
OTHERS = ("#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
DPI = 120
HEAT = "inferno"

Floats = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Example:
    """A record `[H, W, C]` or `[T, F]`, its heat map `[H, W]` or `[T, F]`, and what is said below it."""

    record: NDArray[Any]
    heat: Floats
    caption: str


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def roc(labels: Labels, scores: Mapping[str, Floats]) -> bytes:
    """True against false alarms of each method's scores `[N]`; the first one is the detector's."""
    figure, axes = _axes(5.2, 4.8)
    for (method, values), style in zip(scores.items(), _styles(), strict=False):
        false, true, _ = roc_curve(labels, values)
        axes.plot(false, true, label=f"{method} {auc(false, true):.3f}", **style)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="false alarms, share of normal records", ylabel="share of anomalies found", title="ROC")
    axes.legend(loc="lower right", title="AUROC", frameon=False)
    return _png(figure)


def precision_recall(labels: Labels, scores: Mapping[str, Floats]) -> bytes:
    """Precision against recall of each method's scores `[N]`; the first one is the detector's."""
    figure, axes = _axes(5.2, 4.8)
    for (method, values), style in zip(scores.items(), _styles(), strict=False):
        precision, recall, _ = precision_recall_curve(labels, values)
        axes.step(recall, precision, where="post", label=method, **style)
    share = float(labels.mean())
    axes.axhline(share, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0.0, 1.02), xlim=(0.0, 1.0))
    axes.legend(loc="lower left", frameon=False)
    return _png(figure)


def histogram(groups: Mapping[str, Floats], thresholds: Mapping[str, float]) -> bytes:
    """How scores `[n]` of each group (normal first, then anomalous) are distributed; lines at the thresholds."""
    figure, axes = _axes(6.4, 3.8)
    every = np.concatenate(list(groups.values()))
    top = max(float(np.quantile(every, 0.995)), *thresholds.values(), 1.0) * 1.05
    bins = np.linspace(0.0, top, 41).tolist()
    for (name, values), colour in zip(groups.items(), (NORMAL, ANOMALOUS), strict=False):
        shown = np.minimum(values, top)
        weights = np.full(len(values), 1.0 / max(1, len(values)))
        axes.hist(shown, bins, weights=weights, color=colour, alpha=0.6, label=f"{name} ({len(values):,})")
    for name, value in thresholds.items():
        axes.axvline(value, color=OURS, linewidth=1.0, linestyle="--")
        axes.annotate(
            name,
            (value, 1.0),
            (3, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            size=8,
        )
    note = "" if float(every.max()) <= top else "\n(the last bar holds all beyond)"
    axes.set(xlabel=f"score: −log10 of the share of normal records as high{note}", ylabel="share", xlim=(0.0, top))
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_yticks([0.0, 0.01, 0.1, 1.0], ["0", "1 %", "10 %", "100 %"])
    axes.legend(loc="upper right", frameon=False)
    return _png(figure)


def curve(steps: Sequence[int], losses: Mapping[str, Sequence[float]], kept: int | None = None) -> bytes:
    """Losses over the steps of training, by name, NaN where one was not looked at; a line at the step that was kept."""
    figure, axes = _axes(6.4, 3.8)
    for (name, values), colour in zip(losses.items(), (OURS, NORMAL, ANOMALOUS, *OTHERS) * 2, strict=False):
        seen = np.isfinite(np.asarray(values, dtype=np.float64))
        axes.plot(np.asarray(steps)[seen], np.asarray(values)[seen], label=name, color=colour, linewidth=1.3)
    if kept is not None:
        axes.axvline(kept, color="0.6", linewidth=0.8, linestyle="--")
    if all(np.nanmin(values) > 0.0 for values in losses.values()):
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return _png(figure)


def examples(rows: Mapping[str, Sequence[Example]]) -> bytes:
    """Rows of examples by title, each with its heat map: below it for pictures, as its colour for windows."""
    rows = {title: shown for title, shown in rows.items() if shown}
    first = next(iter(rows.values()))[0]
    return _pictures(rows) if first.record.ndim == 3 else _windows(rows)


def _pictures(rows: Mapping[str, Sequence[Example]]) -> bytes:
    columns = max(map(len, rows.values()))
    figure = _figure(1.25 * columns + 0.4, 2.95 * len(rows))
    top = max(float(np.quantile(example.heat, 0.999)) for shown in rows.values() for example in shown) or 1.0
    for part, (title, shown) in zip(_strips(figure, len(rows)), rows.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", size=9)
        axes = part.subplots(2, columns, squeeze=False)
        for column in range(columns):
            above, below = axes[:, column]
            for one in (above, below):
                one.set_axis_off()
            if column >= len(shown):
                continue
            example = shown[column]
            above.imshow(_visible(example.record), cmap="gray", vmin=0.0, vmax=1.0)
            below.imshow(example.heat, cmap=HEAT, vmin=0.0, vmax=top)
            below.set_title(example.caption, size=7, y=-0.32)
    return _png(figure)


def _windows(rows: Mapping[str, Sequence[Example]]) -> bytes:
    columns = max(map(len, rows.values()))
    figure = _figure(2.6 * columns + 0.4, 2.1 * len(rows))
    top = max(float(np.quantile(example.heat, 0.995)) for shown in rows.values() for example in shown) or 1.0
    for part, (title, shown) in zip(_strips(figure, len(rows)), rows.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", size=9)
        axes = part.subplots(1, columns, squeeze=False)[0]
        for column, one in enumerate(axes):
            if column >= len(shown):
                one.set_axis_off()
                continue
            _window(one, shown[column], top)
    return _png(figure)


def _window(axes: Axes, example: Example, top: float) -> None:
    """Each feature as a line, one above the other, on a strip as dark as the evidence is there."""
    values = np.asarray(example.record, dtype=np.float64)
    spread = np.ptp(values, axis=0)
    lines = (values - values.min(axis=0)) / np.where(spread > 0.0, spread, 1.0) * 0.8 + 0.1
    length, features = values.shape
    extent = (-0.5, length - 0.5, 0.0, float(features))
    axes.imshow(example.heat.T[::-1], cmap="Reds", vmin=0.0, vmax=top, aspect="auto", extent=extent, alpha=0.8)
    for feature in range(features):
        axes.plot(np.arange(length), lines[:, feature] + feature, color=OURS, linewidth=0.8)
    axes.set(yticks=[], xlim=extent[:2], ylim=extent[2:])
    axes.set_title(example.caption, size=7)
    axes.tick_params(labelsize=7)


def _visible(picture: NDArray[Any]) -> NDArray[np.float64]:
    """A picture `[H, W, C]` in 0…255 as grey `[H, W]` or colour `[H, W, 3]` in 0…1; its own range where it is small."""
    levels = picture.astype(np.float64)
    top = 255.0 if levels.max() > 64.0 else max(float(levels.max()), 1e-9)
    levels = np.clip(levels / top, 0.0, 1.0)
    return levels[..., :3] if levels.shape[2] >= 3 else levels[..., 0]


def _styles() -> list[dict[str, Any]]:
    ours: dict[str, Any] = {"color": OURS, "linewidth": 2.0, "zorder": 3}
    return [ours, *({"color": colour, "linewidth": 1.2} for colour in OTHERS * 4)]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _figure(width, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("figures need matplotlib: pip install 'ganomaly-stream[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _strips(figure: Figure, count: int) -> list[Any]:
    return list(figure.subfigures(count, 1, squeeze=False)[:, 0])


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
