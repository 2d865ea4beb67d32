"""`models`: what the registry holds, and which version of it is in service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from stream_app.cli.common import (
    ConfigOption,
    JsonOption,
    RegistryOption,
    VersionOption,
    console,
    error_console,
    print_json,
    user_name,
)
from stream_app.errors import ManifestError, ModelNotFound, UsageError
from stream_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from model.lineage import Lineage, Promotion
    from model.manifest import Manifest
    from model.registry import Registry

SHARES = (0.5, 0.9, 0.99)  # of the held-out normal records; calibrated, they score about 0.3, 1 and 2

LAST = 8  # entries of the lineage that people are shown
MOST_REASON = 1000  # characters; it goes into each message about it

DetectorArgument = Annotated[str, typer.Argument(metavar="DETECTOR")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the lineage.")]

app = typer.Typer(
    help="Look at the detectors, and choose what is in service.", no_args_is_help=True, add_completion=False
)


@app.command("list")
def list_models(registry: RegistryOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List every version of every detector; those in service, rolled back or broken are marked.

    Example: ganomaly-stream models list --registry models
    """
    url, found = _open(registry, config)
    rows: list[tuple[Manifest, bool, bool]] = []
    broken: list[dict[str, str | bool]] = []
    for name in found.detectors():
        sound, faults = _states(found, name)
        rows += sound
        broken += faults
    if json:
        for item, champion, rolled_back in rows:
            print_json(_summary(item, champion, rolled_back))
        for fault in broken:
            print_json(fault)
        return
    if not rows and not broken:
        console.print(f"no detector in {url}; `ganomaly-stream train` makes one", markup=False, soft_wrap=True)
        return
    if rows:
        _print_versions(rows)
    for each in broken:
        mark = " *" if each["champion"] else ""
        text = f"{each['name']} {each['version']}{mark} is broken: {each['broken']}"
        console.print(text, style="yellow", markup=False, soft_wrap=True)


def _print_versions(rows: list[tuple[Manifest, bool, bool]]) -> None:
    # The version says when it was made; 80 columns hold no more.
    table = Table("detector", Column("version (made, UTC)", no_wrap=True), "takes", "rows", "auroc")
    for item, champion, rolled_back in rows:
        table.add_row(
            item.name,
            f"{item.version} {'*' if champion else '×' if rolled_back else ''}".rstrip(),
            f"{item.kind} " + "×".join(map(str, item.input_shape)),
            str(item.training_data.rows),
            f"{item.metrics['auroc']:.3f}" if "auroc" in item.metrics else "–",
            style="bold" if champion else "",
        )
    console.print(table)
    console.print("* in service" + ("; × rolled back" if any(row[2] for row in rows) else ""), style="dim")


