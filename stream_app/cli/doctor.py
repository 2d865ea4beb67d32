"""`doctor`: can everything be reached; what is wrong, and how to mend it."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from stream_app.cli.common import ConfigOption, JsonOption, console, print_json
from stream_app.cli.secrets import changed, effective
from stream_app.settings import Settings, load_settings

_SIGNS = {"ok": ("✔", "green"), "note": ("•", "yellow"), "trouble": ("✘", "bold red")}


def doctor(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check what the worker needs, and say what is wrong and how to mend it.

    Kafka and its topics, Redis, the registry and each route's detector, the HTTP port, the device. Then it prints the
    settings in force, those that were changed in bold, secrets masked. Exit code 1 when something is wrong.

    Example: ganomaly-stream local -- ganomaly-stream doctor
    """
    from stream_app.cli.checks import CHECKS, State, trouble
    from stream_app.cli.kafka import silence_client

    silence_client()
    settings = load_settings(config)
    findings = []
    for check in CHECKS.values():
        for finding in check(settings):
            findings.append(finding)
            if json:
                print_json(finding._asdict())
                continue
            sign, style = _SIGNS[finding.state]
            console.print(Text.assemble((sign, style), f" {finding.check}: {finding.message}"), soft_wrap=True)
            if finding.mend:
                mark = "→ " if finding.state is State.TROUBLE else ""
                console.print(Text(f"    {mark}{finding.mend}", style="cyan"), soft_wrap=True)
    wrong = trouble(findings)
    if json:
        print_json({"settings": effective(settings), "trouble": wrong})
    else:
        console.print(_settings_table(settings))
        console.print(f"{wrong} wrong" if wrong else "Nothing is wrong.", style="bold red" if wrong else "bold green")
    if wrong:
        raise typer.Exit(1)


def _settings_table(settings: Settings) -> Table:
    different = changed(settings)
    table = Table("setting", "value", title="settings in force", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name, value in effective(settings).items():
        table.add_row(name, Text(str(value)), style="bold" if name in different else "dim")
    return table
