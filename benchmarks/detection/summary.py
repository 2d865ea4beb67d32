"""From the lines of the results file to the figures of a protocol: means, spreads, the best rival, what was reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from detection.protocols import PROTOCOLS, TABLE, Goal, Protocol
from detection.results import BASELINES, GANOMALY, Key, Result
from model.config import Kind
from training import credible

MOST_SPREAD = 0.01  # of the protocol's mean, between seeds
MOST_ALARMS = 1.5  # times the budget
SERIES = ("SKAB", "NAB")

Figures = dict[str, Any]
Found = Mapping[Key, Result]
Runs = dict[int, dict[str, Figures]]  # figures by seed and case


def summarise(found: Found) -> Figures:
    """All that the page shows, by protocol."""
    origins = [result.origin for result in found.values()]
    first = origins[0]
    summary: Figures = {
        "dates": sorted({origin.date for origin in origins}),
        "commits": sorted({origin.commit for origin in origins}),
        "codes": sorted({origin.code for origin in origins}),
        "machines": sorted({origin.machine for origin in origins}),
        "torch": sorted({origin.torch for origin in origins}),
        "seconds": first.seconds,
        "quick": first.quick,
        "protocols": {},
        "options": {},
    }
    for name, protocol in PROTOCOLS.items():
        runs = _whole(_runs(found, name))
        if runs and name in TABLE:
            summary["protocols"][name] = _protocol(protocol, runs, _rivals(found, protocol))
        elif runs:
            summary["options"][name] = _options(runs)
    return summary


def _runs(found: Found, name: str) -> Runs:
    runs: Runs = {}
    for key, result in found.items():
        if key.protocol == name and key.method == GANOMALY:
            runs.setdefault(key.seed, {})[key.case] = result.figures
    return runs


def _whole(runs: Runs) -> Runs:
    """The seeds with the most cases: a mean over fewer would not be the same mean."""
    most = max(map(len, runs.values()), default=0)
    return {seed: by_case for seed, by_case in sorted(runs.items()) if len(by_case) == most}


def _rivals(found: Found, protocol: Protocol) -> Figures:
    """Figures of each simple method, over the cases it was measured on; of variants, the better figure."""
    by_method: dict[str, list[Figures]] = {}
    for key, result in found.items():
        if key.protocol == protocol.name and key.method == BASELINES:
            for method, figures in result.figures["methods"].items():
                by_method.setdefault(method, []).append(figures)
    best: Figures = {}
    for method, cases in by_method.items():
        name = method.split("/")[0]
        entry = {"auroc": _mean(protocol, cases, "auroc"), "auprc": _mean(protocol, cases, "auprc"), "variant": method}
        if "pixels" in cases[0]:
            entry["pixels"] = cases[0]["pixels"]["all"]
        known = best.setdefault(name, entry)
        if entry["auroc"] > known["auroc"]:
            best[name] = entry | {"auprc": max(entry["auprc"], known["auprc"])}
        else:
            known["auprc"] = max(entry["auprc"], known["auprc"])
    return best


def _mean(protocol: Protocol, cases: Iterable[Figures], what: str) -> float:
    """A protocol's figure of one run: over all anomalies where they are pooled, else the mean over the parts."""
    if protocol.pooled:
        return float(np.mean([figures[what] for figures in cases]))
    return float(np.mean([part[what] for figures in cases for part in figures["parts"].values()]))


def _protocol(protocol: Protocol, runs: Runs, rivals: Figures) -> Figures:
    every = [figures for by_case in runs.values() for figures in by_case.values()]
    per_seed = {
        what: {str(seed): _mean(protocol, by_case.values(), what) for seed, by_case in runs.items()}
        for what in ("auroc", "auprc")
    }
    parts = _parts(runs)
    summary: Figures = {
        "title": protocol.title,
        "cases": len(next(iter(runs.values()))),
        "expected_cases": protocol.size,
        "seeds": list(runs),
        "auroc": _over(per_seed["auroc"]),
        "auprc": _over(per_seed["auprc"]),
        "parts": parts,
        "halves": _halves(protocol, parts),
        "fast": _fast(protocol, runs),
        "baselines": rivals,
        "alarms": _alarms(every, len(runs)),
        "evidence": _evidence(protocol, runs),
        "train_seconds": float(np.mean([figures["train_seconds"] for figures in every])),
        "cost": {
            profile: {
                what: float(np.median([figures["cost"][profile][what] for figures in every]))
                for what in ("ratio", "records_per_second")
            }
            for profile in ("accurate", "fast")
        },
    }
    if "pixels" in every[0]:
        summary["pixels"] = {
            name: {what: _over({str(i): f["pixels"][name][what] for i, f in enumerate(every)}) for what in values}
            for name, values in every[0]["pixels"].items()
        }
    summary["goals"] = _goals(protocol, summary) if protocol.goal else []
    return summary


def _over(values: Mapping[str, float]) -> Figures:
    found = list(values.values())
    return {"mean": float(np.mean(found)), "spread": float(np.ptp(found)), "by_seed": dict(values)}


def _parts(runs: Runs) -> Figures:
    """AUROC and AUPRC by part, the means over seeds, and the least AUROC of any seed."""
    values: dict[str, dict[str, list[float]]] = {}
    for by_case in runs.values():
        for figures in by_case.values():
            for part, of_part in figures["parts"].items():
                for what in ("auroc", "auprc"):
                    values.setdefault(part, {}).setdefault(what, []).append(of_part[what])
    return {
        part: {"auroc": float(np.mean(of["auroc"])), "auprc": float(np.mean(of["auprc"])), "least": min(of["auroc"])}
        for part, of in sorted(values.items(), key=lambda item: (int(item[0]) if item[0].isdigit() else -1, item[0]))
    }


