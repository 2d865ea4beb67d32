"""What `label` asks for, and how labels and their limits are told."""

from __future__ import annotations

import pytest

from stream_app.cli.label import hints, line
from stream_app.cli.main import main
from stream_app.events import Label
from tests.unit.stream_app.test_events import LABEL

ID = LABEL["id"]


def label(**fields: object) -> Label:
    return Label.model_validate(LABEL | {"stream": "camera-1"} | fields)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([ID], "one of --normal, --anomaly and --withdraw"),
        ([ID, "--normal", "--anomaly"], "one of --normal, --anomaly and --withdraw"),
        (["--normal"], "name alerts by their ids, or one --episode, or a record by --topic"),
        ([ID, "--normal", "--episode", ID], "name alerts by their ids, or one --episode, or a record by --topic"),
        (["--normal", "--topic", "records.images", "--offset", "0"], "name a record together"),
        (["abc", "--normal"], "abc: an id has 32 digits 0-9a-f; give at least the first 8"),
        (["--episode", "camera-1", "--normal"], "camera-1: an id has 32 digits"),
        (["--list", "--normal"], "--list shows all labels"),
        (["--list", ID], "--list shows all labels"),
    ],
)
def test_what_is_unclear_is_refused_before_anything_is_asked(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["label", *arguments])
    assert ended.value.code == 2
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, f"normal  camera-1  score 4.25 / 3.00  records.images/0/7  {ID[:12]}"),
        (
            {"label": "anomaly", "score": None, "threshold": None},
            f"anomaly  camera-1  score unknown  records.images/0/7  {ID[:12]}",
        ),
        ({"label": "none"}, f"taken back  camera-1  score 4.25 / 3.00  records.images/0/7  {ID[:12]}"),
    ],
)
def test_a_line_says_what_was_said_of_which_record(fields: dict[str, object], text: str) -> None:
    assert line(label(**fields)).plain == text


def test_what_labels_can_not_do_is_told() -> None:
    within = [label(score=3.25), label(label="anomaly", score=2.75), label(label="none", score=9.0)]
    assert hints(within, 0.5) == []
    (far,) = hints([*within, label(score=4.25), label(label="anomaly", score=1.0)], 0.5)
    assert far.startswith("note: up to 2.00 from the threshold, and labels move it by at most labels.max_shift=0.5")
    (unknown,) = hints([*within, label(score=None, threshold=None)], 0.5)
    assert "1 of them with an unknown score (GANOMALY_SCORES__PUBLISH=true" in unknown
