"""Each rule of the gate lets a sound version through, and stops the fault it is there for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.detector import Detector, Network, Scores
from model.errors import TrainingError
from model.gate_report import GateReport
from model.manifest import Manifest
from model.registry import Registry
from stream_app.clock import ManualClock
from stream_app.settings import GateSettings
from tests.unit.training.conftest import Trained
from training import loop
from training.data import Dataset
from training.learn import Learned
from training.loop import train
from training.refresh.gate import GateEvidence, examine, independent_windows

CPU = torch.device("cpu")
RATE = 0.01
SETTINGS = GateSettings(latency_factor=5.0)  # the machine does other things meanwhile
Change = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[np.float32]]


class Changed(Detector):
    """A real detector whose scores, or whose speed, are changed by a fault."""

    change: Change

    def score(self, inputs: NDArray[Any]) -> Scores:
        scores = super().score(inputs)
        return Scores(self.change(inputs, scores.score).astype(np.float32), scores.raw)


def changed(detector: Detector, change: Change) -> Detector:
    other = Changed(detector.manifest, detector.network, detector.device)
    other.change = change
    return other


def damaged(detector: Detector, damage: Callable[[Network], object]) -> Detector:
    network = copy.deepcopy(detector.network)
    with torch.no_grad():
        damage(network)
    return Detector(detector.manifest, network, CPU)


@pytest.fixture(scope="session")
def evidence(image_trained: Trained) -> GateEvidence:
    """Fresh normal digits, and some labelled: of the unseen digit, and normal ones."""
    test = image_trained.test
    assert test.y is not None
    normal, anomalous = test.x[test.y == 0], test.x[test.y == 1]
    labels = np.repeat([0, 1], 40)
    return GateEvidence(normal[40:], np.concatenate([normal[:40], anomalous[:40]]), labels)


@pytest.fixture(scope="session")
def challenger(image_trained: Trained, digit_split: tuple[Dataset, Dataset]) -> Detector:
    """The same recipe with another seed: another network that is as good."""
    result = train(
        digit_split[0], "image", image_trained.registry, "digits", device="cpu", steps=60, seed=1, promote=False
    )
    return image_trained.registry.load("digits", result.version, "cpu")


@pytest.fixture
def judge(image_trained: Trained, evidence: GateEvidence) -> Callable[[Detector], GateReport]:
    def judge(challenger: Detector) -> GateReport:
        return examine(challenger, image_trained.detector, evidence, SETTINGS, target_rate=RATE)

    return judge


def rule(report: GateReport, name: str) -> Any:
    return next(each for each in report.rules if each.rule == name)


def in_any(rows: NDArray[Any], of: NDArray[Any]) -> NDArray[np.bool_]:
    known = {row.tobytes() for row in of}
    return np.array([row.tobytes() in known for row in rows])


def test_a_version_as_good_as_the_champion_passes_every_rule(
    judge: Callable[[Detector], GateReport], challenger: Detector, image_trained: Trained
) -> None:
    report = judge(challenger)
    assert report.passed, report.why_refused()
    assert report.champion == image_trained.detector.version != challenger.version
    assert [each.rule for each in report.rules] == [
        *("inputs", "evidence", "sound", "labelled_auroc", "synthetic_auroc"),
        *("false_alarms", "calibration", "latency", "agreement"),
    ]
    for name in ("labelled_auroc", "synthetic_auroc", "false_alarms", "calibration", "latency"):
        found = rule(report, name)
        assert found.figure is not None, name
        assert found.reference is not None, name
        assert found.limit is not None, name
    assert rule(report, "agreement").figure > 0.8
    assert 0.8 < rule(report, "synthetic_auroc").reference < 1.0  # it can get better, and worse


def noise_on_weights(network: Network) -> None:
    torch.manual_seed(0)
    for weight in network.parameters():
        weight.add_(torch.randn_like(weight) * weight.abs().mean())


def collapsed_encoder(network: Network) -> None:
    for weight in network.encoder.parameters():
        weight.zero_()


def nan_weights(network: Network) -> None:
    for weight in network.encoder.parameters():
        weight.fill_(torch.nan)


@pytest.mark.parametrize(
    ("damage", "rules"),
    [
        (noise_on_weights, {"synthetic_auroc", "calibration", "false_alarms"}),
        (collapsed_encoder, {"synthetic_auroc"}),
        (nan_weights, {"sound"}),
    ],
)
def test_a_damaged_network_is_refused(
    judge: Callable[[Detector], GateReport], challenger: Detector, damage: Callable[[Network], None], rules: set[str]
) -> None:
    report = judge(damaged(challenger, damage))
    assert rules & set(report.refused_by), [str(each) for each in report.rules]
    assert all(name in report.why_refused() for name in report.refused_by)


def test_scores_that_are_not_finite_say_how_many(
    judge: Callable[[Detector], GateReport], challenger: Detector, evidence: GateEvidence
) -> None:
    def spoil(inputs: NDArray[Any], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(in_any(inputs, evidence.fresh[:3]), np.float32(np.nan), scores)

    report = judge(changed(challenger, spoil))
    assert report.refused_by == ("sound",)
    assert "3 of " in rule(report, "sound").why


def test_one_score_for_everything_is_no_score(judge: Callable[[Detector], GateReport], challenger: Detector) -> None:
    report = judge(changed(challenger, lambda _, scores: np.full_like(scores, 0.4)))
    assert report.refused_by == ("sound",)
    assert rule(report, "sound").figure == 1.0


def test_labelled_anomalies_that_are_no_longer_found_are_one_rules_affair(
    judge: Callable[[Detector], GateReport], challenger: Detector, evidence: GateEvidence
) -> None:
    assert evidence.labelled_x is not None
    lost = evidence.labelled_x[40:50]
    report = judge(changed(challenger, lambda rows, scores: np.where(in_any(rows, lost), 0.2, scores)))
    assert report.refused_by == ("labelled_auroc",)


def test_synthetic_anomalies_that_are_no_longer_found_are_one_rules_affair(
    judge: Callable[[Detector], GateReport], challenger: Detector, evidence: GateEvidence
) -> None:
    assert evidence.labelled_x is not None
    real = np.concatenate([evidence.fresh, evidence.labelled_x])

    def blind(rows: NDArray[Any], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(in_any(rows, real), scores, 0.5 * scores)

    assert judge(changed(challenger, blind)).refused_by == ("synthetic_auroc",)


def test_many_small_steps_down_are_held_against_what_a_person_last_put_in_service(
    image_trained: Trained, evidence: GateEvidence
) -> None:
    """Each version is blinder than the one before, by less than the margin."""
    assert evidence.labelled_x is not None
    real = np.concatenate([evidence.fresh, evidence.labelled_x])

    def blinded(factor: float) -> Detector:
        return changed(image_trained.detector, lambda rows, was: np.where(in_any(rows, real), was, factor * was))

    chain = [blinded(factor) for factor in (1.0, 0.84, 0.72, 0.6)]
    alone = [examine(new, old, evidence, SETTINGS, target_rate=RATE) for old, new in pairwise(chain)]
    anchored = [
        examine(new, old, evidence, SETTINGS, target_rate=RATE, anchor=chain[0]) for old, new in pairwise(chain)
    ]
    assert [report.refused_by for report in alone] == [()] * 3
    assert anchored[0].passed
    assert anchored[-1].refused_by == ("synthetic_auroc",)
    assert "which a person last put in service" in rule(anchored[-1], "synthetic_auroc").why
    assert rule(anchored[-1], "synthetic_auroc").reference == rule(anchored[0], "synthetic_auroc").reference


def test_an_anchor_that_takes_other_records_or_is_broken_is_no_measure(
    image_trained: Trained, sequence_trained: Trained, challenger: Detector, evidence: GateEvidence
) -> None:
    champion = image_trained.detector
    for anchor in (sequence_trained.detector, damaged(champion, nan_weights)):
        report = examine(challenger, champion, evidence, SETTINGS, target_rate=RATE, anchor=anchor)
        assert report.passed, report.why_refused()


def test_false_alarms_beyond_the_budget_are_one_rules_affair(
    judge: Callable[[Detector], GateReport], challenger: Detector
) -> None:
    """What was one record in ten is past the threshold of one in a hundred; the rest is as it was."""
    report = judge(changed(challenger, lambda _, scores: np.where(scores > 1.0, scores + 1.05, scores)))
    assert report.refused_by == ("false_alarms",)
    assert rule(report, "false_alarms").figure > 3 * RATE


def test_a_calibration_that_has_shifted_is_one_rules_affair(
    judge: Callable[[Detector], GateReport], challenger: Detector
) -> None:
    """In the bulk of the scores, where no alarm is raised."""
    report = judge(changed(challenger, lambda _, scores: np.where(scores < 1.0, 0.8 + 0.2 * scores, scores)))
    assert report.refused_by == ("calibration",)


def test_few_records_are_given_the_benefit_of_chance(
    challenger: Detector, image_trained: Trained, evidence: GateEvidence
) -> None:
    """The same share of false alarms: of 60 records it may be chance, of 280 it can't."""
    high = changed(challenger, lambda rows, scores: np.where(np.arange(len(rows)) % 20 == 0, 2.2, scores.clip(0, 1.9)))
    verdicts = []
    for fresh in (evidence.fresh[:60], np.concatenate([evidence.fresh] * 4)):
        report = examine(high, image_trained.detector, GateEvidence(fresh), SETTINGS, target_rate=RATE)
        verdicts.append((rule(report, "false_alarms").passed, round(rule(report, "false_alarms").figure, 2)))
    assert verdicts == [(True, 0.05), (False, 0.05)]


