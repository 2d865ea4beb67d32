from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from model.calibration import BEND, EXACT_UP_TO, Tail, calibrate, join, pareto_by_moments, read_sketch, write_sketch
from model.config import Profile

ALIKE = dict.fromkeys("abcde", 1.0)


def everywhere(*evidence: str) -> dict[Profile, dict[str, float]]:
    return dict.fromkeys(Profile, dict.fromkeys(evidence, 1.0))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def pareto(random: np.random.Generator, shape: float, scale: float, count: int) -> NDArray[np.float64]:
    return scale * (random.random(count) ** -shape - 1.0) / shape


@pytest.mark.parametrize(("shape", "scale"), [(0.1, 1.0), (0.2, 3.0), (0.35, 0.5)])
def test_moments_recover_a_pareto_law(random: np.random.Generator, shape: float, scale: float) -> None:
    found_shape, found_scale = pareto_by_moments(pareto(random, shape, scale, 200_000))
    assert found_shape == pytest.approx(shape, abs=0.02)
    assert found_scale == pytest.approx(scale, rel=0.03)


def test_moments_by_hand() -> None:
    # Excesses 1, 2, 9: mean 4; plotting positions (j − 0.35)/3; a1 = (0.78333·1 + 0.45·2 + 0.11667·9)/3 = 0.91111.
    shape, scale = pareto_by_moments([9.0, 1.0, 2.0])
    gap = 4.0 - 2 * 0.911111
    assert shape == pytest.approx(2.0 - 4.0 / gap, abs=1e-4)
    assert scale == pytest.approx(2 * 4.0 * 0.911111 / gap, abs=1e-4)


def test_a_tail_that_would_end_is_taken_as_exponential(random: np.random.Generator) -> None:
    uniform = random.random(10_000)
    shape, scale = pareto_by_moments(uniform)
    assert shape == 0.0
    assert scale == pytest.approx(uniform.mean())


def test_a_tail_without_variance_is_held_at_one_half(random: np.random.Generator) -> None:
    shape, _ = pareto_by_moments(pareto(random, 0.9, 1.0, 50_000))
    assert shape == 0.5


@pytest.mark.parametrize("law", ["exponential", "lognormal", "gamma"])
def test_shares_of_fresh_normals_are_what_the_scores_say(random: np.random.Generator, law: str) -> None:
    draws: dict[str, Callable[[int], NDArray[np.float64]]] = {
        "exponential": lambda count: random.exponential(3.0, count),
        "lognormal": lambda count: random.lognormal(0.0, 0.6, count),
        "gamma": lambda count: random.gamma(2.0, 1.0, count) - 5.0,
    }
    draw = draws[law]
    shares = np.array([0.5, 0.1, 0.01, 0.001])
    # One held-out set of 1,500 can be off by a half at one in a thousand; many of them must not be off together.
    found = [(Tail.fit(draw(1500)).surprise(draw(20_000))[:, None] >= -np.log(shares)).mean(axis=0) for _ in range(25)]
    np.testing.assert_allclose(np.mean(found, axis=0), shares, rtol=0.4)
    np.testing.assert_allclose(np.mean(found, axis=0)[:2], shares[:2], rtol=0.08)


def test_the_joint_score_is_honest_on_fresh_normals_of_correlated_evidence(random: np.random.Generator) -> None:
    def draw(count: int) -> dict[str, NDArray[np.float32]]:
        common = random.normal(size=count)
        noise = random.normal(size=(3, count))
        rows = [np.exp(0.5 * (common + noise[0])), common + 0.3 * noise[1], 10.0 * noise[2] ** 2]
        return {name: row.astype(np.float32) for name, row in zip("abc", rows, strict=True)}

    fitted = calibrate(draw(1000), everywhere("a", "b", "c"))
    scores = fitted.calibration.score(draw(100_000))
    assert scores.dtype == np.float32
    for score in (0.3, 1.0, 2.0):
        share = 10.0**-score
        assert (scores >= score).mean() == pytest.approx(share, rel=0.2 if score < 1.5 else 0.8)
        assert (fitted.scores >= score).mean() == pytest.approx(share, rel=0.3 if score < 1.5 else 1.0)


