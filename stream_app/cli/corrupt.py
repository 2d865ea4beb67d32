"""`corrupt`: labelled test pictures from clean ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from model.config import Kind
from stream_app.cli.common import (
    JsonOption,
    check_input,
    check_output,
    console,
    error_console,
    print_json,
    progress,
)
from stream_app.errors import UsageError


def corrupt(
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help=".npz with clean pictures x.")],
    out: Annotated[Path, typer.Option("--out", metavar="OUT.npz", help="Gets x, y and kind, rows in the same order.")],
    share: Annotated[float, typer.Option("--share", help="Of the pictures to corrupt.")] = 0.3,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--kinds", metavar="A,B,…", help="Kinds of corruption, equal numbers of each.", show_default="all"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Corrupt a share of clean pictures, to test a detector on.

    The kinds are noise, blur, elastic, missing_stroke, extra_stroke, patch and faded. Nothing that training uses is
    among them. Rows labelled anomalous in the file (y = 1) are left out.

    Example: ganomaly-stream corrupt --data clean.npz --out test.npz --share 0.3
    """
    check_input("--data", data)
    check_output("--out", out)
    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: the file must end in .npz")
    from training.corruptions import corrupt as spoil
    from training.data import load

    dataset = load(data, Kind.IMAGE)
    left_out = int((~dataset.clean).sum())
    if left_out:
        error_console.print(f"{data}: {left_out} of {len(dataset)} pictures are labelled anomalous: left out")
    pictures = dataset.x[dataset.clean]
    if pictures.dtype != np.uint8:
        pictures = pictures / np.float32(255.0)  # as files hold them
    chosen = None if kinds is None else [name.strip() for name in kinds.split(",")]
    with progress(json) as bar:
        task = bar.add_task("corrupting", total=None)
        result = spoil(pictures, share, chosen, seed, lambda done, of: bar.update(task, completed=done, total=of))
    np.savez_compressed(out, x=result.x, y=result.y, kind=result.kind)
    names, numbers = np.unique(result.kind, return_counts=True)
    counts = dict(zip(names.tolist(), numbers.tolist(), strict=True))
    if json:
        print_json({"out": str(out), "rows": len(result.x), "corrupted": int(result.y.sum()), "kinds": counts})
        return
    table = Table("kind", "pictures", title=str(out), title_justify="left")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
