"""From raw evidence to a score that means the same everywhere.

It is −log10 of the share of held-out normal records that score as high.

Sources:
- The share itself: V. Vovk, A. Gammerman, G. Shafer, Algorithmic learning in a random world, 2005, section 2.2, with
  Weibull's plotting positions i / (n + 1) so that its mean is unbiased.
- Beyond the largest tenth: J. Pickands, Ann. Statist. 3, 1975, and A. Balkema, L. de Haan, Ann. Probab. 2, 1974:
  excesses over a high level follow a generalized Pareto law; used for streams by A. Siffer et al., KDD 2017.
- Its fit: J. Hosking, J. Wallis, Parameter and quantile estimation for the generalized Pareto distribution,
  Technometrics 29, 1987, section 4 (probability-weighted moments).
- Joining evidences: R. Fisher, Statistical methods for research workers, section 21.1: the sum of the −log p. The p of
  several evidences of one record depend on each other, so the sum is calibrated again and not read off a table.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated

import numpy as np
from datasketches import req_floats_sketch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.config import Profile

Floats = NDArray[np.float64]

SKETCH_K = 254  # the most the library takes (it keeps k in a byte, 256 becomes 4)
EXACT_UP_TO = 1500  # values a sketch of this k holds without loss, so that the same data gives the same calibration
TAIL_SHARE = 0.1
MIN_EXCESSES = 20
MAX_SHAPE = 0.5  # a heavier tail has no variance, and no held-out set can show it
MOST_KNOTS = 40  # far apart, so that two held-out records that nearly tie make no step
BEND = 24.0  # nats: beyond about here an evidence gains slowly, so that one alone can't outvote all others together
FOLDS = 10


def pareto_by_moments(excesses: ArrayLike) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto law from excesses `[n]` > 0, by probability-weighted moments.

    The shape is held in 0…0.5. Below 0 the law would end at a finite value and call everything beyond it impossible;
    there the exponential law of the same mean stands in, which errs towards fewer alarms.
    """
    ordered = np.sort(np.asarray(excesses, dtype=np.float64))
    count = len(ordered)
    mean = float(ordered.mean())
    above = 1.0 - (np.arange(1, count + 1) - 0.35) / count
    weighted = float((above * ordered).mean())
    gap = mean - 2.0 * weighted
    if gap <= 0.0:  # the law's shape would be 1 or more
        return MAX_SHAPE, mean * (1.0 - MAX_SHAPE)
    shape = 2.0 - mean / gap
    if shape <= 0.0:
        return 0.0, mean
    if shape > MAX_SHAPE:
        return MAX_SHAPE, mean * (1.0 - MAX_SHAPE)
    return shape, 2.0 * mean * weighted / gap


