"""The command line as a whole: what it lists, what it loads, and what errors become."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stream_app.cli import main as command_line
from stream_app.cli.main import COMMANDS, Command, load, main
from stream_app.errors import FuseBlown, GanomalyError, ModelNotFound, SettingsError, UsageError


def outcome(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def raises_value_error() -> None:
    """Fails."""
    raise ValueError("seven [bold]")


def is_interrupted() -> None:
    """Is interrupted."""
    raise KeyboardInterrupt


def raising(error: GanomalyError):
    def fails() -> None:
        raise error

    return fails


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Puts a function into the table, as `broken`."""

    def register(function) -> str:
        monkeypatch.setattr(command_line, "_under_test", function, raising=False)
        monkeypatch.setitem(COMMANDS, "broken", Command("stream_app.cli.main:_under_test", "Fails."))
        return "broken"

    return register


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_with_the_first_line_of_its_own_help(name: str):
    assert COMMANDS[name].help == load(name).help.strip().splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]):
    assert outcome([name, "--help"]) == 0
    assert COMMANDS[name].help in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "worker", "score", "evaluate"])
def test_an_option_without_a_value_says_which_setting_holds(name: str):
    shown = {option.name: option.show_default for option in load(name).params}
    assert (shown["registry"], shown["device"]) == ("GANOMALY_REGISTRY__URL", "GANOMALY_WORKER__DEVICE")


def test_the_list_of_commands_loads_neither_torch_nor_faust_nor_a_broker_client():
    code = (
        "import sys\nfrom stream_app.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n"
        "    print(*{'torch', 'faust', 'aiokafka', 'redis', 'sklearn'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "local" in done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such thing"), 2),
        (SettingsError("GANOMALY_X: wrong"), 2),
        (ModelNotFound("images has no champion"), 1),
        (FuseBlown("200 dead letters in a row"), 1),
    ],
)
def test_an_error_of_ours_is_one_line_on_stderr_and_its_exit_code(error, code, command, capsys):
    assert outcome([command(raising(error))]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {error}\n"


def test_an_unexpected_error_is_named_without_a_traceback(command, capsys):
    assert outcome([command(raises_value_error)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ValueError: seven [bold]\n")
    assert "Traceback" not in error


def test_debug_shows_the_traceback(command, capsys):
    assert outcome(["--debug", command(raises_value_error)]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "in raises_value_error" in error


def test_ctrl_c_ends_silently_with_130(command, capsys):
    assert outcome([command(is_interrupted)]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(capsys):
    assert outcome(["loca"]) == 2
    assert "Did you mean 'local'" in capsys.readouterr().err
