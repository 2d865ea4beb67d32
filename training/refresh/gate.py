"""The gate: what a new version must show, on records it did not learn from, before it may take the champion's place.

Each rule has a name, a figure, a limit (settings, section `gate`) and a verdict. Without a champion the comparisons
pass; the rules of the version itself count. Where a margin is allowed, a hundred versions could each be worse than the
one before by just that; so AUROC and latency are also held against the anchor, the version that a person last put in
service, where that is the better one.

Sources: the Kolmogorov–Smirnov distance with its exact critical value, R. Simard, P. L'Ecuyer, J. Stat. Softw. 39 (11),
2011 (as SciPy has it); C. Spearman, Am. J. Psychol. 15, 1904 (rank correlation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from model.config import Kind
from model.detector import Detector
from model.gate_report import GateReport, RuleVerdict
from stream_app.clock import Clock, SystemClock
from stream_app.settings import GateSettings
from training.plant import plant

Floats = NDArray[np.float64]
Records = NDArray[Any]

MOST_LABELLED = 5000
MOST_ALIKE = 0.9  # of all records: more of them with one and the same score, and nothing is told apart
TIMED = 256  # records of a round of timing
BLOCK = 4  # steps by which observations of overlapping windows are known again
NO_CHAMPION = "no sound champion to compare with"


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """Records that the challenger did not learn from, as detectors take them.

    `fresh` `[n, …]` are normal as far as anybody knows, the newest there are. `labelled_x` `[m, …]` were labelled by
    people, `labelled_y` `[m]` is 0 for normal and 1 for an anomaly.
    """

    fresh: Records
    labelled_x: Records | None = None
    labelled_y: NDArray[np.integer[Any]] | None = None


@dataclass(frozen=True, slots=True)
class _Sample:
    """The records judged. `independent`: as how many independent ones the fresh ones count."""

    kind: Kind
    fresh: Records
    synthetic: Records
    labelled: Records
    labels: NDArray[np.int64]
    independent: int


@dataclass(frozen=True, slots=True)
class _Scored:
    fresh: Floats
    synthetic: Floats
    labelled: Floats

    @property
    def all(self) -> Floats:
        return np.concatenate([self.fresh, self.synthetic, self.labelled])


@dataclass(frozen=True, slots=True)
class _Rival:
    """What a challenger is held against: the champion, and the anchor."""

    detector: Detector
    scored: _Scored


def examine(
    challenger: Detector,
    champion: Detector | None,
    evidence: GateEvidence,
    settings: GateSettings,
    *,
    anchor: Detector | None = None,
    target_rate: float = 1e-3,
    clock: Clock | None = None,
    seed: int = 0,
) -> GateReport:
    """Judges a challenger by all rules; by the first few alone where the others could mean nothing.

    `anchor`: the version that a person last put in service, where that is not the champion. `target_rate`: the share of
    normal records that may alert. `seed` draws the synthetic anomalies.
    """
    version = champion.version if champion is not None else None
    first = [_inputs(challenger, champion), _evidence(evidence, settings)]
    if not all(rule.passed for rule in first):
        return GateReport(champion=version, rules=tuple(first))
    sample = _draw(challenger.kind, evidence, settings, seed)
    sound, own = _sound(challenger, sample)
    if own is None:
        return GateReport(champion=version, rules=(*first, sound))
    rivals = _rivals(champion, anchor, sample)
    theirs = rivals[0].scored if rivals else None
    fits = (
        _false_alarms(own, theirs, sample, settings, target_rate),
        _calibration(own, theirs, sample, settings),
    )
    rules = (
        *first,
        sound,
        _labelled_auroc(own, rivals, sample, settings),
        _synthetic_auroc(own, rivals, settings),
        *fits,
        _latency(challenger, rivals, sample, settings, clock or SystemClock()),
        _agreement(own, theirs, fits, settings),
    )
    return GateReport(champion=version, rules=rules)


def _inputs(challenger: Detector, champion: Detector | None) -> RuleVerdict:
    if champion is None:
        return RuleVerdict(rule="inputs", passed=True, why=NO_CHAMPION)
    said = [
        f"{what} {getattr(challenger.manifest, what)}, the champion's is {getattr(champion.manifest, what)}"
        for what in ("kind", "input_shape", "features")
        if getattr(challenger.manifest, what) != getattr(champion.manifest, what)
    ]
    why = "; ".join(said) + ": give it a name of its own" if said else "takes what the champion takes"
    return RuleVerdict(rule="inputs", passed=not said, why=why)


def _evidence(evidence: GateEvidence, settings: GateSettings) -> RuleVerdict:
    count, least = len(evidence.fresh), settings.min_fresh
    return RuleVerdict(
        rule="evidence", figure=count, limit=least, passed=count >= least, why="fresh normal records to judge with"
    )


def _draw(kind: Kind, evidence: GateEvidence, settings: GateSettings, seed: int) -> _Sample:
    """The fresh records, evenly over their order where there are too many, and anomalies made of them."""
    fresh = evidence.fresh[_evenly(len(evidence.fresh), settings.fresh_records)]
    synthetic = plant(kind, fresh, settings.synthetic_records, seed)
    labelled, labels = fresh[:0], np.zeros(0, dtype=np.int64)
    if evidence.labelled_x is not None and evidence.labelled_y is not None:
        some = _evenly(len(evidence.labelled_x), MOST_LABELLED)
        labelled, labels = evidence.labelled_x[some], evidence.labelled_y[some].astype(np.int64)
    independent = len(fresh) if kind is Kind.IMAGE else independent_windows(fresh)
    return _Sample(kind, fresh, synthetic, labelled, labels, independent)


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def independent_windows(windows: Records) -> int:
    """As how many windows `[N, T, F]` that share no observation they count: distinct observations, by T; 1…N.

    An observation is known again by itself and the three after it.
    """
    count, length = windows.shape[:2]
    block = min(BLOCK, length)
    rows = np.ascontiguousarray(windows).reshape(count, length, -1)
    blocks = np.lib.stride_tricks.sliding_window_view(rows, block, axis=1)  # (N, T - block + 1, F, block)
    flat = np.ascontiguousarray(blocks).reshape(count * (length - block + 1), -1)
    distinct = len(np.unique(flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1])))))
    return int(np.clip(round(distinct / (length - block + 1)), 1, count))


def _sound(detector: Detector, sample: _Sample) -> tuple[RuleVerdict, _Scored | None]:
    """Whether it scores at all, and tells records apart; its scores where it does."""

    def verdict(passed: bool, why: str, figure: float | None = None) -> RuleVerdict:
        return RuleVerdict(rule="sound", figure=figure, limit=MOST_ALIKE, passed=passed, why=why)

    try:
        parts = (sample.fresh, sample.synthetic, sample.labelled)
        scored = _Scored(*(detector.score(part).score.astype(np.float64) for part in parts))
    except Exception as error:  # whatever it is, a worker would meet it too
        return verdict(False, f"it raises {type(error).__name__}: {' '.join(str(error).split())[:300]}"), None
    scores = scored.all
    wrong = int((~np.isfinite(scores)).sum())
    if wrong:
        return verdict(False, f"{wrong} of {len(scores)} scores are not finite"), None
    alike = float(np.unique(scores.round(6), return_counts=True)[1].max() / len(scores))
    why = f"share of {len(scores)} records with one and the same score"
    return verdict(alike <= MOST_ALIKE, why, alike), scored if alike <= MOST_ALIKE else None


def _rivals(champion: Detector | None, anchor: Detector | None, sample: _Sample) -> tuple[_Rival, ...]:
    """The champion first; none without a sound one."""
    rivals: list[_Rival] = []
    for detector in (champion, anchor):
        if detector is None or not _inputs(detector, champion).passed:
            continue
        scored = _sound(detector, sample)[1]
        if scored is not None:
            rivals.append(_Rival(detector, scored))
    return tuple(rivals) if rivals and rivals[0].detector is champion else ()


def _labelled_auroc(own: _Scored, rivals: Sequence[_Rival], sample: _Sample, settings: GateSettings) -> RuleVerdict:
    counts = [int((sample.labels == value).sum()) for value in (0, 1)]
    said = f"AUROC on {counts[0]} records labelled normal and {counts[1]} labelled anomalous"
    if min(counts) < settings.min_labelled:
        why = f"not judged: {said.removeprefix('AUROC on ')}; {settings.min_labelled} of each are needed"
        return RuleVerdict(rule="labelled_auroc", passed=True, why=why)
    figure = float(roc_auc_score(sample.labels, own.labelled))
    references = [(float(roc_auc_score(sample.labels, rival.scored.labelled)), rival) for rival in rivals]
    return _not_below("labelled_auroc", figure, references, settings.labelled_margin, said)


def _synthetic_auroc(own: _Scored, rivals: Sequence[_Rival], settings: GateSettings) -> RuleVerdict:
    if len(own.synthetic) == 0:
        why = "not judged: no anomaly can be made of these records, they hardly differ"
        return RuleVerdict(rule="synthetic_auroc", passed=True, why=why)
    said = f"AUROC on {len(own.fresh)} fresh normal records and {len(own.synthetic)} anomalies made of them"
    references = [(_separation(rival.scored), rival) for rival in rivals]
    return _not_below("synthetic_auroc", _separation(own), references, settings.synthetic_margin, said)


def _separation(scored: _Scored) -> float:
    labels = np.repeat([0, 1], [len(scored.fresh), len(scored.synthetic)])
    return float(roc_auc_score(labels, np.concatenate([scored.fresh, scored.synthetic])))


def _not_below(
    rule: str, figure: float, references: Sequence[tuple[float, _Rival]], margin: float, said: str
) -> RuleVerdict:
    if not references:
        return RuleVerdict(rule=rule, figure=figure, passed=True, why=f"{said}; {NO_CHAMPION}")
    reference, best = max(references, key=itemgetter(0))
    said += _whose(best, references[0][1])
    limit = reference - margin
    return RuleVerdict(rule=rule, figure=figure, reference=reference, limit=limit, passed=figure >= limit, why=said)


def _whose(best: _Rival, champion: _Rival) -> str:
    """A word where the reference is not the champion's."""
    return "" if best is champion else f"; held against {best.detector.version}, which a person last put in service"