class Tail(BaseModel):
    """How one raw score is distributed over held-out normal records; larger is stranger."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    sketch: str = Field(description="base64 of a DataSketches REQ sketch (float32) of the held-out raw scores")
    start: float = Field(allow_inf_nan=False, description="the Pareto tail begins here")
    share: float = Field(gt=0, le=1, description="of held-out records above `start`")
    shape: float = Field(ge=0, le=MAX_SHAPE)
    scale: float = Field(gt=0, allow_inf_nan=False)

    @field_validator("sketch")
    @classmethod
    def _readable(cls, value: str) -> str:
        if read_sketch(value).is_empty():
            raise ValueError("the sketch is empty")
        return value

    @classmethod
    def fit(cls, values: ArrayLike, *, exponential: bool = False, least_scale: float = 0.0) -> Tail:
        """From raw scores `[n]` of held-out normals, n >= 2 and finite (else ValueError).

        With `exponential` the tail's shape is not estimated but 0. `least_scale`, in units of the score: a tail that
        looks steeper than that is not believed.
        """
        ordered = np.sort(np.asarray(values, dtype=np.float32).astype(np.float64))
        if len(ordered) < 2 or not np.isfinite(ordered).all():
            raise ValueError("a calibration needs at least two finite values")
        excesses = min(max(MIN_EXCESSES, round(TAIL_SHARE * len(ordered))), len(ordered) // 2)
        start = float(ordered[-excesses - 1])
        above = ordered[ordered > start] - start
        if len(above) == 0:  # the largest values all tie, so nothing says how fast the tail falls
            spread = float(ordered[-1] - ordered[0]) or max(abs(start), 1e-6)
            above = np.full(1, 0.1 * spread)
        shape, scale = (0.0, float(above.mean())) if exponential else pareto_by_moments(above)
        share = len(above) / (len(ordered) + 1)
        scale = max(scale, least_scale)
        return cls(sketch=write_sketch(ordered), start=start, share=share, shape=shape, scale=scale)

    @cached_property
    def _knots(self) -> tuple[Floats, Floats]:
        """Values, ascending, and −ln of the share above each, between which `surprise` interpolates."""
        pairs = sorted(read_sketch(self.sketch))
        values = np.array([value for value, _ in pairs], dtype=np.float64)
        weights = np.array([weight for _, weight in pairs], dtype=np.float64)
        at_or_above = weights[::-1].cumsum()[::-1]
        values, first = np.unique(values, return_index=True)
        surprise = -np.log(at_or_above[first] / (weights.sum() + 1.0))
        kept = values < self.start
        values, surprise = values[kept], surprise[kept]
        count = min(MOST_KNOTS, max(2, len(values) // 5))
        if len(values) > count:
            chosen = np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))
            values, surprise = values[chosen], surprise[chosen]
        return np.append(values, self.start), np.append(surprise, -math.log(self.share))

    def surprise(self, values: ArrayLike) -> Floats:
        """−ln of the share of held-out normals as high: `[N]`, >= 0, never falling, without jumps."""
        raw = np.asarray(values, dtype=np.float64)
        knots, levels = self._knots
        inside = np.interp(raw, knots, levels)
        excess = np.maximum(raw - self.start, 0.0) / self.scale
        beyond = np.log1p(self.shape * excess) / self.shape if self.shape > 1e-6 else excess
        return np.asarray(np.where(raw > self.start, -math.log(self.share) + beyond, inside), dtype=np.float64)


class Joint(BaseModel):
    """One profile's score: the weight of each evidence, and how their joint surprise is distributed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evidence: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=1)
    tail: Tail


class Calibration(BaseModel):
    """The tails of each evidence, and of the joint score of each profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evidence: dict[str, Tail] = Field(min_length=1)
    joint: dict[Profile, Joint]

    @model_validator(mode="after")
    def _complete(self) -> Calibration:
        for profile in Profile:
            if profile not in self.joint:
                raise ValueError(f"joint: the profile {profile} is missing")
            if unknown := sorted(set(self.joint[profile].evidence) - set(self.evidence)):
                raise ValueError(f"joint.{profile}: no tail of {', '.join(unknown)}")
        return self

    def score(self, raw: Mapping[str, NDArray[np.float32]], profile: Profile = Profile.ACCURATE) -> NDArray[np.float32]:
        """Raw evidence, `[N]` by name, to scores `[N]`, >= 0 and finite."""
        joint = self.joint[profile]
        joined = join({name: self.evidence[name].surprise(raw[name]) for name in joint.evidence}, joint.evidence)
        return np.asarray(joint.tail.surprise(joined) / math.log(10.0), dtype=np.float32)


def join(surprises: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """The weighted root mean square of the evidences' −ln p, each bent to grow like a logarithm once it is large.

    The square forgives an evidence that is blind to what the others see: one of −ln p = 6 beside four of 1 counts 2.8,
    where their mean would be 2. Bending keeps one evidence from outvoting all others together. The result never stops
    growing: where a stream has drifted, all evidence is extreme and its order still tells something. `weights` has one
    > 0 for each name of `surprises`, and may have more.
    """
    total = sum(weights[name] for name in surprises)
    squares = (weights[name] / total * np.square(BEND * np.log1p(value / BEND)) for name, value in surprises.items())
    return np.asarray(np.sqrt(sum(squares)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration and the accurate scores it gives to the records it was made from, each as if left out."""

    calibration: Calibration
    scores: NDArray[np.float32]


