"""Files of a registry: in a folder, in an S3 bucket, or on whatever else fsspec can reach.

Two things make a registry safe for several writers. `publish` makes a folder of files visible as a whole. `put_if`
replaces a file only where it still is what the writer has read: in a folder under a file lock, on S3 by a conditional
put (If-Match, If-None-Match; "Conditional writes" in the Amazon S3 User Guide).
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from model.errors import RegistryError

_LOCK = ".lock"
_LOCK_TIMEOUT = 10.0  # seconds; it is held for one small file
_PROBE = ".conditional-put"
_CONFLICTS = (409, 412)  # another conditional put was under way; the condition does not hold
_one_at_a_time = threading.Lock()

Tag = Any  # what a file was when it was read: its bytes, or its ETag; None where there was none


class Storage:
    """Files that fsspec reaches. Where it has no conditional put, `put_if` is one for this process alone."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs = fs
        self.root = root.rstrip("/")

    def check_fencing(self) -> None:
        """Raises RegistryError where `put_if` can't keep writers of other processes apart."""
        if not isinstance(self._fs, MemoryFileSystem):
            raise RegistryError(
                f"{self.root}: there are no conditional puts on this kind of storage, so that a stale trainer could "
                "not be kept out; keep the registry in a folder or on S3, or promote by hand"
            )

    def read(self, path: str) -> bytes | None:
        """The bytes of a file, None where there is none. Raises RegistryError."""
        with self._errors(path, "read"):
            try:
                return bytes(self._fs.cat_file(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def children(self, folder: str) -> list[str]:
        """Names of what is in a folder, sorted, without hidden and unfinished ones. Raises RegistryError."""
        with self._errors(folder, "listed"):
            try:
                names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in self._fs.ls(folder, detail=False)]
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for name in names if not name.startswith(".") and not name.endswith(".tmp"))

    def read_tagged(self, path: str) -> tuple[bytes | None, Tag]:
        """A file, and what `put_if` takes to replace just this state of it. Raises RegistryError."""
        data = self.read(path)
        return data, data

    def put_if(self, path: str, data: bytes, tag: Tag) -> bool:
        """Replaces a file at once, unless it is no longer what `tag` says: then False. Raises RegistryError."""
        with _one_at_a_time:
            if self.read(path) != tag:
                return False
            self._put(path, data)
        return True

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Writes files in their order; the last one makes them count. Raises RegistryError."""
        for name, data in files.items():
            self._put(f"{folder}/{name}", data)

    def remove(self, folder: str) -> None:
        """Removes a folder. Raises RegistryError."""
        with self._errors(folder, "removed"):
            self._fs.rm(folder, recursive=True)

    def _put(self, path: str, data: bytes) -> None:
        with self._errors(path, "written"):
            self._fs.pipe_file(path, data)

    @contextmanager
    def _errors(self, path: str, verb: str) -> Iterator[None]:
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:  # each library behind fsspec has a tree of errors of its own
            raise RegistryError(f"{path} can't be {verb}: {str(error) or type(error).__name__}") from error


class Bucket(Storage):
    """Files on S3, or on what speaks its protocol."""

    _probed = False

    def check_fencing(self) -> None:
        """Raises RegistryError where the server does not look at the conditions of a put."""
        if self._probed:
            return
        path = f"{self.root}/{_PROBE}"
        if [self.put_if(path, b"", None) for _ in range(2)] == [True, True]:
            raise RegistryError(
                f"{path} was written twice although If-None-Match: * was asked for: this server knows no conditional "
                "puts, so that a stale trainer could not be kept out; use one that does, or promote by hand"
            )
        self._probed = True

    def children(self, folder: str) -> list[str]:
        """Names of what is in a folder. Raises RegistryError also where the bucket of an empty one does not exist."""
        names = super().children(folder)
        bucket = folder.split("/", 1)[0]
        with self._errors(folder, "listed"):
            if not names and not self._fs.exists(bucket):
                raise RegistryError(f"s3://{folder} can't be listed: there is no bucket {bucket}")
        return names

    def read_tagged(self, path: str) -> tuple[bytes | None, Tag]:
        """A file and its ETag, which is asked for first: a newer file with an older tag is refused when it is put."""
        with self._errors(path, "read"):
            try:
                tag = self._fs.info(path)["ETag"]
            except FileNotFoundError:
                return None, None
        data = self.read(path)
        return data, None if data is None else tag

    def put_if(self, path: str, data: bytes, tag: Tag) -> bool:
        """A conditional put."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._errors(path, "written"):
            try:
                self._fs.pipe_file(path, data, **condition)
            except OSError as error:
                if _status(error) in _CONFLICTS or (tag is not None and isinstance(error, FileNotFoundError)):
                    return False
                raise
        return True


class Folder(Storage):
    """Files of this machine, or of a network file system that has locks."""

    def check_fencing(self) -> None:
        """A lock keeps writers apart."""

    def put_if(self, path: str, data: bytes, tag: Tag) -> bool:
        """Writes beside the file and renames, under the folder's lock."""
        folder = Path(path).parent
        fresh = Path(f"{path}.{secrets.token_hex(4)}.tmp")
        with self._errors(path, "written"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(folder / _LOCK, timeout=_LOCK_TIMEOUT):
                    if self.read(path) != tag:
                        return False
                    self._put(str(fresh), data)
                    fresh.replace(path)
            except Timeout as error:
                raise RegistryError(
                    f"{path} can't be written: another process has held {folder / _LOCK} for {_LOCK_TIMEOUT:g} s"
                ) from error
            finally:
                fresh.unlink(missing_ok=True)
        return True

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Writes files into a hidden folder and renames that. Raises RegistryError, where there is one already too."""
        parent, version = folder.rsplit("/", 1)
        staging = Path(parent) / f".{version}.{secrets.token_hex(4)}.tmp"
        try:
            with self._errors(folder, "written"):
                staging.mkdir(parents=True)
                for name, data in files.items():
                    self._put(str(staging / name), data)
                staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def remove(self, folder: str) -> None:
        """Renames a folder out of sight before its files go."""
        parent, version = folder.rsplit("/", 1)
        gone = Path(parent) / f".{version}.{secrets.token_hex(4)}.tmp"
        with self._errors(folder, "removed"):
            Path(folder).rename(gone)
            shutil.rmtree(gone)

    def _put(self, path: str, data: bytes) -> None:
        with self._errors(path, "written"), Path(path).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before the bytes it makes visible


def open_storage(url: str) -> Storage:
    """What keeps the files of a folder or of an fsspec URL.

    Raises RegistryError for a scheme that nothing is installed for.
    """
    try:
        # A listing that is kept would hide what others have written since.
        fs, root = fsspec.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise RegistryError(f"registry {url}: {error}") from error
    if isinstance(fs, LocalFileSystem):
        return Folder(fs, root)
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return (Bucket if "s3" in protocols else Storage)(fs, root)


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of s3fs, which keeps the client's own as its cause."""
    response = getattr(error.__cause__, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
