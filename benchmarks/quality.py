"""How well the detector does on real data with known anomalies, beside simple methods on the same records.

    python benchmarks/quality.py --data DIR [--protocol A,B,…] [--seeds 3] [--jobs 2]
    python benchmarks/quality.py --data DIR --quick
    python benchmarks/quality.py --table-only

DIR holds mnist/, magnetic_tile/, nab/ and skab/; docs/quality.md says where they come from. Each training is a process
of one thread and is paid in seconds of its CPU. What is finished is a line of the results file, so that the command
can be stopped and started again; lines count as long as the code that makes the figures is the same. In the end the
page and a JSON of the same figures are written.

Further protocols by name: objectives, generator, labels.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before anything reads them

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from command import run
from detection.measure import measure
from detection.page import write_page
from detection.protocols import PROTOCOLS, TABLE, cases, find
from detection.results import BASELINES, GANOMALY, Key, Origin, Result, Results
from detection.rivals import REMEMBERED, baselines
from stream_app.errors import GanomalyError, UsageError

QUICK_SECONDS = 5.0
QUICK_PATCHES = 1000
RESULTS = Path("build/quality.jsonl")
PAGE = Path("docs/quality.md")
QUICK_PAGE = Path("build/quality-quick.md")

console = Console(stderr=True, highlight=False)


def main(
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Holds mnist/, magnetic_tile/, …")] = None,
    protocol: Annotated[str, typer.Option("--protocol", help="Names, separated by commas.")] = ",".join(TABLE),
    seeds: Annotated[int, typer.Option("--seeds", min=1)] = 3,
    seconds: Annotated[float, typer.Option("--seconds", help="CPU time of a training.", min=0.1)] = 100.0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes, one thread each.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="A smoke run: one model of each, 5 s.")] = False,
    results: Annotated[Path, typer.Option("--results", metavar="FILE")] = RESULTS,
    page: Annotated[Path | None, typer.Option("--page", metavar="FILE.md", show_default=str(PAGE))] = None,
    any_commit: Annotated[bool, typer.Option("--any-commit", help="Take lines of other code as well.")] = False,
    table_only: Annotated[bool, typer.Option("--table-only", help="Write the page from what is there.")] = False,
) -> None:
    """Train, measure, and write the page."""
    if quick:
        seeds, seconds = 1, QUICK_SECONDS
    file, origin = Results(results), Origin.here(seconds, quick)
    failed = 0
    if not table_only:
        if data is None:
            raise typer.BadParameter("is needed, unless --table-only", param_hint="--data")
        failed = _run(_wanted(_names(protocol), data, seeds, quick), data, file, origin, any_commit, jobs)
    target = page or (QUICK_PAGE if quick else PAGE)
    found = file.read(origin, any_commit=any_commit)
    if not found:
        raise UsageError(f"{results}: there is no line of this code and these settings; --any-commit takes others")
    write_page(target, found, any_commit=any_commit)
    console.print(f"{target} and {target.with_suffix('.json')} are written", markup=False)
    if failed:
        raise typer.Exit(1)


def _names(protocol: str) -> list[str]:
    names = [name.strip() for name in protocol.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise UsageError(f"--protocol: there is no {', '.join(unknown)}; there are {', '.join(PROTOCOLS)}")
    return names


def _wanted(names: list[str], data: Path, seeds: int, quick: bool) -> Iterator[Key]:
    """Seed by seed, so that a table of all protocols is there early."""
    for seed in range(seeds):
        for name in names:
            for case in cases(name, data, quick=quick):
                if seed == 0 and PROTOCOLS[name].compared:
                    yield Key(name, case.name, BASELINES, 0)
                yield Key(name, case.name, GANOMALY, seed)


def _run(wanted: Iterator[Key], data: Path, file: Results, origin: Origin, any_commit: bool, jobs: int) -> int:
    """Measures what is not in the file yet; returns how many failed."""
    keys = list(wanted)
    there = file.read(origin, any_commit=any_commit)
    missing = [key for key in keys if key not in there]
    failed = 0
    with _progress() as bar, _pool(jobs) as pool:
        task = bar.add_task("measuring", total=len(keys), completed=len(keys) - len(missing))
        try:
            waiting = {pool.submit(work, key, data, origin.seconds, origin.quick): key for key in missing}
            for done in as_completed(waiting):
                key = waiting[done]
                try:
                    figures = done.result()
                except GanomalyError as error:
                    failed += 1
                    console.print(f"{_said(key)}: {error}", style="red", markup=False)
                else:
                    file.add(Result(key, origin, figures))
                    bar.console.print(f"{_said(key)}  {_summary(figures)}", markup=False, style="dim")
                bar.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def work(key: Key, data: Path, seconds: float, quick: bool) -> dict[str, Any]:
    """In a process of its own: the figures of one key."""
    case = find(key.protocol, key.case, data)
    material = case.load(data)
    if key.method == BASELINES:
        return {"methods": baselines(material, key.seed, QUICK_PATCHES if quick else REMEMBERED)}
    return measure(case, material, key.seed, seconds)


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In each process of the pool: one thread, and an end with the command, however that ends."""
    torch.set_num_threads(1)
    command = multiprocessing.parent_process()
    assert command is not None

    def follow() -> None:
        command.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _said(key: Key) -> str:
    return f"{key.protocol} {key.case} {key.method}" + (f" seed {key.seed}" if key.method == GANOMALY else "")


def _summary(figures: dict[str, Any]) -> str:
    if "methods" in figures:
        best = max(figures["methods"].items(), key=lambda item: item[1]["auroc"])
        return f"best {best[0]} {best[1]['auroc']:.3f}"
    return f"AUROC {figures['auroc']:.3f}  {figures['cost']['accurate']['records_per_second']:,.0f} records/s"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


if __name__ == "__main__":
    run(main, console, lambda _: 2)
