"""The demo's pictures: scikit-learn's handwritten digits, of which one is never shown in training.

1,797 real digits of 8 × 8 pixels (E. Alpaydin, C. Kaynak, Optical recognition of handwritten digits, UCI Machine
Learning Repository, CC BY 4.0). Four in ten of the nine digits that count as normal are kept from training; they are
what the cameras see, with pictures of the hidden digit and damaged ones among them.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream_app.cli.demo.scene import NORMAL, Due, Planned
from stream_app.decode import RAW
from stream_app.messages import encode_row

# The middle one of the ten: as the digit never shown, 2, 6, 0, 8 and 5 are found more often than 4, and 7, 9, 1 and 3
# less often (1 and 3 much less). `--unseen` takes another.
UNSEEN = 4
TRAINING_SHARE = 0.6
CAMERAS = 4
ANOMALIES = 24  # of each kind
BURST = 5000
BROKEN = "broken"

Pictures = NDArray[np.uint8]


def load_digits() -> tuple[Pictures, NDArray[np.int64]]:
    """All digits `[1797, 8, 8]`, 0…255, and what they are, 0…9."""
    from sklearn import datasets

    found = datasets.load_digits()
    return np.round(found.images * (255.0 / 16.0)).astype(np.uint8), found.target


def split_digits(unseen: int, seed: int) -> tuple[Pictures, Pictures, Pictures]:
    """Normal pictures for training, other normal pictures for the cameras, and those of the digit `unseen`."""
    pictures, digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(pictures))
    normal = order[digits[order] != unseen]
    cut = round(len(normal) * TRAINING_SHARE)
    return pictures[normal[:cut]], pictures[normal[cut:]], pictures[order[digits[order] == unseen]]


def plan_pictures(topic: str, normal: Pictures, hidden: Pictures, seed: int) -> list[Planned]:
    """What the cameras send: `normal` pictures, some of them damaged, some of `hidden`, and a few broken records."""
    random = np.random.default_rng(seed)
    damaged, plain = normal[: 2 * ANOMALIES], normal[2 * ANOMALIES :]
    seen = [(picture, NORMAL) for picture in plain]
    seen += [(picture, "unseen digit") for picture in hidden[:ANOMALIES]]
    seen += [(scratch(picture, random), "scratched lens") for picture in damaged[:ANOMALIES]]
    seen += [(half_dead(picture, random), "half dead sensor") for picture in damaged[ANOMALIES:]]
    planned = []
    for number, index in enumerate(random.permutation(len(seen))):
        picture, truth = seen[index]
        value, headers = encode_row(picture, RAW)
        planned.append(Planned(topic, _camera(number), f"picture-{number}", value, headers, truth))
    for number, (value, content_type) in enumerate(_broken(plain[0])):
        at = int(random.integers(len(planned)))
        headers = [("content-type", content_type.encode())]
        planned.insert(at, Planned(topic, _camera(number), f"broken-{number}", value, headers, BROKEN, Due.DEAD_LETTER))
    return planned


def plan_burst(topic: str, normal: Pictures) -> list[Planned]:
    """Normal pictures, again and again, of cameras of their own."""
    return [
        Planned(
            topic, f"burst-{_camera(number)}", f"burst-{number}", *encode_row(normal[number % len(normal)], RAW), NORMAL
        )
        for number in range(BURST)
    ]


def scratch(picture: Pictures, random: np.random.Generator) -> Pictures:
    """The picture with a bright diagonal across it."""
    damaged = picture.copy() if random.random() < 0.5 else picture[:, ::-1].copy()
    side = len(picture)
    shift = int(random.integers(-2, 3))
    for row in range(max(0, -shift), min(side, side - shift)):
        damaged[row, row + shift] = 255
    return damaged


def half_dead(picture: Pictures, random: np.random.Generator) -> Pictures:
    """The picture with one of its halves black."""
    turns = int(random.integers(4))
    turned = np.rot90(picture, turns).copy()
    turned[: len(turned) // 2] = 0
    return np.rot90(turned, -turns)


def _camera(number: int) -> str:
    return f"camera-{number % CAMERAS + 1}"


def _broken(picture: Pictures) -> list[tuple[bytes, str]]:
    """A JPEG that ends early, a PNG of another size, text, and an array with a number that isn't one."""
    jpeg, png, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(picture).save(jpeg, "JPEG")
    Image.fromarray(picture.repeat(3, axis=0)).save(png, "PNG")
    values = picture / 255.0
    values[3, 3] = np.nan
    np.save(array, values)
    whole = jpeg.getvalue()
    return [
        (whole[: len(whole) // 2], "image/jpeg"),
        (png.getvalue(), "image/png"),
        (b"no picture", "application/json"),
        (array.getvalue(), "application/x-npy"),
    ]
