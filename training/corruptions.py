"""MNIST-Anomaly: clean pictures of which a share is corrupted, to test a detector on.

ganomaly-stream corrupt --data clean.npz --out test.npz --share 0.3

The kinds, with severities that a person sees and that are not gross; lengths are shares of the shorter side, levels
shares of the range of brightness of all pictures given (their 0.1 % to 99.9 % quantiles):

| kind | what happens | severity |
| --- | --- | --- |
| noise | Gaussian noise on each value, or pixels that are black or white | σ 0.12…0.25, or 3…10 % of the pixels |
| blur | a Gaussian blur | σ 0.035…0.07, at least 0.7 pixels |
| elastic | pixels move along a smooth random field | rms 0.04…0.07, field smoothed with σ 0.06…0.1 |
| missing_stroke | a coherent piece of the strokes is not there | 20…45 % of them |
| extra_stroke | one more curved stroke, as wide and dark as the picture's own | length 0.35…0.7 |
| patch | a rectangle is stuck at one level | sides 0.2…0.35, at least 0.35 from what it hides |
| faded | a round region has lost contrast | radius 0.2…0.35, 60…90 % of the contrast |

Sources: P. Simard, D. Steinkraus, J. Platt, Best practices for convolutional neural networks applied to visual document
analysis, ICDAR 2003, section 2 (elastic fields); D. Hendrycks, T. Dietterich, Benchmarking neural network robustness to
common corruptions and perturbations, ICLR 2019, section 3 (noise and blur).

Nothing here may serve training: what a detector learns from and what it is tested on would no longer be independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from stream_app.errors import UsageError

Picture = NDArray[np.float64]  # [H, W, C], in shares of the range of brightness; 0…1 but for a few outliers

CLEAN = "clean"
SHARE = 0.3
VISIBLE_CHANGE = 0.1  # of the range of brightness …
VISIBLE_PIXELS = 0.015  # … in so many of the pixels: less is not seen
TRIES = 8  # of one picture, before another is taken
WIDEST_STROKE = 0.15  # of the shorter side; a photograph's darker regions are no strokes


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Test pictures in the order, shape and dtype of those given.

    `y`: `[N]` int64, 1 where corrupted. `kind`: `[N]` text, `clean` or one of `KINDS`.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    kind: NDArray[np.str_]


def corrupt(
    pictures: NDArray[Any],
    share: float = SHARE,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Corrupted:
    """Corrupts a `share` of the pictures, equal numbers by each of the `kinds` (all, unless told).

    `pictures`: `[N, H, W]` or `[N, H, W, C]`, uint8 or float in 0…1. `share`: above 0 and below 1. Which pictures,
    and how, is drawn from `seed`. A picture on which a kind can't be seen (a stroke missing from an empty one) is left
    clean and another is taken. `on_progress` is called with how many are done and how many are to be.
    Raises UsageError for other pictures, an unknown kind, or when the pictures don't suffice.
    """
    chosen = _check(pictures, share, kinds)
    random = np.random.default_rng(seed)
    low, scale = _range(pictures)
    count = max(len(chosen), round(share * len(pictures)))
    x, kind = pictures.copy(), np.full(len(pictures), CLEAN, dtype=f"<U{max(map(len, (*KINDS, CLEAN)))}")
    waiting = random.permutation(len(pictures)).tolist()
    for done in range(count):
        name = chosen[done % len(chosen)]
        row, changed = _first_visible(name, waiting, pictures, low, scale, random)
        waiting.remove(row)
        x[row] = _as_given(changed, pictures, low, scale).reshape(x[row].shape)
        kind[row] = name
        if on_progress:
            on_progress(done + 1, count)
    return Corrupted(x, (kind != CLEAN).astype(np.int64), kind)


def _check(pictures: NDArray[Any], share: float, kinds: Sequence[str] | None) -> list[str]:
    if pictures.ndim not in (3, 4) or not (pictures.dtype == np.uint8 or np.issubdtype(pictures.dtype, np.floating)):
        raise UsageError(
            "pictures to corrupt are [N,H,W] or [N,H,W,C], uint8 or float in 0…1, "
            f"not {list(pictures.shape)} of {pictures.dtype}"
        )
    if not 0.0 < share < 1.0:
        raise UsageError(f"share must be above 0 and below 1, not {share}")
    chosen = list(dict.fromkeys(kinds or KINDS))
    if unknown := [name for name in chosen if name not in KINDS]:
        raise UsageError(f"unknown kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    if len(pictures) <= len(chosen):
        raise UsageError(f"{len(pictures)} pictures are too few for {len(chosen)} kinds of corruption and clean ones")
    return chosen


def _range(pictures: NDArray[Any]) -> tuple[float, float]:
    some = pictures[:: max(1, len(pictures) // 1000)]
    low, high = np.quantile(some, [0.001, 0.999])
    if not high > low:
        raise UsageError(f"the pictures are all of one brightness, {low:g}")
    return float(low), float(high - low)


def _as_given(picture: Picture, given: NDArray[Any], low: float, scale: float) -> NDArray[Any]:
    """Levels in the given unit and dtype, within its limits."""
    if given.dtype == np.uint8:
        return np.clip(np.rint(picture * scale + low), 0, 255).astype(np.uint8)
    return np.clip(picture * scale + low, 0.0, 1.0).astype(given.dtype)


def _first_visible(
    name: str, waiting: list[int], pictures: NDArray[Any], low: float, scale: float, random: np.random.Generator
) -> tuple[int, Picture]:
    """The first of the waiting rows on which this kind of corruption can be seen, and the corrupted picture."""
    for row in waiting:
        picture = (pictures[row].astype(np.float64).reshape(*pictures.shape[1:3], -1) - low) / scale  # (H, W, C)
        for _ in range(TRIES):
            changed = np.clip(KINDS[name](picture, random), -low / scale, None)
            if _visible(picture, changed):
                return row, changed
    raise UsageError(
        f"{name} shows on too few of the {len(pictures)} pictures; leave this kind out, or lower the share"
    )


def _visible(before: Picture, after: Picture) -> bool:
    seen = np.abs(after - before).max(axis=2) > VISIBLE_CHANGE
    return float(seen.mean()) >= VISIBLE_PIXELS


def _noise(picture: Picture, random: np.random.Generator) -> Picture:
    if random.random() < 0.5:
        return np.clip(picture + random.uniform(0.12, 0.25) * random.standard_normal(picture.shape), 0.0, 1.0)
    hit = random.random(picture.shape[:2]) < random.uniform(0.03, 0.1)
    return np.where(hit[..., None], random.integers(0, 2, (*hit.shape, 1)).astype(np.float64), picture)


def _blur(picture: Picture, random: np.random.Generator) -> Picture:
    sigma = max(0.7, random.uniform(0.035, 0.07) * _side(picture))
    return np.asarray(ndimage.gaussian_filter(picture, (sigma, sigma, 0.0), mode="nearest"))


def _elastic(picture: Picture, random: np.random.Generator) -> Picture:
    side = _side(picture)
    smooth = random.uniform(0.06, 0.1) * side
    field = ndimage.gaussian_filter(random.uniform(-1.0, 1.0, (2, *picture.shape[:2])), (0.0, smooth, smooth))
    field *= random.uniform(0.04, 0.07) * side / np.sqrt(np.square(field).sum(axis=0).mean())
    places = np.indices(picture.shape[:2]) + field  # (2, H, W)
    channels = [
        ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in np.moveaxis(picture, 2, 0)
    ]
    return np.stack(channels, axis=2)


def _missing_stroke(picture: Picture, random: np.random.Generator) -> Picture:
    """Grows a piece along the strokes from a random place of theirs until it is large enough, then erases it."""
    strokes = _strokes(picture)
    wanted = random.uniform(0.2, 0.45) * strokes.inside.sum()
    piece = np.zeros_like(strokes.inside)
    piece[_one_of(strokes.inside, random)] = True
    for step in itertools.count(1):
        # By edge neighbours and by all neighbours in turn, so that on a surface the piece is nearly round.
        shape = ndimage.generate_binary_structure(2, 1 + step % 2)
        grown = ndimage.binary_dilation(piece, shape, mask=strokes.inside)
        if piece.sum() >= wanted or grown.sum() == piece.sum():  # the latter: a separate stroke, and it is all gone
            break
        piece = grown
    # The soft rim of a stroke goes with it, but not that of the strokes that stay.
    stays = strokes.inside & ~piece
    to_stays = ndimage.distance_transform_edt(~stays) if stays.any() else np.full(piece.shape, np.inf)
    reach = ndimage.distance_transform_edt(~piece)
    rim = (reach <= max(1.5, strokes.width / 2)) & (reach < to_stays)
    return np.where((piece | rim)[..., None], strokes.background, picture)


def _extra_stroke(picture: Picture, random: np.random.Generator) -> Picture:
    """A quadratic Bézier curve that begins near the strokes and stays in the picture."""
    strokes = _strokes(picture)
    start = np.array(_one_of(strokes.near, random), dtype=np.float64)
    angle, length = random.uniform(0.0, 2.0 * np.pi), random.uniform(0.35, 0.7) * _side(picture)
    along = length * np.array([np.sin(angle), np.cos(angle)])
    bend = start + along / 2 + random.uniform(-0.4, 0.4) * along[::-1] * (1.0, -1.0)
    inner = strokes.width / 2 + 1.0
    limits = np.array(picture.shape[:2]) - 1.0 - inner
    if not ((start + along >= inner) & (start + along <= limits)).all():
        return picture  # asked again, as nothing is seen
    t = np.linspace(0.0, 1.0, 60)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * (start + along)  # (60, 2)
    pixels = np.indices(picture.shape[:2]).reshape(2, -1).T
    distance = KDTree(curve).query(pixels)[0].reshape(picture.shape[:2])
    cover = np.clip(strokes.width / 2 + 0.5 - distance, 0.0, 1.0)
    if (cover * strokes.inside).sum() > 0.5 * cover.sum():
        return picture  # it hides behind the strokes that are there
    change = cover[..., None] * (strokes.level - picture)
    return picture + np.where(change * (strokes.level - strokes.background) > 0.0, change, 0.0)


def _patch(picture: Picture, random: np.random.Generator) -> Picture:
    size = np.maximum(2, np.rint(random.uniform(0.2, 0.35, 2) * _side(picture))).astype(int)
    top, left = (int(random.integers(0, room + 1)) for room in np.array(picture.shape[:2]) - size)
    place = (slice(top, top + size[0]), slice(left, left + size[1]))
    level = random.random()
    changed = picture.copy()
    if abs(level - picture[place].mean()) >= 0.35:
        changed[place] = level
    return changed


def _faded(picture: Picture, random: np.random.Generator) -> Picture:
    strokes = _strokes(picture)
    centre = _one_of(strokes.inside, random)
    radius = random.uniform(0.2, 0.35) * _side(picture)
    rows, columns = np.indices(picture.shape[:2])
    distance = np.hypot(rows - centre[0], columns - centre[1])
    mask = np.clip((radius - distance) / (0.3 * radius), 0.0, 1.0)[..., None]  # soft at its edge
    return np.asarray(picture - random.uniform(0.6, 0.9) * mask * (picture - strokes.background))


KINDS: dict[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "noise": _noise,
    "blur": _blur,
    "elastic": _elastic,
    "missing_stroke": _missing_stroke,
    "extra_stroke": _extra_stroke,
    "patch": _patch,
    "faded": _faded,
}


@dataclass(frozen=True, slots=True)
class _Strokes:
    """What stands out of a picture's background.

    `inside`, `near` (their bounding box, a little larger): `[H, W]`; `width` in pixels; levels `[C]`.
    """

    inside: NDArray[np.bool_]
    near: NDArray[np.bool_]
    width: float
    level: NDArray[np.float64]
    background: NDArray[np.float64]


def _strokes(picture: Picture) -> _Strokes:
    background = _background(picture)
    stands_out = np.abs(picture - background).max(axis=2)
    inside = stands_out >= 0.5 * max(float(np.quantile(stands_out, 0.99)), 1e-6)
    if not inside.any():
        inside = np.ones_like(inside)
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    ridge = (depth == ndimage.maximum_filter(depth, 3)) & inside
    width = float(np.clip(2.0 * np.median(depth[ridge]) - 1.0, 1.0, max(1.0, WIDEST_STROKE * _side(picture))))
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    near = np.zeros_like(inside)
    near[max(0, rows[0] - 2) : rows[-1] + 3, max(0, columns[0] - 2) : columns[-1] + 3] = True
    return _Strokes(inside, near, width, np.median(picture[inside], axis=0), background)


def _background(picture: Picture) -> NDArray[np.float64]:
    """The level, `[C]`, that is the most common one, to a sixteenth of the range."""
    grey = np.clip(picture.mean(axis=2) * 16.0, 0.0, 15.0).astype(np.int64)
    return np.asarray(np.median(picture[grey == np.bincount(grey.ravel()).argmax()], axis=0))


def _one_of(places: NDArray[np.bool_], random: np.random.Generator) -> tuple[int, int]:
    rows, columns = np.nonzero(places)
    chosen = int(random.integers(len(rows)))
    return int(rows[chosen]), int(columns[chosen])


def _side(picture: Picture) -> int:
    return int(min(picture.shape[:2]))