def _halves(protocol: Protocol, parts: Figures) -> Figures:
    """Means over the parts that choices were made on, and over the others."""
    found: Figures = {}
    for half, chosen in (("choice", True), ("other", False)):
        of_half = [of for part, of in parts.items() if (part in protocol.choice) == chosen]
        if of_half:
            found[half] = {what: float(np.mean([of[what] for of in of_half])) for what in ("auroc", "auprc")}
    return found


def _fast(protocol: Protocol, runs: Runs) -> Figures | None:
    if not all("fast" in figures for by_case in runs.values() for figures in by_case.values()):
        return None
    fast = [[figures["fast"] for figures in by_case.values()] for by_case in runs.values()]
    return {what: float(np.mean([_mean(protocol, of_seed, what) for of_seed in fast])) for what in ("auroc", "auprc")}


def _alarms(every: list[Figures], seeds: int) -> Figures:
    """False-alarm rates on fresh normal records, pooled over cases; the interval counts each record once."""
    found: Figures = {}
    normal = sum(figures["alarms"]["normal"] for figures in every) / seeds
    for budget in (name for name in every[0]["alarms"] if name != "normal"):
        for way in ("calibration", "stream"):
            count = sum(figures["alarms"][budget][way] for figures in every) / seeds
            low, high = credible.rate(count, normal)
            found.setdefault(budget, {})[way] = {"rate": count / normal, "low": low, "high": high}
    return {"normal": int(normal), **found}


def _evidence(protocol: Protocol, runs: Runs) -> Figures:
    """Mean AUROC of each evidence alone, and what the score loses without it."""
    every = [figures for by_case in runs.values() for figures in by_case.values()]

    def mean(values: Callable[[Figures], Mapping[str, float]]) -> float:
        chosen = [values(figures) for figures in every]
        if protocol.pooled:
            return float(np.mean([of["all"] for of in chosen]))
        return float(np.mean([value for of in chosen for part, value in of.items() if part != "all"]))

    whole = float(np.mean([_mean(protocol, by_case.values(), "auroc") for by_case in runs.values()]))
    shared = [name for name in every[0]["alone"] if all(name in figures["alone"] for figures in every)]
    return {
        name: {
            "used": name in every[0]["used"],
            "alone": mean(lambda figures, name=name: figures["alone"][name]),
            "gain": whole - mean(lambda figures, name=name: figures["without"][name])
            if all(name in figures["without"] for figures in every)
            else None,
        }
        for name in shared
    }


def _goals(protocol: Protocol, summary: Figures) -> list[Figures]:
    """What is asked for, what there is, and whether it was reached."""
    goal = protocol.goal or Goal(0.0)
    rows: list[Figures] = []

    def ask(what: str, value: float, least: float) -> None:
        rows.append({"what": what, "goal": f"≥ {least:.2f}", "value": value, "reached": value >= least})

    ask("AUROC", summary["auroc"]["mean"], goal.auroc)
    if goal.auprc is not None:
        ask("AUPRC", summary["auprc"]["mean"], goal.auprc)
    if goal.least_part is not None:
        name, part = min(summary["parts"].items(), key=lambda item: item[1]["auroc"])
        ask(f"least AUROC of a part ({name})", part["auroc"], goal.least_part)
    if goal.pixel_auroc is not None and "pixels" in summary:
        ask("pixel AUROC", summary["pixels"]["all"]["auroc"]["mean"], goal.pixel_auroc)
    for what in ("auroc", "auprc") if goal.auprc is not None else ("auroc",):
        rows += _ahead(summary, what)
    spread = summary["auroc"]["spread"]
    if len(summary["seeds"]) > 1:
        rows.append(
            {"what": "spread between seeds", "goal": "≤ 0.01", "value": spread, "reached": spread <= MOST_SPREAD}
        )
    way = "stream" if protocol.kind is Kind.SEQUENCE else "calibration"
    for budget, of in summary["alarms"].items():
        if budget == "normal":
            continue
        factor = of[way]["rate"] / float(budget)
        rows.append(
            {
                "what": f"false alarms at {float(budget):.1%}, of the budget",
                "goal": "≤ 1.50",
                "value": factor,
                "reached": factor <= MOST_ALARMS,
            }
        )
    return rows


def _ahead(summary: Figures, what: str) -> list[Figures]:
    """Whether the detector is ahead of the best simple method of the same run."""
    if not summary["baselines"]:
        return []
    name, best = max(summary["baselines"].items(), key=lambda item: item[1][what])
    value = summary[what]["mean"]
    row = {"what": f"{what.upper()} against {name}", "goal": f"> {best[what]:.3f}", "value": value}
    return [row | {"reached": value > best[what]}]


def _options(runs: Runs) -> Figures:
    """AUROC, mean over seeds, by option and then by case; the case's name is `option:case`."""
    table: dict[str, dict[str, float]] = {}
    for name in next(iter(runs.values())):
        option, case = name.split(":", 1)
        table.setdefault(option, {})[case] = float(np.mean([by_case[name]["auroc"] for by_case in runs.values()]))
    return table
