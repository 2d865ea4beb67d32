"""The page of figures and the same as JSON, from the lines of the results file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import orjson

from detection.summary import Figures, Found, summarise

TEMPLATE = Path(__file__).with_name("page.md")
PROFILES = ("accurate", "fast")


def write_page(target: Path, found: Found, *, any_commit: bool = False) -> None:
    """Writes `target` and a `.json` beside it."""
    summary = summarise(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(summary, any_commit=any_commit))
    target.with_suffix(".json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")


def render(summary: Figures, *, any_commit: bool = False) -> str:
    """The page's Markdown."""
    seeds = max((len(of["seeds"]) for of in summary["protocols"].values()), default=1)
    text = Template(TEMPLATE.read_text()).substitute(
        dates=" and ".join(summary["dates"]),
        commits=", ".join(summary["commits"]),
        machines="; ".join(summary["machines"]),
        torch=", ".join(summary["torch"]),
        seeds="one seed" if seeds == 1 else f"{seeds} seeds",
        seconds=f"{summary['seconds']:g}",
        notes="\n".join(_notes(summary, any_commit)),
        summary=_summary(summary),
        goals=_goals(summary),
        halves=_halves(summary),
        parts=_parts(summary),
        pixels=_pixels(summary),
        alarms=_alarms(summary),
        cost=_cost(summary),
        evidence=_evidence(summary),
        baselines=_baselines(summary),
        options=_options(summary),
    )
    return text.rstrip() + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, or a line that says there is nothing yet."""
    lines = [_line(row) for row in rows]
    return "\n".join([_line(head), _line(["---"] * len(head)), *lines]) if lines else "Not measured."


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _notes(summary: Figures, any_commit: bool) -> list[str]:
    notes = []
    if summary["quick"]:
        notes.append("**A smoke run**: one model of each protocol, hardly trained; no figure says anything.")
    if any_commit and len(summary["codes"]) > 1:
        notes.append(
            f"**The figures are of {len(summary['codes'])} states of the code**, taken together by --any-commit."
        )
    most = max(len(of["seeds"]) for of in summary["protocols"].values())
    notes += [
        f"{of['title']}: only {len(of['seeds'])} of {most} seeds were measured."
        for of in summary["protocols"].values()
        if len(of["seeds"]) < most
    ]
    notes += [
        f"{of['title']}: only {of['cases']} of {of['expected_cases']} cases were measured."
        for of in summary["protocols"].values()
        if of["cases"] < of["expected_cases"] and not summary["quick"]
    ]
    return notes


def _summary(summary: Figures) -> str:
    rows = []
    for of in summary["protocols"].values():
        rival = {what: _best(of, what) for what in ("auroc", "auprc")}
        fast = "as accurate" if of["fast"] is None else f"{of['fast']['auroc']:.3f}"
        rows.append(
            [
                of["title"],
                f"**{of['auroc']['mean']:.3f}** ({of['auroc']['spread']:.3f})",
                f"{of['auprc']['mean']:.3f} ({of['auprc']['spread']:.3f})",
                fast,
                rival["auroc"],
                rival["auprc"],
            ]
        )
    return table(["protocol", "AUROC", "AUPRC", "AUROC, fast", "best simple, AUROC", "best simple, AUPRC"], rows)


def _best(of: Figures, what: str) -> str:
    if not of["baselines"]:
        return "–"
    name, best = max(of["baselines"].items(), key=lambda item: item[1][what])
    return f"{best[what]:.3f} {name}"


def _goals(summary: Figures) -> str:
    return table(
        ["protocol", "what", "goal", "measured", ""],
        [
            [
                of["title"],
                goal["what"],
                goal["goal"],
                f"{goal['value']:.3f}",
                "reached" if goal["reached"] else "**no**",
            ]
            for of in summary["protocols"].values()
            for goal in of["goals"]
        ],
    )


def _halves(summary: Figures) -> str:
    def cell(of: Figures, half: str, what: str) -> str:
        return f"{of['halves'][half][what]:.3f}" if half in of["halves"] else "–"

    return table(
        ["protocol", "AUROC, chosen on", "AUROC, not", "AUPRC, chosen on", "AUPRC, not"],
        [
            [of["title"], *(cell(of, half, what) for what in ("auroc", "auprc") for half in ("choice", "other"))]
            for of in summary["protocols"].values()
        ],
    )


def _parts(summary: Figures) -> str:
    sections = []
    for of in summary["protocols"].values():
        rows = [
            [part, f"{value['auroc']:.3f}", f"{value['least']:.3f}", f"{value['auprc']:.3f}"]
            for part, value in of["parts"].items()
        ]
        sections.append(f"### {of['title']}\n\n" + table(["part", "AUROC", "least of a seed", "AUPRC"], rows))
    return "\n\n".join(sections)


def _pixels(summary: Figures) -> str:
    rows = []
    for of in summary["protocols"].values():
        for name, value in of.get("pixels", {}).items():
            rows.append(["ganomaly", name, f"{value['auroc']['mean']:.3f}", f"{value['auprc']['mean']:.3f}"])
        for name, rival in of["baselines"].items():
            if "pixels" in rival:
                rows.append([name, "all", f"{rival['pixels']['auroc']:.3f}", f"{rival['pixels']['auprc']:.3f}"])
    return table(["method", "defects", "AUROC", "AUPRC"], rows)


def _alarms(summary: Figures) -> str:
    rows = []
    for of in summary["protocols"].values():
        for budget, ways in of["alarms"].items():
            if budget == "normal":
                continue
            cells = [_in_budgets(ways[way], float(budget)) for way in ("calibration", "stream")]
            rows.append([of["title"], f"{of['alarms']['normal']:,}", f"{float(budget):.1%}", *cells])
    return table(["protocol", "normal records", "budget", "calibration", "stream"], rows)


def _in_budgets(way: Figures, budget: float) -> str:
    rate, low, high = (way[what] / budget for what in ("rate", "low", "high"))
    return f"{rate:.2f} ({low:.2f}…{high:.2f})"


def _cost(summary: Figures) -> str:
    rows = [
        [
            of["title"],
            f"{of['train_seconds']:.0f}",
            *(f"{of['cost'][profile]['ratio']:.1f}" for profile in PROFILES),
            *(f"{of['cost'][profile]['records_per_second']:,.0f}" for profile in PROFILES),
        ]
        for of in summary["protocols"].values()
    ]
    head = ["protocol", "training, s of CPU", "accurate, times plain", "fast, times plain"]
    return table([*head, "accurate, records/s", "fast, records/s"], rows)


def _evidence(summary: Figures) -> str:
    rows = [
        [
            of["title"],
            name if value["used"] else f"*{name}*",
            f"{value['alone']:.3f}",
            "–" if value["gain"] is None else f"{value['gain']:+.3f}",
        ]
        for of in summary["protocols"].values()
        for name, value in of["evidence"].items()
    ]
    return table(["protocol", "evidence", "alone", "gain"], rows)


def _baselines(summary: Figures) -> str:
    rows = [
        [of["title"], value["variant"], f"{value['auroc']:.3f}", f"{value['auprc']:.3f}"]
        for of in summary["protocols"].values()
        for value in of["baselines"].values()
    ]
    return table(["protocol", "method", "AUROC", "AUPRC"], rows)


def _options(summary: Figures) -> str:
    """A section for each further protocol that was measured."""
    titles = {
        "objectives": "Adversarial objectives",
        "generator": "Generators",
        "labels": "Labelled anomalies in the training file",
    }
    sections = []
    for name, by_option in summary["options"].items():
        cases = list(next(iter(by_option.values())))
        rows = [[option, *(f"{of[case]:.3f}" for case in cases)] for option, of in by_option.items()]
        sections.append(f"\n## {titles[name]}\n\nAUROC, mean over seeds.\n\n{table([name, *cases], rows)}\n")
    return "".join(sections)
