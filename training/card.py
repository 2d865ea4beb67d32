"""The model card that lies beside the weights (M. Mitchell et al., Model cards for model reporting, FAT* 2019).

Its figures want matplotlib, an extra (`plots`); without it the card is the same but for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.config import Kind
from model.detector import Detector
from model.manifest import Manifest
from training import plots
from training.data import Dataset
from training.learn import CurvePoint
from training.parts import Parts
from training.report import examples, extremes

MOST_MEASURED = 5000


CURVE, SCORES, EXAMPLES = "curve.png", "scores.png", "examples.png"
CAPTIONS = {
    CURVE: "Losses over the steps of training; the dashed line is the step whose weights were kept",
    SCORES: "Scores of records that were not learned from",
    EXAMPLES: "Records that were not learned from, with where each is strange",
}
BUDGET = 0.01  # false alarms per normal record, whose threshold is shown among the scores


def draw(
    detector: Detector,
    dataset: Dataset,
    parts: Parts,
    scores: NDArray[np.float32],
    curve: Sequence[CurvePoint],
    kept: int,
) -> dict[str, bytes]:
    """The card's figures, PNG by file name; none without matplotlib.

    `scores` are those of `parts.held_out`; `kept` is the step of `curve` whose weights the detector has.
    """
    if not plots.available():
        return {}
    every = np.full(len(dataset), np.nan)
    every[parts.held_out] = scores
    groups = {"normal": scores}
    index = {"normal,": parts.held_out}
    if len(parts.measured):
        strange = index["anomalous,"] = parts.measured[:MOST_MEASURED]
        every[strange] = groups["anomalous"] = detector.score(np.ascontiguousarray(dataset.x[strange])).score
    shown = {title: examples(detector, dataset, some, every) for title, some in extremes(index, every).items()}
    names = dict.fromkeys(name for point in curve for name in point.losses)
    losses = {name: [point.losses.get(name, np.nan) for point in curve] for name in names}
    return {
        CURVE: plots.curve([point.step for point in curve], losses, kept),
        SCORES: plots.histogram(groups, {f"budget of {BUDGET:.0%}": -np.log10(BUDGET)}),
        EXAMPLES: plots.examples(shown),
    }


def write_card(manifest: Manifest, raw: Mapping[str, NDArray[np.float32]], figures: Collection[str] = ()) -> str:
    """Markdown for people; `raw` is the evidence of the held-out normal records, `[n]` by name.

    `figures` are the names of the files that lie beside it.
    """
    data = manifest.training_data
    shape = " × ".join(str(size) for size in manifest.input_shape)
    what = "pictures (H × W × C)" if manifest.kind is Kind.IMAGE else "windows (T × F)"
    measured = "\n".join(f"| {name} | {value:.6g} |" for name, value in manifest.metrics.items())
    used = manifest.calibration.evidence
    evidence = "\n".join(
        f"| {name} | {'yes' if name in used else 'no'} | {np.median(values):.4g} | {np.quantile(values, 0.99):.4g} |"
        for name, values in raw.items()
    )
    shown = "".join(f"\n![{CAPTIONS[name]}]({name})\n\n*{CAPTIONS[name]}.*\n" for name in figures)
    return f"""# {manifest.name}

GANomaly for {what} of {shape}, trained {manifest.created_at:%Y-%m-%d %H:%M} UTC
in {manifest.seconds:.0f} s, seed {manifest.seed}.

**For**: telling records unlike the normal ones of this source from them. A score s means that about 10^-s of the
held-out normal records score as high. **Not for**: other sources than this, or decisions about people.

Trained on the normal records of `{data.source}` ({data.rows}; SHA-256 `{data.sha256}`). Those held out from training
made the calibration; a score above the largest of them is extrapolated.

| measured | value |
| --- | --- |
{measured}

| evidence | part of the score | median of held-out | 99 % of held-out |
| --- | --- | --- | --- |
{evidence}
{_verdicts(manifest)}{shown}"""


def _verdicts(manifest: Manifest) -> str:
    """What the gate found, where it was asked."""
    if (report := manifest.gate) is None:
        return ""
    against = f"against {report.champion}" if report.champion else "without a champion"
    said = f"refused by {', '.join(report.refused_by)}" if report.refused_by else "passed"
    rows = "\n".join(
        f"| {rule.rule} | {_number(rule.figure)} | {_number(rule.reference)} | {_number(rule.limit)} | "
        f"{'passed' if rule.passed else 'failed'} | {rule.why.replace('|', '/')} |"
        for rule in report.rules
    )
    return f"""
**Gate**, {against}: {said}.

| rule | figure | champion's | limit | verdict | on what |
| --- | --- | --- | --- | --- | --- |
{rows}
"""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
