"""What an alert says of its record: where in it the anomaly lies; and how an alert fits into a message."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream_app.errors import LimitError
from stream_app.events import Alert, Contribution, ImageEvidence, SequenceEvidence, encode
from stream_app.records import Kind

HEAT_MAP_SIDE = 64  # pixels
REGION_SHARE = 0.5  # of the peak: what the worst region is made of
MAX_ENTRIES = 512  # of the sums over steps or features
MAX_CONTRIBUTIONS = 4096  # steps × features that are told one by one
TOP_CONTRIBUTIONS = 20

_ENVELOPE_BYTES = 2048  # what a message's key, headers and frame may take beside its value


def evidence_of(kind: Kind, contributions: NDArray[np.floating]) -> ImageEvidence | SequenceEvidence:
    """Evidence of one record, from what the detector localized in it: `[H, W]` for a picture, `[T, F]` for a window."""
    return image_evidence(contributions) if kind is Kind.IMAGE else sequence_evidence(contributions)


def image_evidence(heat_map: NDArray[np.floating]) -> ImageEvidence:
    """A small PNG of the heat map `[H, W]`, >= 0, and the box around its worst region in pixels of the map.

    The region is what is connected (side by side or diagonally) to the worst place and at least half as hot. A map
    whose longer side exceeds 64 pixels is first reduced to the hottest pixel of each square block, for picture and box
    alike.
    """
    height, width = heat_map.shape
    block = -(-max(height, width) // HEAT_MAP_SIDE)
    coarse = _hottest_of_blocks(_finite(heat_map), block)  # (H / block, W / block)
    peak = float(coarse.max())
    rows, columns = np.nonzero(_region_around_peak(coarse))
    return ImageEvidence(
        heat_map_png=_png(coarse / peak if peak > 0.0 else coarse),
        peak=_rounded(peak),
        box=(
            int(columns.min()) * block,
            int(rows.min()) * block,
            min((int(columns.max()) + 1) * block, width),
            min((int(rows.max()) + 1) * block, height),
        ),
    )


def sequence_evidence(contributions: NDArray[np.floating]) -> SequenceEvidence:
    """What each step and feature of a window contributed, from `[T, F]`, >= 0; its size is bounded for any window."""
    values = _finite(contributions)
    steps, features = values.shape
    run = -(-steps // MAX_ENTRIES)
    step_sums = np.add.reduceat(values.sum(axis=1), np.arange(0, steps, run))
    largest = np.argsort(-values, axis=None, kind="stable")[:TOP_CONTRIBUTIONS]
    return SequenceEvidence(
        steps=_rounded_list(step_sums),
        steps_per_entry=run,
        features=_rounded_list(values.sum(axis=0)) if features <= MAX_ENTRIES else [],
        top=[
            Contribution(step=int(at) // features, feature=int(at) % features, value=_rounded(float(values.flat[at])))
            for at in largest
        ],
        contributions=[_rounded_list(row) for row in values] if values.size <= MAX_CONTRIBUTIONS else None,
    )


def fit(alert: Alert, max_message_bytes: int) -> bytes:
    """The alert as JSON that fits into a message: without its evidence where that makes it too large.

    Raises LimitError when even that is more than `max_message_bytes`.
    """
    data = encode(alert)
    if len(data) > max_message_bytes - _ENVELOPE_BYTES and alert.evidence is not None:
        data = encode(alert.model_copy(update={"evidence": None}))
    if len(data) > max_message_bytes:
        raise LimitError(
            f"an alert of stream {alert.stream[:64]!r} takes {len(data)} bytes without evidence, "
            f"kafka.max_message_bytes allows {max_message_bytes}"
        )
    return data


def _finite(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1e30, neginf=0.0).clip(0.0, 1e30)


def _hottest_of_blocks(heat_map: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    height, width = heat_map.shape
    padded = np.pad(heat_map, ((0, -height % block), (0, -width % block)))
    blocks = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block)
    hottest: NDArray[np.float64] = blocks.max(axis=(1, 3))
    return hottest


def _region_around_peak(heat_map: NDArray[np.float64]) -> NDArray[np.bool_]:
    hot = heat_map >= REGION_SHARE * heat_map.max()
    region: NDArray[np.bool_] = np.zeros_like(hot)
    region.flat[heat_map.argmax()] = True
    while True:
        around = np.pad(region, 1)
        tall = around[:-2] | around[1:-1] | around[2:]
        grown: NDArray[np.bool_] = hot & (tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:])
        if (grown == region).all():
            return region
        region = grown


def _png(shares: NDArray[np.float64]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.rint(shares * 255.0).astype(np.uint8)).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _rounded_list(values: NDArray[np.float64]) -> list[float]:
    return [_rounded(value) for value in values.tolist()]