def test_a_slow_version_is_refused_by_latency_alone(
    challenger: Detector, image_trained: Trained, evidence: GateEvidence
) -> None:
    clock = ManualClock()

    def takes(detector: Detector, seconds: float) -> Detector:
        def change(_: NDArray[Any], scores: NDArray[np.float32]) -> NDArray[np.float32]:
            clock.advance(seconds)
            return scores

        return changed(detector, change)

    champion, anchor = takes(image_trained.detector, 0.1), takes(image_trained.detector, 0.06)
    verdicts = {}
    for seconds in (0.11, 0.19, 0.21):
        slow = takes(challenger, seconds)
        alone = examine(slow, champion, evidence, GateSettings(), target_rate=RATE, clock=clock)
        anchored = examine(slow, champion, evidence, GateSettings(), target_rate=RATE, clock=clock, anchor=anchor)
        verdicts[seconds] = alone.refused_by, anchored.refused_by
        assert rule(alone, "latency").figure == pytest.approx(seconds / 256)
    assert verdicts == {0.11: ((), ()), 0.19: ((), ("latency",)), 0.21: (("latency",), ("latency",))}


def test_a_version_that_turns_the_order_round_does_not_agree(
    judge: Callable[[Detector], GateReport], challenger: Detector
) -> None:
    report = judge(changed(challenger, lambda _, scores: 4.0 - scores.clip(0.0, 4.0)))
    assert "agreement" in report.refused_by
    assert rule(report, "agreement").figure < 0


