"""The protocols: what is learned from, what is tested on, which half choices were made on, and the goals.

MNIST's 10,000 test pictures are shuffled once; of the normal ones the first 80 % are for training, and the rest, with
every anomalous one, for testing.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model.config import Kind
from stream_app.errors import UsageError
from training.corruptions import CLEAN, corrupt

TRAINED_SHARE = 0.8
TILES = 333  # good tiles to train on
SKAB_HISTORY = 400
NAB_FOLDER = "realKnownCause"
NAB_HISTORY = (0.15, 750)
LABELS = (0, 5, 20, 100)  # labelled anomalies in the training file
MOST_LABELS = max(LABELS)

DIGITS = tuple(str(digit) for digit in range(10))
DEFECTS = ("crack", "blowhole")


@dataclass(frozen=True, slots=True)
class Material:
    """One case. `part` says which anomaly a row is (empty where normal); `y` `[N]` is 1 where it is one.

    Pictures: `train` `[n, H, W]` with labels `train_y`, `test` `[N, H, W]`, `masks` `[N, H, W]` bool where defects are
    marked. Series: `test` `[rows, F]` is the whole of it, of which the first `history` rows are learned from.
    """

    kind: Kind
    train: NDArray[Any]
    test: NDArray[Any]
    y: NDArray[np.int64]
    part: NDArray[np.str_]
    train_y: NDArray[np.int64] | None = None
    masks: NDArray[np.bool_] | None = None
    history: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A training to be made and measured. `options` go to `training.loop.train`."""

    protocol: str
    name: str
    load: Callable[[Path], Material]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a protocol is to reach: means over its parts, and the least that any part may have."""

    auroc: float
    auprc: float | None = None
    least_part: float | None = None
    pixel_auroc: float | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """`choice`: the parts that choices were made on. `pooled`: its figure is that of all anomalies together, not the
    mean over the parts. `quick`: the cases of a smoke run.
    """

    name: str
    title: str
    cases: Callable[[Path], Sequence[Case]]
    choice: tuple[str, ...]
    goal: Goal | None
    quick: tuple[str, ...]
    size: int  # how many cases it has
    kind: Kind = Kind.IMAGE
    pooled: bool = False
    compared: bool = True  # with the baselines


def mnist(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures `[10000, 28, 28]` and digits `[10000]`, shuffled as every protocol takes them."""
    return _mnist(data)


@cache
def _mnist(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    folder = data / "mnist"
    arrays = []
    for name, head in (("t10k-images-idx3-ubyte.gz", 16), ("t10k-labels-idx1-ubyte.gz", 8)):
        file = folder / name
        if not file.is_file():
            raise UsageError(f"{file}: there is no such file; --data is the folder that holds mnist/, nab/ and others")
        arrays.append(np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=head))
    order = np.random.RandomState(0).permutation(len(arrays[1]))
    return arrays[0].reshape(-1, 28, 28)[order], arrays[1][order]


def one_digit(data: Path, digit: int, *, anomalous: bool, labels: int = 0, kept: int = 0) -> Material:
    """Protocol A (`anomalous`: the digit is the anomaly) or B (it is what is normal).

    `labels` anomalies are in the training file with their label; the first `kept` anomalies are not tested on.
    """
    pictures, digits = mnist(data)
    strange = (digits == digit) == anomalous
    normal, other = pictures[~strange], pictures[strange]
    count = int(TRAINED_SHARE * len(normal))
    test = np.concatenate([normal[count:], other[kept:]])
    y = np.repeat([0, 1], [len(normal) - count, len(other) - kept])
    train = np.concatenate([normal[:count], other[:labels]])
    train_y = np.repeat([0, 1], [count, labels])
    return Material(Kind.IMAGE, train, test, y, np.where(y == 1, str(digit), ""), train_y)


