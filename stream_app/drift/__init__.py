"""Whether streams still look as they did at training: PSI and KS of scores and of inputs, against the manifest."""

from stream_app.drift.monitor import Allowance, Counted, DriftMonitor
from stream_app.drift.report import DriftReport, read_drift
from stream_app.drift.watch import watch_drift

__all__ = ["Allowance", "Counted", "DriftMonitor", "DriftReport", "read_drift", "watch_drift"]