def test_nobody_has_to_agree_with_a_champion_that_no_longer_fits(
    challenger: Detector, image_trained: Trained, evidence: GateEvidence
) -> None:
    drifted = changed(image_trained.detector, lambda _, scores: 6.0 - scores.clip(0.0, 4.0))
    report = examine(challenger, drifted, evidence, SETTINGS, target_rate=RATE)
    assert report.passed, report.why_refused()
    assert rule(report, "agreement").why.startswith("not asked for, as the champion no longer fits")


def test_without_a_champion_the_versions_own_rules_count(challenger: Detector, evidence: GateEvidence) -> None:
    report = examine(challenger, None, evidence, SETTINGS, target_rate=RATE)
    assert report.passed, report.why_refused()
    assert report.champion is None
    for name in ("labelled_auroc", "synthetic_auroc", "latency"):
        assert rule(report, name).figure is not None
        assert "no sound champion" in rule(report, name).why
    shifted = changed(challenger, lambda _, scores: scores + 1.5)
    assert examine(shifted, None, evidence, SETTINGS, target_rate=RATE).refused_by == ("false_alarms", "calibration")


def test_a_champion_that_gives_nan_is_no_measure(
    challenger: Detector, image_trained: Trained, evidence: GateEvidence
) -> None:
    report = examine(challenger, damaged(image_trained.detector, nan_weights), evidence, SETTINGS, target_rate=RATE)
    assert report.passed, report.why_refused()
    assert rule(report, "agreement").figure is None


def test_too_little_to_judge_with_is_a_refusal_and_too_few_labels_are_not(
    challenger: Detector, image_trained: Trained, evidence: GateEvidence
) -> None:
    few = replace(evidence, fresh=evidence.fresh[:49])
    report = examine(challenger, image_trained.detector, few, SETTINGS, target_rate=RATE)
    assert report.refused_by == ("evidence",)
    assert (rule(report, "evidence").figure, rule(report, "evidence").limit) == (49, 50)
    assert evidence.labelled_x is not None
    assert evidence.labelled_y is not None
    nine = replace(evidence, labelled_x=evidence.labelled_x[:49], labelled_y=evidence.labelled_y[:49])
    report = examine(challenger, image_trained.detector, nine, SETTINGS, target_rate=RATE)
    assert report.passed
    assert rule(report, "labelled_auroc").figure is None
    assert "not judged: 40 records labelled normal and 9 labelled anomalous" in rule(report, "labelled_auroc").why


