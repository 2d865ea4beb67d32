from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from model.errors import ChampionChanged, ManifestError, RolledBack, StaleToken
from model.lineage import MOST_ENTRIES, Lineage, Promotion

START = datetime(2026, 5, 1, tzinfo=UTC)


def history(*steps: str) -> tuple[Lineage, str | None]:
    """What comes of promotions ("a") and of going back ("<a"), and what is in service then."""
    lineage, champion = Lineage(), None
    for number, step in enumerate(steps):
        version, back = step.removeprefix("<"), step.startswith("<")
        promotion = Promotion(
            at=START + timedelta(seconds=number), version=version, action="rollback" if back else "promote"
        )
        lineage = (lineage.went_back if back else lineage.promoted)(promotion, champion)
        champion = version
    return lineage, champion


def by_trainer(version: str, token: int) -> Promotion:
    return Promotion(at=START + timedelta(days=1), version=version, token=token)


def test_each_entry_says_what_it_replaced() -> None:
    lineage, _ = history("a", "b", "<a")
    assert [(entry.version, entry.replaced, entry.action) for entry in lineage.entries] == [
        ("a", None, "promote"),
        ("b", "a", "promote"),
        ("a", "b", "rollback"),
    ]


@pytest.mark.parametrize(
    ("steps", "rolled_back", "before"),
    [
        (["a"], set(), []),
        (["a", "b"], set(), ["a"]),
        (["a", "b", "<a"], {"b"}, []),
        (["a", "b", "<a", "c"], {"b"}, ["a", "a"]),
        (["a", "b", "c", "<b", "<a"], {"b", "c"}, []),
        (["a", "b", "c", "d", "<a"], {"b", "c", "d"}, []),
        (["a", "b", "<a", "b"], set(), ["a", "a"]),
        (["a", "b", "<a", "<b"], {"a"}, []),
    ],
)
def test_what_comes_after_the_version_gone_back_to_is_rolled_back(
    steps: list[str], rolled_back: set[str], before: list[str]
) -> None:
    lineage, champion = history(*steps)
    assert lineage.rolled_back == rolled_back
    assert list(lineage.before(champion)) == before


def test_the_anchor_is_what_a_person_last_put_in_service() -> None:
    lineage, champion = history("a", "b")
    assert (Lineage().anchor(), lineage.anchor()) == (None, "b")
    refreshed = lineage.promoted(by_trainer("c", 1), champion).promoted(by_trainer("d", 1), "c")
    assert refreshed.anchor() == "b"
    back = refreshed.went_back(Promotion(at=START + timedelta(days=2), version="a", action="rollback"), "d")
    assert back.anchor() == "a"


def test_what_was_in_service_before_there_was_a_lineage_can_be_gone_back_to() -> None:
    lineage = Lineage().promoted(Promotion(at=START, version="b"), "a")
    assert lineage.entries[0].replaced == "a"
    assert list(lineage.before("b")) == ["a"]
    assert lineage.knows("a")
    assert not lineage.knows("c")


def test_a_lower_token_changes_nothing_and_an_equal_one_may() -> None:
    lineage = Lineage().fenced(3)
    with pytest.raises(StaleToken, match="token 2 is stale: a trainer with token 3"):
        lineage.promoted(by_trainer("a", 2), None)
    with pytest.raises(StaleToken):
        lineage.fenced(2)
    assert lineage.fenced(3) == lineage
    assert lineage.promoted(by_trainer("a", 3), None).token == 3
    assert lineage.promoted(by_trainer("a", 5), None).token == 5


def test_a_trainer_does_not_promote_what_was_rolled_back_until_a_person_has() -> None:
    lineage, champion = history("a", "b", "<a")
    with pytest.raises(RolledBack, match="version b was rolled back"):
        lineage.promoted(by_trainer("b", 1), champion)
    lineage, champion = history("a", "b", "<a", "b", "c")
    assert lineage.promoted(by_trainer("b", 1), champion).entries[-1].version == "b"


def test_a_promotion_that_is_to_replace_another_than_the_one_in_service_is_refused() -> None:
    lineage, champion = history("a", "b")
    for expected in ("a", None):
        with pytest.raises(
            ChampionChanged, match=f"b was put in service meanwhile, and c was to replace {expected or 'none'}"
        ):
            lineage.promoted(by_trainer("c", 1), champion, expected)
        with pytest.raises(ChampionChanged):  # also while the champion file is still to be written
            lineage.promoted(by_trainer("c", 1), "a", expected)
    assert lineage.promoted(by_trainer("c", 1), champion, "b").entries[-1].version == "c"
    assert Lineage().promoted(by_trainer("c", 1), None, None).entries[-1].version == "c"
    with pytest.raises(StaleToken):
        lineage.fenced(2).promoted(by_trainer("c", 1), champion, "a")


def test_a_champion_file_that_lags_behind_does_not_hide_the_last_entry_and_one_by_other_hands_counts() -> None:
    lineage, _ = history("a", "b")
    assert lineage.current("a") == lineage.current("b") == "b"
    assert lineage.current("z") == "z"
    assert Lineage().current("z") == "z"


def test_a_change_is_unfinished_while_the_champion_file_says_what_it_replaced() -> None:
    lineage, _ = history("a", "b")
    assert lineage.unfinished("a") == lineage.entries[-1]
    assert lineage.unfinished("b") is lineage.unfinished("z") is None
    assert history("a")[0].unfinished(None) is not None
    assert history("a", "a")[0].unfinished("a") is None
    assert Lineage().unfinished(None) is None


def test_a_promotion_is_found_whatever_it_replaced() -> None:
    promotion = Promotion(at=START, version="b", by="ada", reason="better")
    lineage = Lineage().promoted(promotion, "a")
    assert lineage.holds(promotion)
    assert not lineage.holds(promotion.model_copy(update={"by": "bob"}))


def test_it_reads_what_it_wrote_and_refuses_anything_else() -> None:
    lineage, _ = history("a", "b", "<a")
    assert Lineage.parse(lineage.model_dump_json().encode(), "here") == lineage
    assert Lineage.parse(None, "here") == Lineage()
    with pytest.raises(ManifestError, match="here: token"):
        Lineage.parse(b'{"token": -1}', "here")
    with pytest.raises(ManifestError, match="here: the whole"):
        Lineage.parse(b"{", "here")


def test_the_oldest_entries_go() -> None:
    lineage, _ = history(*(str(number) for number in range(MOST_ENTRIES + 2)))
    assert len(lineage.entries) == MOST_ENTRIES
    assert lineage.entries[0].version == "2"