def _false_alarms(
    own: _Scored, theirs: _Scored | None, sample: _Sample, settings: GateSettings, target_rate: float
) -> RuleVerdict:
    """Against what a version whose true rate is `false_alarm_factor` times the budget shows by chance, seldom."""
    threshold = -np.log10(target_rate)
    figure, count = float((own.fresh > threshold).mean()), sample.independent
    allowed = stats.binom.ppf(1.0 - settings.significance, count, min(settings.false_alarm_factor * target_rate, 1.0))
    limit = max(float(allowed), 1.0) / count  # one event is never too many
    why = f"share of {len(own.fresh)} fresh normal records above {threshold:.3g}, the budget's threshold"
    if count < len(own.fresh):
        why += f"; they overlap and count as {count}"
    reference = float((theirs.fresh > threshold).mean()) if theirs else None
    return RuleVerdict(
        rule="false_alarms", figure=figure, reference=reference, limit=limit, passed=figure <= limit, why=why
    )


def _calibration(own: _Scored, theirs: _Scored | None, sample: _Sample, settings: GateSettings) -> RuleVerdict:
    """A calibrated score of a normal record is >= s with probability 10^-s.

    Windows' scores may lie below that law and not above it: their calibration is made with a memory that ends before
    them, and errs that way on purpose.
    """
    side = "two-sided" if sample.kind is Kind.IMAGE else "greater"
    law = stats.kstwo if sample.kind is Kind.IMAGE else stats.ksone
    limit = settings.calibration_distance + float(law.ppf(1.0 - settings.significance, sample.independent))
    figure = _distance(own.fresh, side)
    which = "" if sample.kind is Kind.IMAGE else ", where they lie above it"
    return RuleVerdict(
        rule="calibration",
        figure=figure,
        reference=_distance(theirs.fresh, side) if theirs else None,
        limit=limit,
        passed=figure <= limit,
        why=f"Kolmogorov-Smirnov distance of {len(own.fresh)} fresh normal records' scores from 10^-score{which}",
    )


