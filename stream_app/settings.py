"""All settings: one tree, read from the environment (`GANOMALY_`, nested with `__`), then from an optional YAML file.

The environment wins over the file, options of a command over both. Sizes are bytes and times are seconds unless the
name says otherwise.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as PydanticSettingsError,
)

from model.config import Profile
from stream_app.errors import SettingsError

PREFIX = "GANOMALY_"
_SECRETS = ("PASSWORD", "URL")
_WRONG = "wrong settings:\n  "
_config_file: ContextVar[Path | None] = ContextVar("config_file", default=None)

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TopicSettings(_Section):
    """Names of the topics that the product itself writes or listens to (what it reads are `routes`)."""

    alerts: str = "alerts"
    scores: str = "scores"
    dead_letter: str = "records.dead-letter"
    labels: str = "labels"
    model_updates: str = "model.updates"


class KafkaSettings(_Section):
    """The broker, who we are to it, and how it is trusted."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port, several separated by commas")
    group_id: str = Field("ganomaly-stream", min_length=1)
    create_topics: bool = Field(True, description="make topics that are missing")
    partitions: Count = Field(4, description="partitions of topics that we make")
    replication_factor: Count = 1
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    session_timeout: PositiveSeconds = Field(6.0, description="a worker silent for so long loses its partitions")
    commit_interval: PositiveSeconds = 0.5
    request_timeout: PositiveSeconds = 10.0
    fetch_max_bytes: Bytes = Field(1 << 20, description="most bytes fetched of one partition at a time")
    fetch_max_wait: PositiveSeconds = Field(0.1, description="how long the broker may keep a fetch waiting for records")
    unreachable_limit: PositiveSeconds = Field(30.0, description="the worker ends when no broker answers for so long")
    max_message_bytes: Annotated[int, Field(ge=1 << 14)] = Field(
        1 << 20, description="largest event we publish; evidence is dropped first"
    )

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"security_protocol={self.security_protocol} needs sasl_username and sasl_password")
        return self


class RedisSettings(_Section):
    """Where thresholds and windows are kept between workers."""

    url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="redis:// or rediss:// (TLS)")
    prefix: str = Field("ganomaly", description="first part of every key")
    ttl: PositiveSeconds = Field(30 * 86400.0, description="a stream that is silent for so long is forgotten")
    timeout: PositiveSeconds = Field(1.0, description="for one command")
    retry_after: PositiveSeconds = Field(2.0, description="pause before Redis is asked again once it did not answer")


class RegistrySettings(_Section):
    """Where models are kept."""

    url: str = Field("models", description="a folder or any fsspec URL (s3://…)")
    poll_interval: PositiveSeconds = Field(2.0, description="how often a route without a champion looks for one")


class BatchSettings(_Section):
    """Micro-batching."""

    max_batch: Annotated[int, Field(ge=1, le=4096)] = Field(256, description="records scored at once, and per chunk")
    linger: Seconds = Field(0.0, description="wait so long for a fuller batch; 0 scores whatever is there")
    max_in_hand_bytes: Bytes = Field(64 << 20, description="partitions are paused while more than this is in hand")


class LimitSettings(_Section):
    """What a record may be. Checked before memory is taken for it."""

    max_record_bytes: Bytes = Field(8 << 20, description="of the value")
    max_header_bytes: Bytes = Field(16 << 10, description="of all headers of a record together")
    max_key_bytes: Bytes = 1024
    max_pixels: Count = Field(1 << 24, description="height × width of a picture")
    max_length: Count = Field(4096, description="steps of a window")
    max_abs: Annotated[float, Field(gt=0)] = Field(1e12, description="largest magnitude of a sequence's value")


class ThresholdSettings(_Section):
    """The false-alarm budget and how a stream's own threshold is learned."""

    target_rate: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        1e-3, description="share of normal records that may alert"
    )
    alerts_per_day: Annotated[float, Field(gt=0)] | None = Field(
        None, description="instead of target_rate: false alarms a day and stream, at the stream's own pace"
    )
    min_observations: Count = Field(500, description="scores before a stream's own threshold counts in full")
    horizon: Count = Field(20_000, description="scores after which old ones have been forgotten")
    shift_after: Count = Field(500, description="anomalous scores in a row after which the stream has shifted for good")


class AlertSettings(_Section):
    """What is published on the alerts topic."""

    publish: Literal["anomalies", "all"] = "anomalies"
    evidence: bool = Field(True, description="heat maps and contributions in alerts")
    close_after: Count = Field(20, description="normal records in a row that end an episode")


class ScoreSettings(_Section):
    """The topic of every scored event."""

    publish: bool = False


class DeadLetterSettings(_Section):
    """The fuse: past these limits it is the worker or the topic that is wrong, not the records."""

    max_share: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="of the last `window` records")
    window: Count = 1000
    max_run: Count = Field(200, description="dead letters in a row in one partition")


class SequenceSettings(_Section):
    """Windows made of single observations."""

    stride: Count = Field(1, description="a score every so many observations")
    max_streams: Count = Field(100_000, description="streams whose last window is kept in memory")


class HttpSettings(_Section):
    """The worker's own HTTP server."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = Field(6066, description="0 takes a free one")
    stalled_after: PositiveSeconds = Field(30.0, description="not ready when records wait and none is done for so long")


class WorkerSettings(_Section):
    """Device, threads, and how long things may take before the process ends."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    profile: Profile = Field(
        Profile.ACCURATE, description="accurate: all evidence of a picture; fast: a third of the cost and less to go by"
    )
    torch_threads: Annotated[int, Field(ge=0)] = Field(0, description="0 leaves it to torch")
    decode_threads: Annotated[int, Field(ge=1, le=64)] = 1
    score_timeout: PositiveSeconds = Field(60.0, description="a batch that takes longer ends the worker (exit code 1)")
    publish_timeout: PositiveSeconds = Field(30.0, description="an unacknowledged event ends the worker (exit code 1)")
    shutdown_timeout: PositiveSeconds = Field(9.0, description="from SIGTERM to the exit")


