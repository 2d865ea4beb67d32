"""Where detectors are kept: a folder, or whatever fsspec can reach.

    <url>/<detector>/<version>/{weights.safetensors, manifest.json, card.md, figures}
    <url>/<detector>/champion       a text file with the version in service
    <url>/<detector>/lineage.json   what was in service, and the highest fencing token

A version exists once its manifest does: in a folder the whole directory is renamed into place, elsewhere the manifest
is put last. Nobody sees half of one.

Putting a version in service changes two files, and no storage changes two at once. The lineage is written first and
decides: of two that promote at once, one finds it changed and looks again. The champion file then follows the lineage's
last entry, and whoever wrote it looks afterwards whether that still is the last. Who finds a change whose writer has
yet to write that file, or died before, writes it first, so that the file is never more than one entry behind.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import EllipsisType
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from model.config import ImageConfig, Profile, SequenceConfig
from model.detector import Detector, Network, build, pick_device
from model.errors import DigestMismatch, ManifestError, ModelNotFound, RegistryError
from model.lineage import Lineage, Promotion
from model.manifest import Manifest, check_name, is_name
from model.storage import open_storage

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
CARD = "card.md"
CHAMPION = "champion"
LINEAGE = "lineage.json"
_ATTEMPTS = 50  # to change a file that others change too
_PAUSE = 0.02  # seconds between them, at most, times the number of the attempt up to ten


class Versions(NamedTuple):
    """What there is of a detector: manifests, the oldest first, and why those of other versions can't be read."""

    sound: list[Manifest]
    broken: dict[str, str]


