"""Ready means that records get done, not that the process lives."""

from __future__ import annotations

import pytest

from stream_app.health import Health


def health(**changes):
    fields = {"assigned": True, "scoring": ("a",), "waiting": (), "stalled_for": 0.0, "stalled_after": 30.0, "lag": 0}
    return Health(**(fields | changes))


@pytest.mark.parametrize("changes", [{}, {"waiting": ("b",)}, {"lag": 10_000}, {"stalled_for": 29.0}])
def test_it_is_ready_when_one_route_scores_and_makes_progress(changes):
    assert health(**changes).ready


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"assigned": False}, "has not assigned partitions"),
        ({"scoring": (), "waiting": ("a", "b")}, "no route has a champion"),
        ({"stalled_for": 31.0}, "none was done for 31 s"),
        ({"ending": True}, "is ending"),
    ],
)
def test_it_says_why_it_is_not_ready(changes, says):
    found = health(**changes)
    assert not found.ready
    assert says in found.reasons[0]
    assert found.as_dict()["ready"] is False