def test_surprise_never_falls_and_has_no_jumps(random: np.random.Generator) -> None:
    tail = Tail.fit(random.lognormal(size=400))
    raw = np.linspace(-1.0, 60.0, 400_000)
    steps = np.diff(tail.surprise(raw))
    assert steps.min() >= 0.0
    assert steps.max() < 0.05
    assert np.isfinite(tail.surprise([-1e30, 1e30])).all()
    assert 0.0 <= tail.surprise([-1e30])[0] < 0.01


def test_ties_do_not_break_a_tail() -> None:
    mostly = Tail.fit([0.0] * 95 + [1.0] * 5)
    assert np.isfinite(mostly.surprise([-1.0, 0.0, 0.5, 1.0, 2.0])).all()
    assert np.diff(mostly.surprise([0.0, 0.5, 1.0, 2.0])).min() >= 0
    alike = Tail.fit([3.0] * 50)
    assert alike.surprise([3.0])[0] < alike.surprise([4.0])[0] < np.inf


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan, 2.0], [1.0, np.inf, 2.0]])
def test_values_that_no_tail_can_be_made_of_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        Tail.fit(values)


def test_evidence_that_is_the_same_everywhere_is_refused() -> None:
    with pytest.raises(ValueError, match="same for every record"):
        calibrate({"a": np.ones(50, dtype=np.float32)}, everywhere("a"))


def test_one_evidence_alone_counts_less_than_all_together() -> None:
    one = join({"a": np.array([200.0]), "b": np.array([0.5]), "c": np.array([0.5])}, ALIKE)
    both = join({"a": np.array([200.0]), "b": np.array([200.0]), "c": np.array([0.5])}, ALIKE)
    squares = np.square(BEND * np.log1p(np.array([200.0, 0.5, 0.5]) / BEND))
    assert one[0] == pytest.approx(np.sqrt(squares.mean()))
    assert one[0] < both[0]


def test_an_evidence_counts_by_its_weight() -> None:
    values = {"a": np.array([1.0, 6.0, 1.0]), "b": np.array([1.0, 1.0, 6.0])}
    first, by_a, by_b = join(values, {"a": 1.0, "b": 0.1}).tolist()
    assert first < by_b < by_a
    assert join(values, {"a": 1.0, "b": 1e-9})[1] == pytest.approx(join({"a": values["a"]}, ALIKE)[1])


def test_the_joint_score_never_stops_growing() -> None:
    values = join({"a": np.array([0.0, 1.0, 10.0, 100.0, 1e4, 1e8])}, ALIKE)
    assert (np.diff(values) > 0).all()
    assert values[1] == pytest.approx(1.0, abs=0.05)


def test_the_same_held_out_records_give_the_same_calibration(random: np.random.Generator) -> None:
    raw = {name: random.normal(size=EXACT_UP_TO).astype(np.float32) for name in "ab"}
    first, second = (calibrate(raw, everywhere("a", "b")) for _ in range(2))
    assert first.calibration == second.calibration
    assert write_sketch(first.scores) == write_sketch(second.scores)


def test_a_sketch_of_held_out_scores_is_exact_and_survives_its_text(random: np.random.Generator) -> None:
    values = random.normal(size=EXACT_UP_TO).astype(np.float32)
    sketch = read_sketch(write_sketch(values))
    assert sketch.n == EXACT_UP_TO
    assert not sketch.is_estimation_mode()
    assert sorted(item for item, _ in sketch) == sorted(values.tolist())


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"\x01\x02\x03").decode()])
def test_a_broken_sketch_is_refused(text: str, random: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="REQ sketch"):
        read_sketch(text)
    good = Tail.fit(random.normal(size=100)).model_dump()
    with pytest.raises(ValidationError):
        Tail.model_validate({**good, "sketch": text})


