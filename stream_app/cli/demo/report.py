"""The demo's figures, as a table for people and as an object for programs."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from stream_app.cli.demo.account import Account, Counts, total
from stream_app.cli.demo.scene import NORMAL


def figures(account: Account, counts: Counts) -> dict[str, Any]:
    """Everything that the table shows of one topic; times in seconds."""
    return {
        "published": len(account.published),
        "scored": len(account.scored),
        "dead_lettered": len(account.dead),
        "alerts": account.alerts,
        "found": counts.found,
        "missed": counts.missed,
        "false": counts.false,
        "false_records": account.by_record()[NORMAL].false,
        "normal_records": sum(account.planned[name].truth == NORMAL for name in account.scored),
        "precision": counts.precision,
        "recall": counts.recall,
        "records_per_second": account.rate,
        "delay_p50": account.delay(0.5),
        "delay_p99": account.delay(0.99),
        "kinds": {
            truth: {"found": each.found, "missed": each.missed}
            for truth, each in account.by_record().items()
            if truth != NORMAL
        },
    }


def summary(pictures: Account, flow: Account, burst: Account) -> dict[str, Any]:
    """The figures of both topics, and the pace of the burst. Pictures are counted one by one, the flow by incidents."""
    return {
        "burst": {"records": len(burst.scored), "records_per_second": burst.rate},
        "images": figures(pictures, total(pictures.by_record().values())),
        "sequences": figures(flow, flow.by_incident()),
    }


def table(result: dict[str, Any]) -> Table:
    """For people."""
    images, sequences = result["images"], result["sequences"]
    shown = Table("", "pictures", "water flow", title="What came of it")
    for label, name in (("records published", "published"), ("scored", "scored"), ("dead letters", "dead_lettered")):
        shown.add_row(label, str(images[name]), str(sequences[name]))
    shown.add_section()
    due = [each["found"] + each["missed"] for each in (images, sequences)]
    shown.add_row("anomalies in them", f"{due[0]} pictures", f"{due[1]} incidents")
    shown.add_row("found", f"{images['found']} pictures", f"{sequences['found']} incidents", style="bold green")
    for kind, counts in images["kinds"].items():
        shown.add_row(f"  {kind}", f"{counts['found']} of {counts['found'] + counts['missed']}", "", style="dim")
    for kind, counts in sequences["kinds"].items():
        found, windows = counts["found"], counts["found"] + counts["missed"]
        shown.add_row(f"  {kind}", "", f"{found} of {windows} windows", style="dim")
    shown.add_row("missed", f"{images['missed']} pictures", f"{sequences['missed']} incidents")
    shown.add_row("falsely raised", f"{images['false']} pictures", f"{sequences['false']} episodes", style="yellow")
    rates = [f"{each['false_records']} of {each['normal_records']} normal" for each in (images, sequences)]
    shown.add_row("", rates[0], f"{rates[1]} windows", style="dim")
    shown.add_row("precision", _share(images["precision"]), _share(sequences["precision"]))
    shown.add_row("recall", _share(images["recall"]), _share(sequences["recall"]))
    shown.add_section()
    shown.add_row(
        "records a second, as sent", f"{images['records_per_second']:.0f}", f"{sequences['records_per_second']:.0f}"
    )
    shown.add_row("records a second, in a burst", f"{result['burst']['records_per_second']:,.0f}", "")
    for label, name in (("delay to the alert, p50", "delay_p50"), ("delay to the alert, p99", "delay_p99")):
        shown.add_row(label, _milliseconds(images[name]), _milliseconds(sequences[name]))
    return shown


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.0f} ms"