def test_a_version_for_other_records_is_refused(
    challenger: Detector, sequence_trained: Trained, evidence: GateEvidence
) -> None:
    report = examine(challenger, sequence_trained.detector, evidence, SETTINGS)
    assert report.refused_by == ("inputs",)
    assert "input_shape (8, 8, 1), the champion's is (24, 1)" in report.why_refused()


def test_windows_are_judged_too_and_count_for_what_they_do_not_share(
    sequence_trained: Trained, calm_water: Dataset
) -> None:
    fresh = np.ascontiguousarray(calm_water.x)
    again = examine(sequence_trained.detector, sequence_trained.detector, GateEvidence(fresh), SETTINGS)
    assert again.passed, again.why_refused()
    assert "they overlap and count as 2" in rule(again, "false_alarms").why  # 530 hours are 22 days
    high = changed(sequence_trained.detector, lambda _, scores: scores + 2.0)
    report = examine(high, sequence_trained.detector, GateEvidence(fresh), SETTINGS, target_rate=RATE)
    assert {"calibration"} <= set(report.refused_by) <= {"calibration", "false_alarms"}


@pytest.mark.parametrize(("stride", "count"), [(24, 40), (12, 20), (1, 3)])
def test_overlapping_windows_count_by_their_observations(stride: int, count: int) -> None:
    series = np.random.default_rng(0).normal(size=(24 + 39 * stride, 2)).astype(np.float32)
    windows = np.stack([series[start * stride : start * stride + 24] for start in range(40)])
    assert independent_windows(windows) == pytest.approx(count, rel=0.15)


def trained(dataset: Dataset, folder: Path, judge: Callable[[Detector], GateReport]) -> tuple[Registry, Any]:
    registry = Registry(str(folder))
    return registry, train(dataset, "image", registry, "digits", device="cpu", steps=3, examine=judge)


def test_the_report_is_saved_with_the_version_and_a_refused_one_is_never_promoted(
    digit_split: tuple[Dataset, Dataset], evidence: GateEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder collapses after the last look at it, so that only the gate is left to see it."""
    real = loop.learn

    def collapsing(network: Network, *rest: Any) -> Learned:
        learned = real(network, *rest)
        with torch.no_grad():
            collapsed_encoder(network)
        return learned

    registry, first = trained(digit_split[0], tmp_path, lambda new: examine(new, None, evidence, SETTINGS))
    assert first.gate is not None
    assert first.gate.passed, first.gate.why_refused()
    assert first.champion
    assert registry.versions("digits")[0].gate == first.gate
    card = (Path(first.path) / "card.md").read_text()
    assert "**Gate**, without a champion: passed." in card
    assert all(f"| {each.rule} |" in card for each in first.gate.rules)

    champion = registry.load("digits", first.version, "cpu")
    monkeypatch.setattr(loop, "learn", collapsing)
    _, second = trained(digit_split[0], tmp_path, lambda new: examine(new, champion, evidence, SETTINGS))
    assert second.gate is not None
    assert "synthetic_auroc" in second.gate.refused_by
    assert not second.champion
    assert registry.champion("digits") == first.version
    saved = next(each for each in registry.versions("digits") if each.version == second.version)
    assert saved.gate == second.gate
    assert "refused by" in (Path(second.path) / "card.md").read_text()


def test_training_that_ends_in_nan_saves_nothing_for_the_gate_to_see(
    digit_split: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.learn

    def diverging(network: Network, *rest: Any) -> Learned:
        learned = real(network, *rest)
        with torch.no_grad():
            nan_weights(network)
        return learned

    monkeypatch.setattr(loop, "learn", diverging)
    registry = Registry(str(tmp_path))
    with pytest.raises(TrainingError, match=r"training diverged: encoder.* are not finite; nothing was saved"):
        train(digit_split[0], "image", registry, "digits", device="cpu", steps=3)
    assert registry.detectors() == []


def test_a_report_survives_its_file(judge: Callable[[Detector], GateReport], challenger: Detector) -> None:
    report = judge(challenger)
    manifest = challenger.manifest.model_copy(update={"gate": report})
    assert Manifest.parse(manifest.model_dump_json().encode(), "here").gate == report
