"""Sections: whom we talk to – the broker, Redis, the registries – and the names of our topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from platformdirs import user_cache_path
from pydantic import Field, SecretStr, field_validator, model_validator

from stream_app.settings.fields import Bytes, Count, PositiveSeconds, Section


class TopicSettings(Section):
    """Names of the topics that the product itself writes or listens to (what it reads are `routes`)."""

    alerts: str = "alerts"
    scores: str = "scores"
    dead_letter: str = "records.dead-letter"
    labels: str = "labels"
    model_updates: str = "model.updates"


class KafkaSettings(Section):
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


class RedisSettings(Section):
    """Where thresholds and windows are kept between workers."""

    url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="redis:// or rediss:// (TLS)")
    prefix: str = Field("ganomaly", description="first part of every key")
    ttl: PositiveSeconds = Field(30 * 86400.0, description="a stream that is silent for so long is forgotten")
    timeout: PositiveSeconds = Field(1.0, description="for one command")
    retry_after: PositiveSeconds = Field(2.0, description="pause before Redis is asked again once it did not answer")


class RegistrySettings(Section):
    """Where models are kept."""

    url: str = Field("models", description="a folder or any fsspec URL (s3://…)")
    poll_interval: PositiveSeconds = Field(2.0, description="how often a worker looks which version is champion")
    timeout: PositiveSeconds = Field(10.0, description="after which the registry counts as out of reach")
    cache: str = Field(
        default_factory=lambda: str(user_cache_path("ganomaly-stream") / "registry"),
        description="folder of this machine for what was in service last, to start from while the registry is out of "
        "reach; empty for none",
    )


class SchemaRegistrySettings(Section):
    """Where the schemas of Avro records are."""

    url: SecretStr | None = Field(None, description="http:// or https://, with user:password@ where it asks for one")
    timeout: PositiveSeconds = Field(
        5.0, description="for an answer; a registry that gives none ends the worker (exit code 1)"
    )
    retry_after: PositiveSeconds = Field(
        30.0, description="before a registry that doesn't know a schema, or has one that can't be used, is asked again"
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_http_url(value.get_secret_value()):
            raise ValueError("it must begin with http:// or https:// and name a host")
        return value


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may hold a part of the password
        return False