class LogSettings(_Section):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console in a terminal, JSON otherwise"
    )


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    routes: dict[str, str] = Field(
        {"records.images": "images", "records.sequences": "sequences"},
        min_length=1,
        description="which detector scores which topic",
    )
    topics: TopicSettings = TopicSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    registry: RegistrySettings = RegistrySettings()
    batch: BatchSettings = BatchSettings()
    limits: LimitSettings = LimitSettings()
    threshold: ThresholdSettings = ThresholdSettings()
    alerts: AlertSettings = AlertSettings()
    scores: ScoreSettings = ScoreSettings()
    dead_letter: DeadLetterSettings = DeadLetterSettings()
    sequence: SequenceSettings = SequenceSettings()
    http: HttpSettings = HttpSettings()
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options first, then the environment, then the file."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        path = _config_file.get()
        return (*sources, YamlConfigSettingsSource(settings_cls, yaml_file=path)) if path else sources


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Reads the settings.

    `overrides` are options of a command, by dotted name (`{"kafka.partitions": 8}`); those that are None are left out.
    Raises SettingsError with a line for each wrong setting.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"--config {config}: there is no such file")
    nested: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        if value is None:
            continue
        *parents, leaf = name.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    _check_sections(os.environ)
    with _reading(config):
        try:
            return Settings(**nested)
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error
        except yaml.MarkedYAMLError as error:
            place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise SettingsError(f"--config {config}: not YAML{place}: {error.problem}") from None
        except PydanticSettingsError as error:
            raise SettingsError(_explain_source(error)) from None
        except (TypeError, ValueError) as error:
            raise SettingsError(f"--config {config}: expected sections of settings, like `kafka:`") from error


@contextmanager
def _reading(config: Path | None) -> Iterator[None]:
    token = _config_file.set(config)
    try:
        yield
    finally:
        _config_file.reset(token)


def _check_sections(variables: Iterable[str]) -> None:
    """Raises SettingsError for variables of sections that don't exist, which pydantic would pass over.

    One without `__` is left alone: Kubernetes puts variables of that form there for each service (`GANOMALY_PORT`).
    """
    upper = (variable.upper() for variable in variables)
    nested = [variable for variable in upper if variable.startswith(PREFIX) and "__" in variable]
    sections = {PREFIX + field.upper() for field in Settings.model_fields}
    if unknown := [variable for variable in nested if variable.split("__")[0] not in sections]:
        raise SettingsError(_WRONG + "\n  ".join(_unknown(variable, _names()) for variable in unknown))


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        name = PREFIX + "__".join(str(part) for part in item["loc"]).upper()
        if item["type"] == "extra_forbidden":
            candidates = (
                _names() if len(item["loc"]) > 1 else (PREFIX + field.upper() for field in Settings.model_fields)
            )
            lines.append(_unknown(name, candidates))
        elif item["type"] in ("dict_type", "model_type"):
            lines.append(f"{name}: {_expected(str(item['loc'][0]))}")
        else:
            # A setting that may hold a password is not for anybody's log, and neither is a section as a whole.
            tellable = isinstance(item["input"], str | int | float) and not any(word in name for word in _SECRETS)
            lines.append(f"{name}: {item['msg']}" + (f" (given: {item['input']!r})" if tellable else ""))
    return _WRONG + "\n  ".join(lines)


def _explain_source(error: PydanticSettingsError) -> str:
    field = re.search(r'field "(\w+)"', str(error))
    if field is None:
        return f"the settings can't be read: {error}"
    return f"{_WRONG}{PREFIX}{field[1].upper()}: {_expected(field[1])}"


def _expected(field: str) -> str:
    """What a variable that stands for a mapping or a whole section must hold."""
    default = Settings.model_fields[field].default
    if not isinstance(default, BaseModel):
        return f"expected JSON, like {json.dumps(default)}"
    one = next(iter(_names(type(default), f"{PREFIX}{field.upper()}__")))
    return f"expected a JSON object of the section's settings; each also has a variable of its own, like {one}"


def _unknown(name: str, candidates: Iterable[str]) -> str:
    """Without the prefix, which would make all names look alike."""
    near = difflib.get_close_matches(name.removeprefix(PREFIX), [item.removeprefix(PREFIX) for item in candidates], n=1)
    return f"{name}: there is no such setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "")


def _names(section: type[BaseModel] | None = None, prefix: str = PREFIX) -> Iterator[str]:
    """Variables of all settings of a section, of the whole tree unless told."""
    for field, info in (section or Settings).model_fields.items():
        if isinstance(info.default, BaseModel):
            yield from _names(type(info.default), f"{prefix}{field.upper()}__")
        else:
            yield prefix + field.upper()


def target_rate(settings: ThresholdSettings, records_per_second: float | None) -> float:
    """The share of normal records that may alert, in (0, 0.5).

    With `alerts_per_day` it follows from the stream's own pace; until that is known, `target_rate` holds.
    """
    if settings.alerts_per_day is None or not records_per_second or not math.isfinite(records_per_second):
        return settings.target_rate
    return min(max(settings.alerts_per_day / (records_per_second * 86400.0), 1e-9), 0.49)