def corrupted_digits(data: Path) -> Material:
    """Protocol C: a test set of which 30 % is corrupted by the product's own generator."""
    pictures, _ = mnist(data)
    count = int(TRAINED_SHARE * len(pictures))
    test = corrupt(pictures[count:], seed=0)
    part = np.where(test.kind == CLEAN, "", test.kind)
    return Material(Kind.IMAGE, pictures[:count], test.x, test.y, part)


def tiles(data: Path) -> Material:
    """Protocol D: photographs of magnetic tiles with two kinds of defects, and masks of where they are."""
    file = data / "magnetic_tile" / "dev.npz"
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file")
    with np.load(file) as arrays:
        free = arrays["free"]
        test = [free[TILES:], *(arrays[defect] for defect in DEFECTS)]
        masks = [np.zeros(test[0].shape, np.uint8), *(arrays[f"{defect}_mask"] for defect in DEFECTS)]
    part = np.repeat(["", *DEFECTS], [len(some) for some in test])
    y = (part != "").astype(np.int64)
    return Material(Kind.IMAGE, free[:TILES], np.concatenate(test), y, part, masks=np.concatenate(masks) > 0)


def skab(data: Path, run: str) -> Material:
    """A run of the water circuit: 8 sensors each second."""
    lines = _table(data / "skab" / "valve1" / f"{run}.csv", ";")
    rows = np.array([[float(value) for value in line[1:9]] for line in lines], dtype=np.float32)
    y = np.array([int(float(line[9])) for line in lines], dtype=np.int64)
    return _series(rows, y, SKAB_HISTORY, run)


def nab(data: Path, name: str) -> Material:
    """A series of one value; anomalous within the benchmark's labelled windows."""
    lines = _table(data / "nab" / "data" / NAB_FOLDER / f"{name}.csv", ",")
    times = np.array([np.datetime64(line[0]) for line in lines])
    rows = np.array([[float(line[1])] for line in lines], dtype=np.float32)
    windows = orjson.loads((data / "nab" / "labels" / "combined_windows.json").read_bytes())
    y = np.zeros(len(rows), dtype=np.int64)
    for start, end in windows[f"{NAB_FOLDER}/{name}.csv"]:
        y[(times >= np.datetime64(start)) & (times <= np.datetime64(end))] = 1
    share, most = NAB_HISTORY
    return _series(rows, y, min(int(share * len(rows)), most), name)


def _series(rows: NDArray[np.float32], y: NDArray[np.int64], history: int, name: str) -> Material:
    return Material(Kind.SEQUENCE, rows[:history], rows, y, np.where(y == 1, name, ""), history=history)


def _table(file: Path, separator: str) -> list[list[str]]:
    """The fields of each line below the header."""
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file")
    return [line.split(separator) for line in file.read_text().splitlines()[1:] if line]


def _names(folder: Path) -> list[str]:
    """Of the series in a folder: by number where they have one, else by name."""
    names = [file.stem for file in folder.glob("*.csv")]
    if not names:
        raise UsageError(f"{folder}: there are no .csv files")
    return sorted(names, key=lambda name: (int(name) if name.isdigit() else 0, name))


def _digit_cases(protocol: str, anomalous: bool) -> Callable[[Path], list[Case]]:
    return lambda _: [
        Case(protocol, digit, partial(one_digit, digit=int(digit), anomalous=anomalous)) for digit in DIGITS
    ]


def _skab_cases(data: Path) -> list[Case]:
    return [Case("SKAB", run, partial(skab, run=run)) for run in _names(data / "skab" / "valve1")]


def _nab_cases(data: Path) -> list[Case]:
    return [Case("NAB", name, partial(nab, name=name)) for name in _names(data / "nab" / "data" / NAB_FOLDER)]


def _with_options(protocol: str, values: Mapping[str, Mapping[str, Any]]) -> Callable[[Path], list[Case]]:
    """Each of a few cases of A, B and C with each of some options."""
    return lambda _: [
        Case(protocol, f"{value}:{name}", load, options)
        for value, options in values.items()
        for name, load in _SOME_PICTURES.items()
    ]


