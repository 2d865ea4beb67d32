from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from stream_app.errors import UsageError
from tests.unit.training.conftest import Trained
from training.baselines import BASELINES
from training.data import Dataset, from_arrays
from training.evaluate import BY_REFERENCE, CROSS_FITTED, evaluate


def test_the_detectors_row_is_what_its_scores_say(image_trained: Trained) -> None:
    test = image_trained.test
    assert test.y is not None
    said: list[str] = []
    evaluation = evaluate(image_trained.detector, test, target_rate=0.01, on_progress=said.append)
    scores = image_trained.detector.score(test.x).score
    row = evaluation.model
    assert row.auroc == pytest.approx(roc_auc_score(test.y, scores))
    assert row.auprc == pytest.approx(average_precision_score(test.y, scores))
    assert row.threshold == 2.0
    assert row.f1 == pytest.approx(f1_score(test.y, scores >= 2.0))
    assert row.records_per_second > 100
    assert evaluation.protocol == CROSS_FITTED
    assert said == ["digits", *BASELINES]
    data = json.loads(json.dumps(evaluation.to_json()))
    assert data["auroc"] == row.auroc
    assert set(data["baselines"]) == set(BASELINES)
    assert data["normal"] + data["anomalous"] == len(test)


def test_figures_come_with_how_sure_they_are(image_trained: Trained) -> None:
    test = image_trained.test
    evaluation = evaluate(image_trained.detector, test, target_rate=0.05)
    for row in evaluation.rows:
        for name in ("auroc", "precision", "recall", "false_alarm_rate"):
            low, high = row.credible[name]
            assert low <= getattr(row, name) <= high or getattr(row, name) in (0.0, 1.0), (row.method, name)
    own = evaluation.scores["ganomaly"]
    assert evaluation.model.false_alarm_rate == (own[evaluation.labels == 0] >= evaluation.model.threshold).mean()
    data = orjson.loads(orjson.dumps(evaluation.to_json()))
    assert data["credible"]["auroc"] == list(evaluation.model.credible["auroc"])
    assert data["budget"] == 0.05
    assert "kinds" not in data
    assert "robustness" not in data


def test_each_kind_is_measured_against_all_normal_records(image_trained: Trained) -> None:
    test = image_trained.test
    assert test.y is not None
    kinds = np.where(test.y == 1, np.where(np.arange(len(test)) % 2, "odd", "even"), "clean")
    evaluation = evaluate(image_trained.detector, test, kinds=kinds)
    scores = image_trained.detector.score(test.x).score
    assert set(evaluation.model.kinds) == {"even", "odd"}
    for name, of in evaluation.model.kinds.items():
        shown = (test.y == 0) | (kinds == name)
        assert of.auroc == pytest.approx(roc_auc_score(test.y[shown], scores[shown]))
        assert of.records == ((test.y == 1) & (kinds == name)).sum()
    assert evaluation.to_json()["baselines"]["knn"]["kinds"]["odd"]["auroc"] > 0.0


def test_robustness_is_the_same_on_changed_records_for_every_method(sequence_trained: Trained) -> None:
    evaluation = evaluate(sequence_trained.detector, sequence_trained.test, robustness=True)
    assert set(evaluation.robustness) == {"level", "gain", "noise"}
    for rows in evaluation.robustness.values():
        assert list(rows) == [row.method for row in evaluation.rows]
        assert all(0.0 <= row.auroc <= 1.0 for row in rows.values())
    noisy = evaluation.to_json()["robustness"]["noise"]["ganomaly"]
    assert noisy["auroc"] != evaluation.model.auroc


def test_every_baseline_is_better_than_chance_on_an_unseen_digit(
    image_trained: Trained, digit_split: tuple[Dataset, Dataset]
) -> None:
    evaluation = evaluate(image_trained.detector, image_trained.test, digit_split[0])
    assert evaluation.protocol == BY_REFERENCE
    for row in evaluation.rows[1:]:
        assert row.auroc > 0.55, row.method
        assert row.records_per_second > 0


def test_a_series_is_evaluated_with_all_baselines(sequence_trained: Trained) -> None:
    evaluation = evaluate(sequence_trained.detector, sequence_trained.test)
    assert [row.method for row in evaluation.rows] == ["ganomaly", *BASELINES]
    assert min(row.auroc for row in evaluation.rows) > 0.6


def test_the_same_seed_gives_the_same_figures(sequence_trained: Trained, calm_water: Dataset) -> None:
    first, second = (evaluate(sequence_trained.detector, sequence_trained.test, calm_water) for _ in range(2))
    for one, other in zip(first.rows, second.rows, strict=True):
        assert (one.auroc, one.auprc, one.f1) == (other.auroc, other.auprc, other.f1)


def test_data_that_cannot_be_evaluated_is_refused(image_trained: Trained, calm_water: Dataset) -> None:
    detector, test = image_trained.detector, image_trained.test
    assert test.y is not None
    with pytest.raises(UsageError, match=r"takes image records of shape \[8, 8, 1\]"):
        evaluate(detector, calm_water)
    with pytest.raises(UsageError, match="no labels"):
        evaluate(detector, from_arrays(test.x, "image"))
    with pytest.raises(UsageError, match="0 anomalous records"):
        evaluate(detector, from_arrays(test.x, "image", y=np.zeros(len(test))))
    few = np.concatenate([np.flatnonzero(test.y == 0)[:30], np.flatnonzero(test.y)])
    with pytest.raises(UsageError, match="at least 40 are needed"):
        evaluate(detector, from_arrays(test.x[few], "image", y=test.y[few]))
