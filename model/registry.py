"""Where detectors are kept: a folder, or whatever fsspec can reach.

`<url>/<detector>/<version>/{weights.safetensors, manifest.json, card.md}` and `<url>/<detector>/champion`, a text file
with the version in service. A version exists once its manifest does: in a folder the whole directory is renamed into
place, elsewhere the manifest is put last. Nobody sees half of one, and no lock is needed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from model.config import ImageConfig, Profile, SequenceConfig
from model.detector import Detector, Network, build, pick_device
from model.errors import DigestMismatch, ManifestError, ModelNotFound, RegistryError
from model.manifest import Manifest, check_name

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
CARD = "card.md"
CHAMPION = "champion"


class Registry:
    """Detectors, their versions, and which version of each is in service."""

    def __init__(self, url: str) -> None:
        """`url`: a folder (made when first saved to) or an fsspec URL such as s3://bucket/models.

        Raises RegistryError for a scheme that nothing is installed for.
        """
        try:
            self._fs, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise RegistryError(f"registry {url}: {error}") from error
        self._local = isinstance(self._fs, LocalFileSystem)

    def path(self, name: str, version: str) -> str:
        """The directory of a version, whether it exists or not."""
        return f"{self._folder(name)}/{check_name(version, 'version')}"

    def detectors(self) -> list[str]:
        """Names of the detectors that have a version, in order."""
        return [name for name in self._children(self._root) if self.versions(name)]

    def versions(self, name: str) -> list[Manifest]:
        """Manifests of all versions, oldest first. Raises ManifestError for a broken one."""
        found = [self._read_manifest(name, child) for child in self._children(self._folder(name)) if child != CHAMPION]
        return sorted((item for item in found if item), key=lambda item: (item.created_at, item.version))

    def champion(self, name: str) -> str | None:
        """The version in service, or None."""
        data = self._read(f"{self._folder(name)}/{CHAMPION}")
        return data.decode("utf-8").strip() or None if data is not None else None

    def promote(self, name: str, version: str) -> None:
        """Puts a version in service. Raises ModelNotFound where there is no such version."""
        if self._read_manifest(name, version) is None:
            raise ModelNotFound(f"detector {name} has no version {version} in {self._root}")
        pointer = f"{self._folder(name)}/{CHAMPION}"
        if not self._local:
            self._put(pointer, version.encode())
            return
        fresh = f"{pointer}.{secrets.token_hex(4)}.tmp"
        try:
            self._put(fresh, version.encode())
            Path(fresh).replace(pointer)
        except OSError as error:
            Path(fresh).unlink(missing_ok=True)
            raise RegistryError(f"{pointer} can't be written: {error}") from error

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
        self._publish(self.path(manifest.name, version), files)
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
            raise ModelNotFound(f"detector {name} has no champion in {self._root}; train one, or promote a version")
        manifest = self._read_manifest(name, chosen)
        weights = self._read(f"{self.path(name, chosen)}/{WEIGHTS}")
        if manifest is None or weights is None:
            raise ModelNotFound(f"detector {name} has no version {chosen} in {self._root}")
        digest = hashlib.sha256(weights).hexdigest()
        if digest != manifest.sha256:
            raise DigestMismatch(
                f"{self.path(name, chosen)}/{WEIGHTS}: SHA-256 {digest}, but the manifest names {manifest.sha256}"
            )
        network = _fill(manifest.network(), weights, self.path(name, chosen))
        return Detector(manifest, network, pick_device(device), profile)

    def _folder(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{check_name(name, 'detector')}"

    def _children(self, folder: str) -> list[str]:
        try:
            self._fs.invalidate_cache(folder)
            names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in self._fs.ls(folder, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise RegistryError(f"{folder} can't be listed: {error}") from error
        return sorted(name for name in names if not name.startswith(".") and not name.endswith(".tmp"))

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RegistryError(f"{path} can't be read: {error}") from error

    def _read_manifest(self, name: str, version: str) -> Manifest | None:
        where = f"{self.path(name, version)}/{MANIFEST}"
        data = self._read(where)
        if data is None:
            return None
        manifest = Manifest.parse(data, where)
        if (manifest.name, manifest.version) != (name, version):
            raise ManifestError(f"{where} is of {manifest.name} {manifest.version}")
        return manifest

    def _publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        if not self._local:
            for name, data in files.items():
                self._put(f"{folder}/{name}", data)
            return
        parent, version = folder.rsplit("/", 1)
        staging = Path(parent) / f".{version}.{secrets.token_hex(4)}.tmp"
        try:
            staging.mkdir(parents=True)
            for name, data in files.items():
                self._put(str(staging / name), data)
            staging.rename(folder)
        except OSError as error:
            for leftover in [*staging.glob("*")]:
                leftover.unlink(missing_ok=True)
            if staging.exists():
                staging.rmdir()
            raise RegistryError(f"{folder} can't be written: {error}") from error

    def _put(self, path: str, data: bytes) -> None:
        if not self._local:
            try:
                self._fs.pipe_file(path, data)
            except OSError as error:
                raise RegistryError(f"{path} can't be written: {error}") from error
            return
        with Path(path).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before the bytes it makes visible


def _fill(config: ImageConfig | SequenceConfig, weights: bytes, where: str) -> Network:
    network = build(config)
    try:
        network.load_state_dict(read_tensors(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ManifestError(f"{where}: the weights don't fit the config: {str(error)[:500]}") from error
    return network
