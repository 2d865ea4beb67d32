"""The versions that were last in service on this machine, so that a worker can start while the registry is away."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from model.config import Profile
from model.detector import Detector
from model.errors import RegistryError
from model.registry import CHAMPION, Registry

KEPT = 3  # versions of each detector


class VersionCache:
    """A registry's versions in a folder of this machine, with a note of which was in service last.

    Workers of one machine share it. Each registry has a folder of its own there, which is a registry itself. Blocks.
    """

    def __init__(self, folder: str, url: str) -> None:
        """`folder`: where caches are; empty for none. `url`: the registry whose versions these are."""
        whole = url if "://" in url else str(Path(url).absolute())  # two places may each have a folder `models`
        self._root = Path(folder).expanduser() / hashlib.sha256(whole.encode()).hexdigest()[:16] if folder else None
        self._registry = Registry(str(self._root)) if self._root else None

    def champion(self, name: str) -> str | None:
        """The version that was in service last, None where none is known. Raises RegistryError."""
        return self._registry.champion(name) if self._registry else None

    def load(self, name: str, version: str, device: str, profile: Profile) -> Detector:
        """A version that is kept here. Raises what a registry raises."""
        if self._registry is None:
            raise RegistryError("registry.cache is empty: no versions are kept on this machine")
        return self._registry.load(name, version, device, profile)

    def keep(self, source: Registry, name: str, version: str) -> None:
        """Copies a version, notes that it is in service, and removes those that were not for the longest time.

        Raises RegistryError where one of the two registries can't be read or written.
        """
        if self._registry is None or self._root is None:
            return
        self._registry.store(name, version, source.fetch(name, version))
        folder = self._root / name
        try:
            os.utime(folder / version)
            self._note(folder, version)
            self._remove_old(folder)
        except OSError as error:
            raise RegistryError(f"{folder} can't be written: {error}") from error

    def _note(self, folder: Path, version: str) -> None:
        fresh = folder / f".{CHAMPION}.{secrets.token_hex(4)}.tmp"
        fresh.write_text(version, encoding="utf-8")
        fresh.replace(folder / CHAMPION)

    def _remove_old(self, folder: Path) -> None:
        versions = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
        for old in sorted(versions, key=lambda child: child.stat().st_mtime_ns)[:-KEPT]:
            gone = old.rename(folder / f".{old.name}.{secrets.token_hex(4)}.tmp")  # at once: nobody sees half of it
            shutil.rmtree(gone, ignore_errors=True)