def calibrate(
    raw: Mapping[str, NDArray[np.float32]],
    used: Mapping[Profile, Mapping[str, float]],
    *,
    least_scale: float = 0.0,
    later: Mapping[str, NDArray[np.float32]] | None = None,
) -> Fitted:
    """A calibration from the raw evidence `[n]` of held-out normals, n >= 20, and each profile's weights by evidence.

    Neighbouring windows of a series share most of their observations, so that a few hundred of them say little about
    how fast the tails of their evidence fall: none is believed to fall faster than by e per `least_scale`, nor is that
    of their joint score.

    A record's evidence must not be judged by tails that knew it, or the joint score of fresh records would be larger
    than that of the held-out ones. So the joint tail is made from scores across ten folds of neighbouring records.
    Where there is `later`, raw evidence `[m]` of normal windows as seen by a memory that ended before them, the joint
    tail is made from that.

    Raises ValueError where an evidence is not finite, or all of them are the same everywhere.
    """
    names = dict.fromkeys(name for evidence in used.values() for name in evidence)
    values = {name: np.asarray(raw[name], dtype=np.float64) for name in names}
    if all(float(np.ptp(value)) == 0.0 for value in values.values()):
        raise ValueError("every evidence is the same for every record")
    count = len(next(iter(values.values())))
    fold = np.arange(count) * FOLDS // count
    joined = {
        profile: _across_folds(fold, partial(_joined, {name: values[name] for name in weights}, weights, least_scale))
        for profile, weights in used.items()
    }
    tails = {name: Tail.fit(value, least_scale=least_scale) for name, value in values.items()}
    held_out = joined[Profile.ACCURATE]
    if later is not None:
        surprises = {name: tails[name].surprise(later[name]) for name in names}
        foretold = {
            profile: join({name: surprises[name] for name in weights}, weights) for profile, weights in used.items()
        }
        joint_tails = {profile: _joint_tail(some, least_scale) for profile, some in foretold.items()}
        surprise = joint_tails[Profile.ACCURATE].surprise(held_out)
    else:
        joint_tails = {profile: _joint_tail(some, least_scale) for profile, some in joined.items()}
        surprise = _across_folds(fold, lambda fit, ask: _joint_tail(held_out[fit], least_scale).surprise(held_out[ask]))
    joint = {profile: Joint(evidence=dict(used[profile]), tail=tail) for profile, tail in joint_tails.items()}
    scores = surprise / math.log(10.0)
    return Fitted(Calibration(evidence=tails, joint=joint), scores.astype(np.float32))


def _joint_tail(joined: Floats, least_scale: float) -> Tail:
    """A mean of −ln p of normal records has an exponential tail, as each of them has: no shape need be guessed."""
    return Tail.fit(joined, exponential=True, least_scale=least_scale)


def _joined(
    values: Mapping[str, Floats],
    weights: Mapping[str, float],
    least_scale: float,
    fit: NDArray[np.bool_],
    ask: NDArray[np.bool_],
) -> Floats:
    surprises = {
        name: Tail.fit(some[fit], least_scale=least_scale).surprise(some[ask]) for name, some in values.items()
    }
    return join(surprises, weights)


def _across_folds(fold: NDArray[np.int64], scored: Callable[[NDArray[np.bool_], NDArray[np.bool_]], Floats]) -> Floats:
    result = np.empty(len(fold), dtype=np.float64)
    for number in range(FOLDS):
        asked = fold == number
        result[asked] = scored(~asked, asked)
    return result


def write_sketch(values: ArrayLike) -> str:
    """A REQ sketch of finite values `[n]`, most exact at the largest, as base64 text."""
    sketch = req_floats_sketch(SKETCH_K, True)
    for value in np.asarray(values, dtype=np.float32):
        sketch.update(float(value))
    return base64.b64encode(sketch.serialize()).decode("ascii")


def read_sketch(text: str) -> req_floats_sketch:
    """The sketch behind such a text. Raises ValueError when it is none."""
    try:
        return req_floats_sketch.deserialize(base64.b64decode(text, validate=True))
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"not a REQ sketch: {error}") from error
