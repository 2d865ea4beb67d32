"""A version on its way into service: fetched, examined, warmed up. All of it blocks, and none of it is for the loop."""

from __future__ import annotations

import time
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import Kind as ModelKind
from model.detector import Detector
from model.errors import DigestMismatch, ManifestError, ModelError, ModelNotFound, RegistryError
from model.registry import Registry
from stream_app.decode import InputSpec
from stream_app.errors import Refusal, VersionRefused
from stream_app.records import Kind
from stream_app.settings import Settings
from stream_app.version_cache import VersionCache

_PROBE_ROWS = 4
_PAUSE = 0.05  # seconds for the scoring thread between two steps, each of which takes tens of milliseconds of a core
_BAD_FILES = (ModelNotFound, DigestMismatch, ManifestError)


class Versions:
    """What the registry holds of the worker's detectors, and what was kept of it on this machine."""

    def __init__(self, settings: Settings) -> None:
        """Raises RegistryError for a registry whose scheme nothing is installed for."""
        self._registry = Registry(settings.registry.url)
        self._cache = VersionCache(settings.registry.cache, settings.registry.url)
        self._worker = settings.worker
        self._max_batch = settings.batch.max_batch

    def champion(self, name: str, known: bool) -> str | None:
        """The version that shall be in service, or None.

        `known`: it had one before. Raises RegistryError where the registry can't be reached. A folder that isn't
        mounted looks empty; one that is empty, though something was in service from it, is taken for that.
        """
        version = self._registry.champion(name)
        if version is None and (known or self.cached_champion(name)) and self._registry.is_empty():
            raise RegistryError(f"the registry is empty, though {name} was in service from it; is it mounted?")
        return version

    def load(self, name: str, version: str, in_service: Detector | None) -> Detector:
        """A version of the registry, warmed up, that can take over from the one in service.

        Raises VersionRefused for one that can't, RegistryError where the registry can't be reached.
        """
        return self._load(self._registry, name, version, in_service)

    def cached_champion(self, name: str) -> str | None:
        """The version that was in service last on this machine; None where that isn't known."""
        try:
            return self._cache.champion(name)
        except RegistryError:
            return None

    def load_cached(self, name: str, version: str) -> Detector:
        """That version, warmed up. Raises VersionRefused or RegistryError."""
        return self._load(self._cache, name, version, None)

    def keep(self, name: str, version: str) -> None:
        """Copies a version that is in service to this machine. Raises RegistryError."""
        self._cache.keep(self._registry, name, version)

    def _load(self, source: Registry | VersionCache, name: str, version: str, in_service: Detector | None) -> Detector:
        try:
            detector = source.load(name, version, self._worker.device, self._worker.profile)
            self._examine(detector, in_service)
        except VersionRefused:
            raise
        except _BAD_FILES as error:
            raise VersionRefused(str(error), _reason_of(error)) from error
        except RegistryError:
            raise
        except Exception as error:  # whatever a version does to torch, the one in service goes on
            what = str(error) if isinstance(error, ModelError) else repr(error)
            raise VersionRefused(f"{name} {version} can't be put to work: {what}", Refusal.FAILED) from error
        return detector

    def _examine(self, detector: Detector, old: Detector | None) -> None:
        if old is not None and spec_of(detector) != spec_of(old):
            raise VersionRefused(
                f"{detector.name} {detector.version} takes {_describe(detector)}, but {old.version}, which is in "
                f"service, takes {_describe(old)}. Restart the workers to change what a detector takes",
                Refusal.SHAPE,
            )
        time.sleep(_PAUSE)
        probe = _probe(detector)
        if old is None or detector.manifest.config != old.manifest.config:
            detector.warm_up(self._max_batch)
        else:  # what is paid at the first call was paid for networks of this kind; less costs the scoring thread less
            detector.localize(probe[:1])
        time.sleep(_PAUSE)
        scores = detector.score(probe)
        wrong = [
            name for name, values in {"score": scores.score, **scores.raw}.items() if not np.isfinite(values).all()
        ]
        if wrong or not _has_finite_weights(detector):
            raise VersionRefused(
                f"{detector.name} {detector.version} has weights or scores that are not finite"
                + (f" ({', '.join(wrong)})" if wrong else "")
                + "; train another",
                Refusal.NOT_FINITE,
            )


def spec_of(detector: Detector) -> InputSpec:
    """What records a version takes."""
    return InputSpec(Kind(detector.kind), tuple(detector.input_shape), detector.manifest.features)


def limit_torch_to_one_thread() -> None:
    """For the thread that calls it: its work leaves the cores to the scoring thread. Others keep what they have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # That also is the number for threads that use torch for the first time, which another thread puts right.
    if threads > 1:
        restoring = Thread(target=torch.set_num_threads, args=(threads,))
        restoring.start()
        restoring.join()


def _probe(detector: Detector) -> NDArray[np.generic]:
    """Records that any version of a detector must have finite scores of."""
    random = np.random.default_rng(0)
    shape = (_PROBE_ROWS, *detector.input_shape)
    if detector.kind is ModelKind.IMAGE:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32)


def _has_finite_weights(detector: Detector) -> bool:
    tensors = detector.network.state_dict().values()
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def _reason_of(error: Exception) -> Refusal:
    if isinstance(error, ModelNotFound):
        return Refusal.MISSING
    return Refusal.DIGEST if isinstance(error, DigestMismatch) else Refusal.MANIFEST


def _describe(detector: Detector) -> str:
    spec = spec_of(detector)
    names = f" with the features {', '.join(spec.features)}" if spec.features else ""
    return f"{spec.kind.value}s of shape [{', '.join(map(str, spec.shape))}]{names}"
