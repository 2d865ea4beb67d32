"""`models`: what the registry holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from stream_app.cli.common import ConfigOption, JsonOption, RegistryOption, VersionOption, console, print_json
from stream_app.errors import ModelNotFound
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from model.manifest import Manifest
    from model.registry import Registry

SHARES = (0.5, 0.9, 0.99)  # of the held-out normal records; calibrated, they score about 0.3, 1 and 2

app = typer.Typer(help="Look at the detectors in the registry.", no_args_is_help=True, add_completion=False)


@app.command("list")
def list_models(registry: RegistryOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List every version of every detector; the one in service is marked.

    Example: ganomaly-stream models list --registry models
    """
    url, found = _open(registry, config)
    rows = [(item, item.version == found.champion(name)) for name in found.detectors() for item in found.versions(name)]
    if json:
        for item, champion in rows:
            print_json(_summary(item, champion))
        return
    if not rows:
        console.print(f"no detector in {url}; `ganomaly-stream train` makes one", markup=False, soft_wrap=True)
        return
    # The version says when it was made; 80 columns hold no more.
    table = Table("detector", Column("version (made, UTC)", no_wrap=True), "takes", "rows", "auroc")
    for item, champion in rows:
        table.add_row(
            item.name,
            f"{item.version} *" if champion else item.version,
            f"{item.kind} " + "×".join(map(str, item.input_shape)),
            str(item.training_data.rows),
            f"{item.metrics['auroc']:.3f}" if "auroc" in item.metrics else "–",
            style="bold" if champion else "",
        )
    console.print(table)
    console.print("* in service", style="dim")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="DETECTOR")],
    version: VersionOption = None,
    registry: RegistryOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show how a version was made, or with --json its whole manifest.

    Example: ganomaly-stream models show images --registry models
    """
    url, found = _open(registry, config)
    champion = found.champion(name)
    versions = {item.version: item for item in found.versions(name)}
    wanted = version or champion
    if wanted is None or wanted not in versions:
        known = ", ".join(versions) or "none"
        what = f"version {wanted}" if wanted else "version in service"
        raise ModelNotFound(f"detector {name} in {url} has no {what}; versions: {known}")
    if json:
        item = versions[wanted]
        print_json({**item.model_dump(mode="json"), "champion": wanted == champion, "path": found.path(name, wanted)})
        return
    console.print(_details(versions[wanted], wanted == champion))
    console.print(
        f"files in {found.path(name, wanted)}; card.md there says how it was made", markup=False, soft_wrap=True
    )


def _details(item: Manifest, champion: bool) -> Table:
    data = item.training_data
    table = Table("", Column("", overflow="fold"), title=f"{item.name} {item.version}", show_header=False)
    table.add_row("in service", "yes" if champion else "no")
    table.add_row("takes", f"{item.kind} " + " × ".join(map(str, item.input_shape)))
    table.add_row("made (UTC)", f"{item.created_at:%Y-%m-%d %H:%M:%S} in {item.seconds:.0f} s, seed {item.seed}")
    table.add_row("trained on", f"{data.rows} normal rows of {data.source}")
    table.add_row("parent", item.parent or "none")
    below = zip(SHARES, item.score_quantiles(SHARES), strict=True)
    table.add_row("held-out normals score", ", ".join(f"{share:.0%} up to {score:.2f}" for share, score in below))
    table.add_row("SHA-256 of the weights", item.sha256)
    for metric, value in item.metrics.items():
        table.add_row(metric, f"{value:.4g}")
    return table


def _open(registry: str | None, config: ConfigOption) -> tuple[str, Registry]:
    from model.registry import Registry

    url = load_settings(config, {"registry.url": registry}).registry.url
    return url, Registry(url)


def _summary(item: Manifest, champion: bool) -> dict[str, object]:
    return {
        "name": item.name,
        "version": item.version,
        "champion": champion,
        "kind": item.kind,
        "input_shape": item.input_shape,
        "created_at": item.created_at.isoformat(),
        "metrics": item.metrics,
        "sha256": item.sha256,
        "parent": item.parent,
    }
