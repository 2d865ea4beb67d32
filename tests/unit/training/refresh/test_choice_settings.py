"""A version is made again with the settings that decided what it was trained on."""

from __future__ import annotations

import pytest

from stream_app.settings import Settings
from training.refresh.snapshot import _choice_of, settings_of_choice

THEN = {
    "snapshot": {"records": 5000, "bytes": 1 << 24, "leave_out": 0.02, "fresh": 0.3, "older_lead": 70},
    "threshold": {"shift_after": 70, "shift_share": 0.9},
}


def settings(**sections: dict[str, float]) -> Settings:
    return Settings.model_validate({"routes": {"t": "images"}, **sections})


def test_all_that_decided_are_as_they_were_then() -> None:
    choice = _choice_of(settings(**THEN))
    same = settings_of_choice(settings(), choice)
    assert same.snapshot == settings(**THEN).snapshot
    assert (same.threshold.shift_after, same.threshold.shift_share) == (70, 0.9)


@pytest.mark.parametrize("choice", [{}, {"records": 5000, "leave_out": 0.02}])
def test_what_an_older_manifest_does_not_say_is_as_it_is_now(choice: dict[str, float]) -> None:
    same = settings_of_choice(settings(threshold={"shift_after": 80}), choice)
    assert same.snapshot == settings(snapshot=choice).snapshot
    assert same.threshold.shift_after == 80