def _label_cases(_: Path) -> list[Case]:
    return [
        Case(
            "labels",
            f"{count}:{protocol}-{digit}",
            partial(one_digit, digit=digit, anomalous=protocol == "A", labels=count, kept=MOST_LABELS),
        )
        for count in LABELS
        for protocol, digit in (("A", 5), ("A", 9), ("B", 8))
    ]


_SOME_PICTURES: Mapping[str, Callable[[Path], Material]] = {
    "A-1": partial(one_digit, digit=1, anomalous=True),
    "A-9": partial(one_digit, digit=9, anomalous=True),
    "B-8": partial(one_digit, digit=8, anomalous=False),
    "C": corrupted_digits,
}

CHOICE_DIGITS = ("1", "3", "5", "8", "9")
GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "conv": {"generator": "conv"},
    "lstm": {"generator": "lstm"},
    "attention": {"attention": True},
}
OBJECTIVES = ("bce", "feature-matching", "lsgan", "hinge", "mocc", "cd")

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "A",
            "MNIST A, one digit is the anomaly",
            _digit_cases("A", anomalous=True),
            CHOICE_DIGITS,
            Goal(0.97, least_part=0.92),
            quick=("1",),
            size=10,
        ),
        Protocol(
            "B",
            "MNIST B, one digit is normal",
            _digit_cases("B", anomalous=False),
            CHOICE_DIGITS,
            Goal(0.99, least_part=0.98),
            quick=("8",),
            size=10,
        ),
        Protocol(
            "C",
            "MNIST C, corrupted digits",
            lambda _: [Case("C", "digits", corrupted_digits)],
            ("noise", "elastic", "patch"),
            Goal(0.99, least_part=0.95),
            quick=("digits",),
            size=1,
            pooled=True,
        ),
        Protocol(
            "D",
            "Magnetic tiles",
            lambda _: [Case("D", "tiles", tiles)],
            ("crack",),
            Goal(0.85, pixel_auroc=0.90),
            quick=("tiles",),
            size=1,
        ),
        Protocol(
            "SKAB",
            "SKAB valve1",
            _skab_cases,
            tuple(str(run) for run in range(8)),
            Goal(0.95, auprc=0.95),
            quick=("0",),
            size=16,
            kind=Kind.SEQUENCE,
        ),
        Protocol(
            "NAB",
            "NAB realKnownCause",
            _nab_cases,
            (
                "ambient_temperature_system_failure",
                "cpu_utilization_asg_misconfiguration",
                "ec2_request_latency_system_failure",
                "machine_temperature_system_failure",
            ),
            Goal(0.80, auprc=0.50),
            quick=("ec2_request_latency_system_failure",),
            size=7,
            kind=Kind.SEQUENCE,
        ),
        Protocol(
            "objectives",
            "Adversarial objectives",
            _with_options("objectives", {name: {"objective": name} for name in OBJECTIVES}),
            (),
            None,
            quick=("lsgan:A-1",),
            size=24,
            compared=False,
        ),
        Protocol(
            "generator",
            "Generators",
            _with_options("generator", GENERATORS),
            (),
            None,
            quick=("lstm:A-1",),
            size=12,
            compared=False,
        ),
        Protocol(
            "labels",
            "Labelled anomalies in the training file",
            _label_cases,
            (),
            None,
            quick=("5:A-9",),
            size=12,
            compared=False,
        ),
    )
}
TABLE = tuple(name for name, protocol in PROTOCOLS.items() if protocol.goal)


def cases(name: str, data: Path, *, quick: bool = False) -> list[Case]:
    """The trainings of a protocol, or those of a smoke run. Raises UsageError for missing files."""
    protocol = PROTOCOLS[name]
    return [case for case in protocol.cases(data) if not quick or case.name in protocol.quick]


def find(name: str, case: str, data: Path) -> Case:
    """The case of that name."""
    return next(found for found in PROTOCOLS[name].cases(data) if found.name == case)
