"""Reads the settings, and says what is wrong with them: a line for each, with the name as it is written."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError as PydanticSettingsError

from stream_app.errors import SettingsError
from stream_app.settings.tree import PREFIX, Settings, config_file

_SECRETS = ("PASSWORD", "URL")
_WRONG = "wrong settings:\n  "


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
    token = config_file.set(config)
    try:
        yield
    finally:
        config_file.reset(token)


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
        variable, inside = _split(item["loc"])
        name = f"{variable}: {inside}" if inside else variable
        if item["type"] == "extra_forbidden":
            candidates = (
                _names() if len(item["loc"]) > 1 else (PREFIX + field.upper() for field in Settings.model_fields)
            )
            lines.append(_unknown(name, () if inside else candidates))
        elif item["type"] in ("dict_type", "model_type"):
            lines.append(f"{name}: {_expected(variable)}")
        else:
            # A setting that may hold a password is not for anybody's log, and neither is a section as a whole.
            tellable = isinstance(item["input"], str | int | float) and not any(word in name for word in _SECRETS)
            lines.append(f"{name}: {item['msg']}" + (f" (given: {item['input']!r})" if tellable else ""))
    return _WRONG + "\n  ".join(lines)


def _explain_source(error: PydanticSettingsError) -> str:
    field = re.search(r'field "(\w+)"', str(error))
    if field is None:
        return f"the settings can't be read: {error}"
    section = PREFIX + field[1].upper()
    values = {name.upper(): value for name, value in os.environ.items()}
    inner = (name for name in _mappings() if name.startswith(f"{section}__") and not _is_json(values.get(name, "{}")))
    variable = next(inner, section)
    return f"{_WRONG}{variable}: {_expected(variable)}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _split(loc: Sequence[str | int]) -> tuple[str, str]:
    """The variable of what is wrong, and where in its value, when that is a mapping."""
    parts, mappings = [str(part) for part in loc], _mappings()
    names = [PREFIX + "__".join(parts[: depth + 1]).upper() for depth in range(len(parts))]
    depth = next((depth for depth, name in enumerate(names) if name in mappings), len(parts) - 1)
    return names[depth], ".".join(parts[depth + 1 :])


def _expected(variable: str) -> str:
    """What a variable that stands for a mapping or a whole section must hold."""
    if example := _mappings().get(variable):
        return f"expected JSON, like {json.dumps(example)}"
    one = next(name for name in _names() if name.startswith(f"{variable}__"))
    return f"expected a JSON object of the section's settings; each also has a variable of its own, like {one}"


def _unknown(name: str, candidates: Iterable[str]) -> str:
    """Without the prefix, which would make all names look alike."""
    near = difflib.get_close_matches(name.removeprefix(PREFIX), [item.removeprefix(PREFIX) for item in candidates], n=1)
    return f"{name}: there is no such setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "")


def _names() -> Iterator[str]:
    """Variables of all settings."""
    return (name for name, _ in _fields(Settings, PREFIX))


def _mappings() -> dict[str, Any]:
    """Variables that hold mappings, each with an example."""
    return {
        name: info.examples[0] if info.examples else info.default
        for name, info in _fields(Settings, PREFIX)
        if isinstance(info.default, dict)
    }


def _fields(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for field, info in section.model_fields.items():
        if isinstance(info.default, BaseModel):
            yield from _fields(type(info.default), f"{prefix}{field.upper()}__")
        else:
            yield prefix + field.upper(), info
