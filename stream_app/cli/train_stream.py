"""`train --from-stream` and `train --from-manifest`: what a topic carries, to be trained on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from model.errors import TrainingError
from stream_app.cli.common import progress
from stream_app.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from model.config import Kind
    from model.detector import Detector
    from model.manifest import Manifest
    from model.registry import Registry
    from stream_app.settings import Settings
    from training.refresh.snapshot import Looking, Snapshot

WHAT = {"score": "look through {topic}", "fetch": "fetch from {topic}"}


def read_stream(
    settings: Settings,
    registry: Registry,
    topic: str,
    name: str,
    *,
    kind: Kind | None,
    window: int | None,
    seed: int,
    silent: bool,
) -> Snapshot:
    """The newest records of a topic, chosen with the detector's champion where there is one.

    Raises UsageError where there is none and no `kind`, or it is of another one, and what `take_snapshot` does.
    """
    champion = None
    if (version := registry.champion(name)) is not None:
        champion = registry.load(name, version, settings.worker.device, settings.worker.profile)
        if kind not in (None, champion.kind) or window not in (None, champion.input_shape[0]):
            raise UsageError(
                f"--kind and --window: {name} {version} takes {champion.kind} records {list(champion.input_shape)}; "
                "leave the options out, or choose another --name"
            )
    elif kind is None:
        raise UsageError(f"--kind: {name} has no version in service that tells what the records of {topic} are")
    with progress(silent) as bar:
        return asyncio.run(_read(settings, topic, name, champion, kind, window, seed, _shown_in(bar, topic)))


async def _read(
    settings: Settings,
    topic: str,
    name: str,
    champion: Detector | None,
    kind: Kind | None,
    window: int | None,
    seed: int,
    show: Callable[[Looking], None],
) -> Snapshot:
    from training.refresh.first_look import look
    from training.refresh.snapshot import newest_ranges, take_snapshot

    ranges = await newest_ranges(settings, topic)
    spec = None
    if champion is None:
        assert kind is not None
        spec = await look(settings, topic, kind, ranges, window)
    return await take_snapshot(settings, topic, name, champion, spec=spec, ranges=ranges, seed=seed, on_progress=show)


def read_again(settings: Settings, registry: Registry, manifest: Manifest, silent: bool) -> Snapshot:
    """The records that a version was trained on.

    Raises UsageError for a version that was trained from a file, and TrainingError where the broker no longer has all
    of the records, or they are not the same.
    """
    from training.refresh.snapshot import check_ranges, settings_of_choice, spec_of_manifest, take_snapshot

    data, version = manifest.training_data, f"{manifest.name} {manifest.version}"
    if data.topic is None or data.offsets is None:
        raise UsageError(f"--from-manifest: {version} was trained on the file {data.source}; train with --data")
    topic, ranges = data.topic, {int(partition): span for partition, span in data.offsets.items()}
    champion = None
    if data.champion is not None:
        champion = registry.load(manifest.name, data.champion, settings.worker.device, data.profile)
    same = settings_of_choice(settings, data.choice)

    async def read(show: Callable[[Looking], None]) -> Snapshot:
        await check_ranges(settings, topic, ranges, data.known)
        return await take_snapshot(
            same,
            topic,
            manifest.name,
            champion,
            spec=spec_of_manifest(manifest),
            ranges=ranges,
            known=data.known,
            seed=data.seed or 0,
            on_progress=show,
        )

    with progress(silent) as bar:
        snapshot = asyncio.run(read(_shown_in(bar, topic)))
    if snapshot.sha256 != data.sha256:
        raise TrainingError(
            f"topic {topic}: what {ranges} hold now has the SHA-256 {snapshot.sha256}, but {version} was trained on "
            f"{data.sha256}. Settings of how records are read (limits, sequence) must be as they were, and scores as "
            "on the machine that trained it"
        )
    return snapshot


def _shown_in(bar: Progress, topic: str) -> Callable[[Looking], None]:
    tasks = {}

    def show(state: Looking) -> None:
        if state.what not in tasks:
            tasks[state.what] = bar.add_task(WHAT[state.what].format(topic=topic), total=state.total)
        bar.update(tasks[state.what], completed=state.done)

    return show


def describe_counts(topic: str, counts: dict[str, int]) -> str:
    """What became of the records, in a line."""
    from training.refresh.choice import told

    return f"{topic}: of {counts['read']} records {told(counts)}"
