"""Settings as lines to print, without what must stay secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from stream_app.settings import PREFIX, Settings

MASK = "***"
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/?#@\s]*?):([^/?#\s]*)(?=@)")
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&\s]*(?:password|secret|token|key)[^=&\s]*=)[^&\s]+")


def mask(text: str) -> str:
    """The text with the passwords of its URLs replaced, before the host (`user:…@`) and among the parameters."""
    return _SECRET_PARAMETER.sub(rf"\1{MASK}", _PASSWORD_IN_URL.sub(rf"\1:{MASK}", text))


def effective(settings: Settings) -> dict[str, Any]:
    """Every setting by the name of its variable, secrets masked: `{"GANOMALY_KAFKA__PARTITIONS": 4, …}`."""
    return dict(_walk(settings, PREFIX))


def changed(settings: Settings) -> set[str]:
    """Names of those settings that differ from their defaults."""
    defaults = dict(_walk(Settings.model_construct(), PREFIX, masked=False))
    return {name for name, value in _walk(settings, PREFIX, masked=False) if value != defaults.get(name)}


def _walk(section: BaseModel, prefix: str, *, masked: bool = True) -> Iterator[tuple[str, Any]]:
    for field in type(section).model_fields:
        value = getattr(section, field)
        name = prefix + field.upper()
        if isinstance(value, BaseModel):
            yield from _walk(value, name + "__", masked=masked)
        else:
            yield name, _printable(value) if masked else value


def _printable(value: Any) -> Any:
    if isinstance(value, SecretStr):
        # Of a URL, everything but the password helps to find what is wrong.
        text = value.get_secret_value()
        return mask(text) if "://" in text else MASK
    if isinstance(value, str):
        return mask(value)
    return value if isinstance(value, int | float | dict | None) else str(value)