def test_a_calibration_survives_json(random: np.random.Generator) -> None:
    raw = {"a": random.normal(size=200).astype(np.float32)}
    calibration = calibrate(raw, everywhere("a")).calibration
    again = type(calibration).model_validate_json(calibration.model_dump_json())
    np.testing.assert_array_equal(again.score(raw), calibration.score(raw))


def test_each_profile_is_calibrated_on_its_own_evidence(random: np.random.Generator) -> None:
    raw = {name: random.normal(size=1000).astype(np.float32) for name in "abc"}
    used = {Profile.ACCURATE: {"a": 1.0, "b": 1.0, "c": 0.1}, Profile.FAST: {"a": 1.0}}
    calibration = calibrate(raw, used).calibration
    fresh = {name: random.normal(size=20_000).astype(np.float32) for name in "abc"}
    for profile in Profile:
        assert (calibration.score(fresh, profile) >= 1.0).mean() == pytest.approx(0.1, rel=0.35)
    only_a = {"a": fresh["a"]}
    np.testing.assert_array_equal(calibration.score(only_a, Profile.FAST), calibration.score(fresh, Profile.FAST))
    with pytest.raises(ValidationError, match="profile fast is missing"):
        type(calibration)(evidence=calibration.evidence, joint={Profile.ACCURATE: calibration.joint[Profile.ACCURATE]})


def test_an_evidence_that_sees_nothing_is_forgiven(random: np.random.Generator) -> None:
    normal, strange = random.exponential(size=(5, 5000)), random.exponential(size=(5, 5000))
    strange[0] += 5.0
    names = "abcde"
    joined = [join(dict(zip(names, some, strict=True)), ALIKE) for some in (normal, strange)]
    mean = [some.mean(axis=0) for some in (normal, strange)]
    separated = [(strangest > np.quantile(usual, 0.99)).mean() for usual, strangest in (joined, mean)]
    assert separated[0] > separated[1] + 0.1


def test_a_score_means_what_later_windows_show_where_there_are_any(random: np.random.Generator) -> None:
    raw = {name: random.normal(size=1000).astype(np.float32) for name in "ab"}
    later = {name: (1.0 + 2.0 * random.normal(size=1000)).astype(np.float32) for name in "ab"}
    drifted = {name: (1.0 + 2.0 * random.normal(size=50_000)).astype(np.float32) for name in "ab"}
    fitted = calibrate(raw, everywhere("a", "b"), later=later)
    assert (fitted.calibration.score(drifted) >= 2.0).mean() == pytest.approx(0.01, rel=0.5)
    assert (calibrate(raw, everywhere("a", "b")).calibration.score(drifted) >= 2.0).mean() > 0.1
    assert len(fitted.scores) == 1000
    assert (fitted.scores >= 1.0).mean() < 0.02


def test_few_neighbouring_windows_do_not_make_a_tail_that_is_too_steep(random: np.random.Generator) -> None:
    def moving(count: int) -> dict[str, NDArray[np.float32]]:
        """Logarithms of energy in windows of 64 that overlap by all but one, of three series."""
        squares = np.square(random.standard_normal((count + 63, 3)))
        means = np.lib.stride_tricks.sliding_window_view(squares, 64, axis=0).mean(axis=2)
        return {f"evidence_{i}": np.log(means[:, i]).astype(np.float32) for i in range(3)}

    used = everywhere("evidence_0", "evidence_1", "evidence_2")
    fresh = moving(20_000)
    alarms = {}
    for least in (0.0, 0.4):
        runs = [calibrate(moving(84), used, least_scale=least).calibration.score(fresh) for _ in range(10)]
        alarms[least] = [float((np.concatenate(runs) >= score).mean()) for score in (2.0, 3.0)]
    assert alarms[0.0][0] > 0.1
    assert alarms[0.4][0] < 0.015
    assert alarms[0.4][1] < 0.0015