def _distance(scores: Floats, side: str) -> float:
    return float(stats.kstest(10.0**-scores, "uniform", alternative=side).statistic)


def _latency(
    challenger: Detector, rivals: Sequence[_Rival], sample: _Sample, settings: GateSettings, clock: Clock
) -> RuleVerdict:
    """The quickest of several rounds, in turns: what else the machine does slows all of them, and only adds."""
    records = sample.fresh[:TIMED]
    detectors = [*(rival.detector for rival in rivals), challenger]
    quickest = [np.inf] * len(detectors)
    for _ in range(settings.latency_rounds):
        for place, detector in enumerate(detectors):
            started = clock.monotonic()
            detector.score(records)
            quickest[place] = min(quickest[place], clock.monotonic() - started)
    *theirs, figure = (float(seconds) / len(records) for seconds in quickest)
    said = f"seconds per record in batches of {len(records)}"
    if not rivals:
        return RuleVerdict(rule="latency", figure=figure, passed=True, why=f"{said}; {NO_CHAMPION}")
    reference, best = min(zip(theirs, rivals, strict=True), key=itemgetter(0))
    said += _whose(best, rivals[0])
    limit = settings.latency_factor * reference
    return RuleVerdict(
        rule="latency", figure=figure, reference=reference, limit=limit, passed=figure <= limit, why=said
    )


def _agreement(
    own: _Scored, theirs: _Scored | None, fits: tuple[RuleVerdict, ...], settings: GateSettings
) -> RuleVerdict:
    """Not asked for where the champion itself no longer fits the fresh records: it is to be replaced for that."""
    if theirs is None:
        return RuleVerdict(rule="agreement", passed=True, why=NO_CHAMPION)
    figure = float(stats.spearmanr(own.all, theirs.all).statistic)
    said = f"rank correlation of the two's scores of {len(own.all)} records"
    if outdated := [rule.rule for rule in fits if (rule.reference or 0.0) > (rule.limit or 0.0)]:
        why = f"not asked for, as the champion no longer fits the fresh records ({', '.join(outdated)}); {said}"
        return RuleVerdict(rule="agreement", figure=figure, passed=True, why=why)
    limit = settings.agreement
    return RuleVerdict(rule="agreement", figure=figure, limit=limit, passed=figure >= limit, why=said)