@app.command()
def show(
    name: DetectorArgument,
    version: VersionOption = None,
    registry: RegistryOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show how a version was made, what was in service, how its streams drift and what the trainer did last.

    With --json, all of each.

    Example: ganomaly-stream models show images --registry models
    """
    from stream_app.cli.drift import ask_drift, drift_as_json, print_drift
    from stream_app.cli.trainer import ask_last_run, last_run_as_json, print_last_run

    settings = _settings(registry, config)
    url, found = settings.registry.url, _registry(settings)
    champion = found.champion(name)
    survey = found.survey(name)
    versions = {item.version: item for item in survey.sound}
    wanted = version or champion
    if wanted in survey.broken:
        raise ManifestError(f"version {wanted} is broken: {survey.broken[wanted]}")
    if wanted is None or wanted not in versions:
        known = ", ".join(versions) or "none"
        what = f"version {wanted}" if wanted else "version in service"
        raise ModelNotFound(f"detector {name} in {url} has no {what}; versions: {known}")
    item, lineage, drift = versions[wanted], found.lineage(name), ask_drift(settings, name, wanted)
    last_run = ask_last_run(settings, name)
    if json:
        state = {"champion": wanted == champion, "rolled_back": wanted in lineage.rolled_back}
        history = lineage.model_dump(mode="json")["entries"]
        told = {"path": found.path(name, wanted), "lineage": history, "drift": drift_as_json(drift)}
        told["last_run"] = last_run_as_json(last_run)
        print_json({**item.model_dump(mode="json"), **state, **told})
        return
    console.print(_details(item, wanted == champion, wanted in lineage.rolled_back))
    if lineage.entries:
        console.print(_history(lineage))
    print_drift(drift, settings)
    print_last_run(last_run)
    console.print(
        f"files in {found.path(name, wanted)}; card.md there says how it was made", markup=False, soft_wrap=True
    )


@app.command()
def promote(
    name: DetectorArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION")],
    reason: ReasonOption = "",
    registry: RegistryOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Put a version in service, one that the gate refused or that was rolled back too.

    Workers hear of it through the broker, and take it over between two batches; without a broker they find it when they
    next look.

    Example: ganomaly-stream models promote images 20260501T083000.000000Z-4b5def63 --reason "fewer false alarms"
    """
    settings = _settings(registry, config, reason)
    found = _registry(settings)
    promotion = found.promote(name, version, by=user_name(), reason=reason)
    _tell(settings, found, name, promotion, json)


@app.command()
def rollback(
    name: DetectorArgument,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="VERSION", help="Which version.", show_default="the one that was in service before"
        ),
    ] = None,
    reason: ReasonOption = "",
    registry: RegistryOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Go back to a version that was in service before. Without --to, broken ones are passed over, which is said.

    What came into service after it is marked as rolled back: only a person puts it in service again.

    Example: ganomaly-stream models rollback images --reason "alerts at every sunrise"
    """
    settings = _settings(registry, config, reason)
    found = _registry(settings)
    promotion = found.rollback(name, to, by=user_name(), reason=reason, on_passed_over=_say_passed_over)
    _tell(settings, found, name, promotion, json)


def _say_passed_over(why: str) -> None:
    error_console.print(f"passed over: {why}", style="yellow", markup=False, soft_wrap=True)


def _tell(settings: Settings, found: Registry, name: str, promotion: Promotion, json: bool) -> None:
    """Publishes what was done, and prints it."""
    from stream_app.cli.updates import tell_workers

    published = tell_workers(settings, found, name, promotion)
    manifest = found.manifest(name, promotion.version)
    if json:
        print_json({"detector": name, **promotion.model_dump(mode="json"), "published": published})
        return
    instead = f", in place of {promotion.replaced}" if promotion.replaced not in (None, promotion.version) else ""
    console.print(f"{name} {promotion.version} is in service from now on{instead}", markup=False, soft_wrap=True)
    if promotion.action == "rollback":
        console.print(
            "what came after it is rolled back: the schedule does not promote it again", markup=False, soft_wrap=True
        )
    if manifest.gate is not None and not manifest.gate.passed:
        console.print(f"the gate had refused it: {', '.join(manifest.gate.refused_by)}", style="yellow", markup=False)


def _details(item: Manifest, champion: bool, rolled_back: bool) -> Table:
    data = item.training_data
    table = Table("", Column("", overflow="fold"), title=f"{item.name} {item.version}", show_header=False)
    table.add_row("in service", "yes" if champion else "no, it was rolled back" if rolled_back else "no")
    table.add_row("takes", f"{item.kind} " + " × ".join(map(str, item.input_shape)))
    if item.features:
        table.add_row("features", ", ".join(item.features))
    table.add_row("made (UTC)", f"{item.created_at:%Y-%m-%d %H:%M:%S} in {item.seconds:.0f} s, seed {item.seed}")
    table.add_row("trained on", f"{data.rows} normal rows of {data.source}")
    table.add_row("parent", item.parent or "none")
    below = zip(SHARES, item.score_quantiles(SHARES), strict=True)
    table.add_row("held-out normals score", ", ".join(f"{share:.0%} up to {score:.2f}" for share, score in below))
    table.add_row("SHA-256 of the weights", item.sha256)
    for metric, value in item.metrics.items():
        table.add_row(metric, f"{value:.4g}")
    if item.gate is not None:
        against = f"against {item.gate.champion}" if item.gate.champion else "without a champion"
        refused = f", refused by {', '.join(item.gate.refused_by)}" if item.gate.refused_by else ""
        table.add_row("gate", f"{'passed' if item.gate.passed else 'failed'} {against}{refused}")
        for rule in item.gate.rules:
            table.add_row("", str(rule))
    return table


def _history(lineage: Lineage) -> Table:
    # 80 columns hold a time, a version and little else.
    table = Table("in service since (UTC)", Column("version", no_wrap=True), Column("why", overflow="fold"))
    for entry in lineage.entries[-LAST:]:
        by = entry.by or ("the trainer" if entry.token is not None else "")
        what = " ".join([entry.action, *(["by", by] if by else [])])
        table.add_row(f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.version, f"{what}: {entry.reason}".removesuffix(": "))
    return table


def _settings(registry: str | None, config: ConfigOption, reason: str = "") -> Settings:
    if len(reason) > MOST_REASON:
        raise UsageError(f"--reason: {len(reason)} characters; at most {MOST_REASON}")
    return load_settings(config, {"registry.url": registry})


def _registry(settings: Settings) -> Registry:
    from model.registry import Registry

    return Registry(settings.registry.url)


def _open(registry: str | None, config: ConfigOption) -> tuple[str, Registry]:
    settings = _settings(registry, config)
    return settings.registry.url, _registry(settings)


def _states(found: Registry, name: str) -> tuple[list[tuple[Manifest, bool, bool]], list[dict[str, str | bool]]]:
    """The versions of a detector, which is in service, which were rolled back; and what of it is broken, and why."""
    champion, (sound, broken) = found.champion(name), found.survey(name)
    rolled_back: frozenset[str] = frozenset()
    try:
        rolled_back = found.lineage(name).rolled_back
    except ManifestError as error:
        broken = {**broken, "lineage.json": str(error)}
    rows = [(item, item.version == champion, item.version in rolled_back) for item in sound]
    return rows, [
        {"name": name, "version": version, "champion": version == champion, "broken": why}
        for version, why in broken.items()
    ]


def _summary(item: Manifest, champion: bool, rolled_back: bool) -> dict[str, Any]:
    return {
        "name": item.name,
        "version": item.version,
        "champion": champion,
        "rolled_back": rolled_back,
        "kind": item.kind,
        "input_shape": item.input_shape,
        "created_at": item.created_at.isoformat(),
        "metrics": item.metrics,
        "sha256": item.sha256,
        "parent": item.parent,
    }
