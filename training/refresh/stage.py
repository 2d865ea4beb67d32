"""A stage of a run, as it is told of: that it begins, how far it is, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from model.gate_report import RuleVerdict
from training.refresh.child import Report


class Stage:
    """Tells when a stage begins, how far it is, and what it came to."""

    def __init__(self, name: str, report: Report, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name, self._report, self._monotonic = name, report, monotonic
        self._started = monotonic()
        report({"stage": name, "state": "begins"})

    def is_at(self, share: float, told: str = "") -> None:
        """`share` of it is done, 0 to 1."""
        self._report({"stage": self._name, "state": "progress", "share": share, "told": told})

    def done(self, passed: bool, why: str, rules: Sequence[RuleVerdict] = ()) -> None:
        """It has ended; `rules` are those that it was judged by."""
        seconds = round(self._monotonic() - self._started, 3)
        self._report(
            {
                "stage": self._name,
                "state": "done",
                "passed": passed,
                "why": why,
                "seconds": seconds,
                "rules": [rule.model_dump() for rule in rules],
            }
        )
