from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from model.gaussian import SHRINKAGE, ShrunkGaussian


def test_mahalanobis_equals_the_formula_when_all_components_are_kept(digits: NDArray[np.uint8]) -> None:
    rows = digits[:500, 2:5].reshape(500, -1).astype(np.float64)
    gaussian = ShrunkGaussian(rows.shape[1], rows.shape[1])
    gaussian.fit(torch.from_numpy(rows).float())
    covariance = np.cov(rows.T)
    width = len(covariance)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / width * np.eye(width)
    centred = rows - rows.mean(axis=0)
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(shrunk), centred) / width
    found = gaussian.distance(*gaussian.coordinates(torch.from_numpy(rows).float()))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)


def test_mahalanobis_with_fewer_components_stays_near_the_full_one(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits.reshape(len(digits), -1)).float()
    full, few = ShrunkGaussian(64, 64), ShrunkGaussian(64, 24)
    full.fit(rows)
    few.fit(rows)
    first, second = (gaussian.distance(*gaussian.coordinates(rows)).numpy() for gaussian in (full, few))
    assert np.corrcoef(first, second)[0, 1] > 0.95


def test_mahalanobis_takes_fewer_records_than_dimensions(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits.reshape(len(digits), -1)).float()
    gaussian = ShrunkGaussian(64, 48)
    gaussian.fit(rows[:20])
    distance = gaussian.distance(*gaussian.coordinates(rows))
    assert torch.isfinite(distance).all()
    assert distance.min() >= 0


def test_shares_add_up_to_the_distance_and_name_the_number_that_is_wrong(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits.reshape(len(digits), -1)).float()
    gaussian = ShrunkGaussian(64, 40)
    gaussian.fit(rows)
    expected = gaussian.distance(*gaussian.coordinates(rows))
    torch.testing.assert_close(gaussian.shares(rows).mean(dim=1), expected, rtol=1e-3, atol=1e-4)
    wrong = rows[:100].clone()
    wrong[:, 27] += 60.0
    assert (gaussian.shares(wrong).argmax(dim=1) == 27).float().mean() > 0.95


def test_missing_numbers_are_filled_so_that_the_distance_is_that_of_the_seen_ones(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits[:500, 2:5].reshape(500, -1)).float()
    gaussian = ShrunkGaussian(24, 24)
    gaussian.fit(rows)
    broken = rows[:20].clone()
    broken[:, 5:9] = torch.nan
    filled = gaussian.fill(broken)
    seen = np.setdiff1d(np.arange(24), np.arange(5, 9))
    assert torch.equal(filled[:, seen], rows[:20][:, seen])
    wide = torch.diag(gaussian.variances - gaussian.rest)
    covariance = gaussian.axes @ wide @ gaussian.axes.T + gaussian.rest * torch.eye(24)
    known = (rows[:20] - gaussian.mean)[:, seen].double().numpy()
    inverse = np.linalg.inv(covariance.double().numpy()[np.ix_(seen, seen)])
    expected = np.einsum("ni,ij,nj->n", known, inverse, known) / 24
    found = gaussian.distance(*gaussian.coordinates(filled))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-2)


def test_a_guess_at_a_missing_number_is_better_than_its_mean(digits: NDArray[np.uint8]) -> None:
    rows = torch.from_numpy(digits.reshape(len(digits), -1)).float()
    gaussian = ShrunkGaussian(64, 40)
    gaussian.fit(rows[:1000])
    broken = rows[1000:].clone()
    broken[:, 27] = torch.nan
    error = (gaussian.fill(broken)[:, 27] - rows[1000:, 27]).abs().mean()
    assert error < 0.7 * (gaussian.mean[27] - rows[1000:, 27]).abs().mean()
