"""Avro in Confluent's wire format: schemas from a registry, bytes to plain values.

Sources: Apache Avro 1.12, specification, section "Binary encoding"; Confluent Schema Registry, "Wire format", and its
API, `GET /schemas/ids/{id}`.
"""

from __future__ import annotations

import base64
import io
import json
from functools import lru_cache
from http.client import HTTPException
from threading import Lock
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from stream_app.clock import Clock
from stream_app.errors import ContentTypeError, DecodeError, SchemaRegistryFault
from stream_app.settings import SchemaRegistrySettings

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"

_MAGIC = b"\0"
_HEAD = 5  # bytes: the magic one and the schema's id
_KEPT = 1024  # schemas, and as many ids without one
_UNKNOWN = 404


class AvroReader:
    """Reads Avro values. Schemas are fetched in the thread that reads, and kept; any number of threads may read.

    That there is none, or none that can be used, is kept for `settings.retry_after`: a burst of such records is one
    question, and a schema that is registered later is found.
    """

    def __init__(self, settings: SchemaRegistrySettings, clock: Clock) -> None:
        url = settings.url.get_secret_value() if settings.url is not None else None
        self._registry = SchemaRegistry(url, settings.timeout) if url is not None else None
        self._schema_of = lru_cache(maxsize=_KEPT)(self._fetch)
        self._refusals = _Refusals(settings.retry_after, clock)

    def takes(self, value: bytes) -> bool:
        """Whether a value that no header tells of is read as Avro: there is a registry, and it begins as Avro does."""
        return self._registry is not None and in_wire_format(value)

    def read(self, value: bytes) -> dict[str, Any]:
        """The fields of a record.

        Raises RecordError for bytes or a schema that can't be read, and SchemaRegistryFault when that isn't for the
        record to answer.
        """
        if len(value) < _HEAD or not in_wire_format(value):
            raise DecodeError(
                f"value: begins with {value[:_HEAD].hex(' ')}; Avro comes in Confluent's wire format: a zero byte, the "
                "schema's id in 4 bytes, the body"
            )
        identity = int.from_bytes(value[1:_HEAD], "big")
        schema, body = self._schema_of(identity), io.BytesIO(value[_HEAD:])
        try:
            fields = _library().schemaless_reader(body, schema)
        except (EOFError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise DecodeError(f"value: not what schema {identity} says: {type(error).__name__}: {error}") from error
        if rest := len(body.read()):
            raise DecodeError(f"value: {rest} bytes behind what schema {identity} says")
        if not isinstance(fields, dict):
            raise DecodeError(f"value: schema {identity} is of {type(fields).__name__}; expected a record")
        return fields

    def _fetch(self, identity: int) -> Any:
        library = _library()
        if self._registry is None:
            raise ContentTypeError(
                "content-type: Avro needs a schema registry; GANOMALY_SCHEMA_REGISTRY__URL says where it is"
            )
        self._refusals.check(identity)
        try:
            return _parsed(library, identity, self._registry.schema(identity))
        except DecodeError as error:
            self._refusals.add(identity, str(error))
            raise


class _Refusals:
    """Why there is no schema of an id, as long as that is believed; of the newest ids only."""

    def __init__(self, lasting: float, clock: Clock) -> None:
        self._lasting = lasting
        self._clock = clock
        self._lock = Lock()
        self._reasons: dict[int, tuple[float, str]] = {}  # until when, and why; the oldest first

    def check(self, identity: int) -> None:
        """Raises DecodeError with the reason, if there is one."""
        with self._lock:
            until, reason = self._reasons.get(identity, (0.0, ""))
        if reason and self._clock.monotonic() < until:
            raise DecodeError(reason)

    def add(self, identity: int, reason: str) -> None:
        """Believes it from now on."""
        with self._lock:
            self._reasons.pop(identity, None)
            self._reasons[identity] = self._clock.monotonic() + self._lasting, reason
            if len(self._reasons) > _KEPT:
                del self._reasons[next(iter(self._reasons))]


def in_wire_format(value: bytes) -> bool:
    """Whether a value begins as Confluent's serializers begin it. No JSON text does: it has no byte of zero."""
    return value[:1] == _MAGIC


class SchemaRegistry:
    """A registry at a URL, whose user and password are told to it and to nobody else."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        user, _, self._host = parts.netloc.rpartition("@")
        self._url = urlunsplit((parts.scheme, self._host, parts.path.rstrip("/"), "", ""))
        self._secret = base64.b64encode(unquote(user).encode()).decode() if user else None
        self._timeout = timeout

    def schema(self, identity: int) -> str:
        """The text of an Avro schema.

        Raises DecodeError where the registry doesn't know it, or as one of another kind; SchemaRegistryFault where it
        doesn't answer, or not with a schema.
        """
        request = Request(f"{self._url}/schemas/ids/{identity}", headers={"Accept": MEDIA_TYPE})  # noqa: S310  # http, https
        if self._secret is not None:
            request.add_unredirected_header("Authorization", f"Basic {self._secret}")
        try:
            with urlopen(request, timeout=self._timeout) as response:  # noqa: S310  # as above
                answer = json.load(response)
        except HTTPError as error:
            with error:
                if error.code == _UNKNOWN:
                    raise DecodeError(f"value: no schema {identity} in the registry at {self._host}") from error
                raise self._fault(identity, f"answers {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._fault(identity, f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            raise self._fault(identity, "answers with something else")
        if (kind := answer.get("schemaType", "AVRO")) != "AVRO":
            raise DecodeError(f"value: schema {identity} is one of {kind}, not of Avro")
        if answer.get("references"):
            raise DecodeError(f"value: schema {identity} refers to other schemas; one that is whole is read")
        return str(answer["schema"])

    def _fault(self, identity: int, what: str) -> SchemaRegistryFault:
        return SchemaRegistryFault(f"schema registry at {self._host}: schema {identity}: {what}")


def _library() -> ModuleType:
    try:
        import fastavro
    except ImportError as error:
        raise ContentTypeError("content-type: Avro needs an extra: pip install 'ganomaly-stream[avro]'") from error
    return fastavro


def _parsed(library: ModuleType, identity: int, text: str) -> Any:
    try:
        schema = library.parse_schema(json.loads(text))
        _takes_bytes(schema, {})
    except (library.schema.SchemaParseException, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DecodeError(f"value: schema {identity} can't be used: {type(error).__name__}: {error}") from error
    return schema


def _takes_bytes(schema: Any, named: dict[str, bool | None]) -> bool:
    """Whether every value takes a byte at least. `named`: the same of the types that have a name, None while inside.

    Raises ValueError for what a few hostile bytes could make endless: a type inside of itself, which is read as deep
    as they ask, and an array of values without bytes, which is as long as they claim.
    """
    if isinstance(schema, list):
        for branch in schema:
            _takes_bytes(branch, named)
        return True  # which of them it is
    if isinstance(schema, str):
        known = named.get(schema, schema != "null")
        if known is None:
            raise ValueError(f"{schema} contains itself")
        return known
    kind = schema["type"]
    if kind in ("record", "error"):
        named[schema["name"]] = None
        sizes = [_takes_bytes(field["type"], named) for field in schema["fields"]]
        takes = any(sizes)
        named[schema["name"]] = takes
        return takes
    if kind in ("enum", "fixed"):
        takes = bool(kind == "enum" or schema["size"] > 0)
        named[schema["name"]] = takes
        return takes
    if kind == "array" and not _takes_bytes(schema["items"], named):
        raise ValueError("an array of values that take no bytes")
    if kind == "map":
        _takes_bytes(schema["values"], named)
    return kind in ("array", "map") or _takes_bytes(kind, named)
