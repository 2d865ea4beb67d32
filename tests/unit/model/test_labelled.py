from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from model.labelled import RIDGE, LabelledEvidence, Verdict


def two_clouds() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(size=(300, 5)), random.normal(2.0 * np.eye(5)[0], size=(12, 5))])
    return torch.from_numpy(rows).float(), torch.arange(312) >= 300


def test_a_verdict_is_a_balanced_logistic_regression_on_standardised_numbers() -> None:
    rows, anomalous = two_clouds()
    verdict = Verdict(5)
    verdict.fit(rows, anomalous)
    # The penalty of scikit-learn is on the sum over the records, ours on the mean.
    reference = LogisticRegression(C=1.0 / (RIDGE * len(rows)), class_weight="balanced", tol=1e-8, max_iter=1000)
    inputs = ((rows - rows.mean(dim=0)) / rows.std(dim=0)).numpy()
    reference.fit(inputs, anomalous.numpy())
    np.testing.assert_allclose(verdict(rows).numpy(), reference.decision_function(inputs), atol=2e-3)


def test_the_evidence_is_the_mean_of_both_views() -> None:
    rows, anomalous = two_clouds()
    evidence = LabelledEvidence(5, 2)
    evidence.first.fit(rows, anomalous)
    evidence.second.fit(rows[:, :2], anomalous)
    odds = evidence(rows, rows[:, :2])
    assert torch.equal(odds, 0.5 * (evidence.first(rows) + evidence.second(rows[:, :2])))
    assert odds[anomalous].mean() > odds[~anomalous].mean() + 1.0


def test_what_was_fitted_is_saved_with_the_weights() -> None:
    rows, anomalous = two_clouds()
    evidence, again = LabelledEvidence(5, 5), LabelledEvidence(5, 5)
    evidence.first.fit(rows, anomalous)
    evidence.second.fit(rows, anomalous)
    again.load_state_dict(evidence.state_dict())
    assert torch.equal(again(rows, rows), evidence(rows, rows))