class Registry:
    """Detectors, their versions, and which version of each is in service.

    Whatever is read or written may raise RegistryError: the storage can't be reached, or refuses.
    """

    def __init__(self, url: str) -> None:
        """`url`: a folder (made when first saved to) or an fsspec URL such as s3://bucket/models.

        Raises RegistryError for a scheme that nothing is installed for.
        """
        self._storage = open_storage(url)

    def path(self, name: str, version: str) -> str:
        """The directory of a version, whether it exists or not."""
        return f"{self._folder(name)}/{check_name(version, 'version')}"

    def detectors(self) -> list[str]:
        """Names of the detectors that have a version, if only a broken one, in order.

        What else lies there, such as the `lost+found` of a volume, is passed over.
        """
        return [name for name in self._names(self._storage.root) if self._has_version(name)]

    def is_empty(self) -> bool:
        """Whether there is nothing at all, as in a folder that is not mounted."""
        return not self._storage.children(self._storage.root)

    def versions(self, name: str) -> list[Manifest]:
        """Manifests of all versions that can be read, oldest first; `survey` tells of the others too."""
        return self.survey(name).sound

    def survey(self, name: str) -> Versions:
        """All versions, also those whose manifest can't be read; their weights are not looked at."""
        sound, broken = [], {}
        for version in self._candidates(name):
            try:
                manifest = self._read_manifest(name, version)
            except ManifestError as error:
                broken[version] = str(error)
                continue
            if manifest is not None:
                sound.append(manifest)
        return Versions(sorted(sound, key=lambda item: (item.created_at, item.version)), broken)

    def manifest(self, name: str, version: str) -> Manifest:
        """The manifest of a version. Raises ModelNotFound or ManifestError."""
        if (manifest := self._read_manifest(name, version)) is None:
            raise ModelNotFound(self._what_is_missing(name, version))
        return manifest

    def champion(self, name: str) -> str | None:
        """The version in service, or None."""
        return _text(self._storage.read(f"{self._folder(name)}/{CHAMPION}"))

    def lineage(self, name: str) -> Lineage:
        """What was in service and who may change it; empty for a detector that nothing was promoted of."""
        where = f"{self._folder(name)}/{LINEAGE}"
        return Lineage.parse(self._storage.read(where), where)

    def fence(self, name: str, token: int) -> None:
        """Remembers a trainer's fencing token, so that trainers with lower ones change nothing any more.

        Raises StaleToken where a higher one is remembered, RegistryError where the storage can't keep writers apart.
        """
        self._storage.check_fencing()
        self._change_lineage(name, lambda lineage: lineage.fenced(token))

    def promote(
        self,
        name: str,
        version: str,
        *,
        by: str = "",
        reason: str = "",
        token: int | None = None,
        expected: str | EllipsisType | None = ...,
    ) -> Promotion:
        """Puts a version in service and returns the entry of the lineage about it.

        Where somebody died over putting this version in service, that is brought to its end, and its entry returned.
        `token`: of a trainer that promotes on its own; a person gives none. `expected`: the version that it is to
        replace, None for the first one; without it, whichever is in service. Raises ModelNotFound or DigestMismatch for
        a version that is not there or not whole; with a token StaleToken, and RolledBack for a version that a person
        has rolled back; ChampionChanged where another than the expected one is in service at the moment of the change.
        """
        self._verified(name, version)
        if token is not None:
            self._storage.check_fencing()
        elif (begun := self._unfinished(name)) is not None and begun.version == version:
            return self._finish(name, begun)
        wanted = Promotion(at=datetime.now(UTC), version=version, by=by, reason=reason, token=token)
        return self._put_in_service(name, wanted, partial(Lineage.promoted, expected=expected))

    def rollback(
        self,
        name: str,
        to: str | None = None,
        *,
        by: str = "",
        reason: str = "",
        on_passed_over: Callable[[str], None] = lambda why: None,
    ) -> Promotion:
        """Puts a version in service that was in service before, and marks those that came after it as rolled back.

        Without `to`, the last one before the one in service that was not rolled back itself and is still there and
        whole; `on_passed_over` is told what is wrong with each that isn't. A rollback that somebody died over is
        brought to its end instead, and its entry returned: going back once more would leave the version that was
        wanted. Raises ModelNotFound where there is none, and what `promote` raises.
        """
        if to is not None:
            self._verified(name, to)
        if (begun := self._unfinished(name)) is not None and self._asks_again(name, begun, to):
            return self._finish(name, begun)
        target = self._previous(name, on_passed_over) if to is None else self._known(name, to)
        wanted = Promotion(at=datetime.now(UTC), version=target, action="rollback", by=by, reason=reason)
        return self._put_in_service(name, wanted, Lineage.went_back)

    def save(self, manifest: Manifest, network: Network, card: str, figures: Mapping[str, bytes] | None = None) -> str:
        """Writes a version and returns its name; it is not in service by that.

        `figures` are PNG files by name, which the card shows.

        The name is the time of its making and the first figures of the weights' digest, so that names sort by age.
        """
        tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        weights = write_tensors(tensors)
        digest = hashlib.sha256(weights).hexdigest()
        version = f"{manifest.created_at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{digest[:8]}"
        complete = manifest.model_copy(update={"version": version, "sha256": digest})
        text = complete.model_dump_json(indent=2).encode()
        # The manifest comes last: elsewhere than in a folder, it is what makes the version exist.
        files = {WEIGHTS: weights, **(figures or {}), CARD: card.encode(), MANIFEST: text}
        if self._read_manifest(manifest.name, version) is not None:
            raise RegistryError(f"{self.path(manifest.name, version)} can't be written: the version is there already")
        self._storage.publish(self.path(manifest.name, version), files)
        return version

    def load(
        self, name: str, version: str | None = None, device: str = "auto", profile: Profile = Profile.ACCURATE
    ) -> Detector:
        """A detector ready to score; without a version, the champion.

        Raises ModelNotFound, ManifestError, DigestMismatch (weights that aren't those the manifest names), or
        ModelError for a device that is not there.
        """
        chosen = version or self.champion(name)
        if chosen is None:
            raise ModelNotFound(
                f"detector {name} has no champion in {self._storage.root}; train one, or promote a version"
            )
        manifest, weights = self._verified(name, chosen)
        network = _fill(manifest.network(), weights, self.path(name, chosen))
        return Detector(manifest, network, pick_device(device), profile)

    def fetch(self, name: str, version: str) -> dict[str, bytes]:
        """All files of a version by name, the manifest last, as `store` takes them.

        Raises ModelNotFound, ManifestError or DigestMismatch where the version is not there or not whole.
        """
        _, weights = self._verified(name, version)
        folder = self.path(name, version)
        others = [child for child in self._storage.children(folder) if child not in (WEIGHTS, MANIFEST)]
        files = {child: self._storage.read(f"{folder}/{child}") for child in (*others, MANIFEST)}
        return {WEIGHTS: weights, **{child: data for child, data in files.items() if data is not None}}

    def store(self, name: str, version: str, files: Mapping[str, bytes]) -> None:
        """Puts a version that was fetched elsewhere. One that is there and whole is left as it is, another replaced.

        Raises ManifestError or DigestMismatch for files that are not that version's.
        """
        folder = self.path(name, version)
        if MANIFEST not in files or WEIGHTS not in files:
            raise ManifestError(f"{folder}: a version needs {WEIGHTS} and {MANIFEST}, these are {', '.join(files)}")
        manifest = _parse(files[MANIFEST], f"{folder}/{MANIFEST}", name, version)
        _check_digest(files[WEIGHTS], manifest, f"{folder}/{WEIGHTS}")
        if self._fault(name, version) is None:
            return
        if self._storage.children(folder):
            self._storage.remove(folder)
        last_is_manifest = {**{key: data for key, data in files.items() if key != MANIFEST}, MANIFEST: files[MANIFEST]}
        try:
            self._storage.publish(folder, last_is_manifest)
        except RegistryError:
            if self._fault(name, version) is not None:  # another process may have stored it meanwhile
                raise

    def _names(self, folder: str) -> list[str]:
        """What is in a folder and may be a detector or a version."""
        return [child for child in self._storage.children(folder) if is_name(child)]

    def _candidates(self, name: str) -> list[str]:
        """What may be versions of a detector."""
        return [child for child in self._names(self._folder(name)) if child not in (CHAMPION, LINEAGE)]

    def _has_version(self, name: str) -> bool:
        manifests = (f"{self.path(name, version)}/{MANIFEST}" for version in self._candidates(name))
        return any(self._storage.read(manifest) is not None for manifest in manifests)

    def _folder(self, name: str) -> str:
        return f"{self._storage.root}/{check_name(name, 'detector')}"

    def _read_manifest(self, name: str, version: str) -> Manifest | None:
        where = f"{self.path(name, version)}/{MANIFEST}"
        data = self._storage.read(where)
        return None if data is None else _parse(data, where, name, version)

    def _verified(self, name: str, version: str) -> tuple[Manifest, bytes]:
        """The manifest, and the weights that it names."""
        folder = self.path(name, version)
        manifest = self._read_manifest(name, version)
        weights = self._storage.read(f"{folder}/{WEIGHTS}") if manifest else None
        if manifest is None or weights is None:
            raise ModelNotFound(self._what_is_missing(name, version))
        _check_digest(weights, manifest, f"{folder}/{WEIGHTS}")
        return manifest, weights

    def _fault(self, name: str, version: str) -> RegistryError | None:
        """What is wrong with a version; None where it is there and whole."""
        try:
            self._verified(name, version)
        except (ModelNotFound, ManifestError, DigestMismatch) as error:
            return error
        return None

    def _what_is_missing(self, name: str, version: str) -> str:
        folder = self.path(name, version)
        there = self._storage.children(folder)
        if not there:
            return f"detector {name} has no version {version} in {self._storage.root}"
        missing = " and ".join(file for file in (MANIFEST, WEIGHTS) if file not in there)
        return (
            f"detector {name} has no version {version} that could be used: {folder} lacks {missing}. "
            "Its upload was cut off, or files were removed: put it there again, or train another"
        )

    def _previous(self, name: str, on_passed_over: Callable[[str], None]) -> str:
        """The last version before the one in service that can be gone back to."""
        lineage = self.lineage(name)
        current = lineage.current(self.champion(name))
        for version in dict.fromkeys(lineage.before(current)):
            fault = self._fault(name, version)
            if fault is None:
                return version
            on_passed_over(str(fault))
        raise ModelNotFound(
            f"detector {name} has no version to go back to: none was in service before {current} that is still "
            "there and whole and was not rolled back; `ganomaly-stream models promote` puts any version in service"
        )

    def _known(self, name: str, version: str) -> str:
        """A version that was in service, and isn't."""
        lineage = self.lineage(name)
        if version == lineage.current(self.champion(name)):
            raise RegistryError(f"detector {name}: version {version} is in service already")
        if not lineage.knows(version):
            raise RegistryError(
                f"detector {name}: version {version} was never in service, so there is no going back to it; "
                "`ganomaly-stream models promote` puts it in service"
            )
        return version

    def _asks_again(self, name: str, begun: Promotion, to: str | None) -> bool:
        """Whether a rollback asks for what somebody died over; a promotion it goes back from, unless it names it."""
        if to is not None:
            return begun.version == to
        return begun.action == "rollback" and self._fault(name, begun.version) is None

    def _unfinished(self, name: str) -> Promotion | None:
        return self.lineage(name).unfinished(self.champion(name))

    def _finish(self, name: str, begun: Promotion) -> Promotion:
        """Does what is left of a change that is in the lineage already."""
        self._point_to_last(name)
        return begun

    def _put_in_service(
        self, name: str, wanted: Promotion, change: Callable[[Lineage, Promotion, str | None], Lineage]
    ) -> Promotion:
        def decide(lineage: Lineage) -> Lineage:
            # A put whose answer was lost is repeated by the client, and then finds the file changed: by itself.
            if lineage.holds(wanted):
                return lineage
            champion = self.champion(name)
            changed = change(lineage, wanted, champion)
            # A champion file two entries behind could not be told from one that other hands wrote.
            if lineage.unfinished(champion) is not None and champion != wanted.version:
                self._point_to_last(name)
            return changed

        entries = self._change_lineage(name, decide).entries
        self._point_to_last(name)
        return next(entry for entry in reversed(entries) if entry.at == wanted.at and entry.version == wanted.version)

    def _change_lineage(self, name: str, change: Callable[[Lineage], Lineage]) -> Lineage:
        where = f"{self._folder(name)}/{LINEAGE}"
        for attempt in range(_ATTEMPTS):
            data, tag = self._storage.read_tagged(where)
            lineage = Lineage.parse(data, where)
            changed = change(lineage)
            if changed == lineage or self._storage.put_if(where, changed.model_dump_json(indent=2).encode(), tag):
                return changed
            _pause(attempt)
        raise RegistryError(f"{where} was changed by others {_ATTEMPTS} times in a row; nothing was changed, try again")

    def _point_to_last(self, name: str) -> None:
        """Makes the champion file say what the lineage says, until both are seen to agree."""
        where = f"{self._folder(name)}/{CHAMPION}"
        for attempt in range(_ATTEMPTS):
            data, tag = self._storage.read_tagged(where)
            last = self.lineage(name).entries[-1].version
            if _text(data) == last:
                return
            if not self._storage.put_if(where, last.encode(), tag):
                _pause(attempt)
        raise RegistryError(f"{where} was changed by others {_ATTEMPTS} times in a row; promote the version again")


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace").strip() or None


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, _PAUSE * min(attempt + 1, 10)))  # noqa: S311  # to part two writers


def _parse(data: bytes, where: str, name: str, version: str) -> Manifest:
    manifest = Manifest.parse(data, where)
    if (manifest.name, manifest.version) != (name, version):
        raise ManifestError(f"{where} is of {manifest.name} {manifest.version}")
    return manifest


def _check_digest(weights: bytes, manifest: Manifest, where: str) -> None:
    digest = hashlib.sha256(weights).hexdigest()
    if digest != manifest.sha256:
        raise DigestMismatch(
            f"{where}: SHA-256 {digest} of {len(weights)} bytes, but the manifest names {manifest.sha256}: "
            "the file was changed or cut off; put the version there again"
        )


def _fill(config: ImageConfig | SequenceConfig, weights: bytes, where: str) -> Network:
    network = build(config)
    try:
        network.load_state_dict(read_tensors(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ManifestError(f"{where}: the weights don't fit the config: {str(error)[:500]}") from error
    return network
