"""Which versions of a detector were put in service, when and by whom, and who may do it next.

A trainer holds a fencing token, which rises with each holder of its lease (M. Kleppmann, "How to do distributed
locking", 2016). The lineage remembers the highest that it has seen and refuses lower ones, so that a trainer that lost
its lease without noticing changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from types import EllipsisType
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from model.errors import ChampionChanged, ManifestError, RolledBack, StaleToken, first_fault

MOST_ENTRIES = 1000  # a detector that is trained every hour has more in six weeks; the oldest go

Versions = Annotated[frozenset[str], PlainSerializer(sorted, return_type=list[str])]


class Promotion(BaseModel):
    """One change of the version in service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    version: str = Field(description="in service from then on")
    replaced: str | None = Field(None, description="what was in service before; null for the first")
    action: Literal["promote", "rollback"] = "promote"
    by: str = ""
    reason: str = ""
    token: int | None = Field(None, ge=0, description="fencing token of the trainer; null for a person's promotion")


class Lineage(BaseModel):
    """`lineage.json`. Its methods return a changed copy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    token: int = Field(0, ge=0, description="the highest fencing token seen")
    rolled_back: Versions = Field(frozenset(), description="rolled back, and not promoted by a person since")
    entries: tuple[Promotion, ...] = Field((), description="oldest first, at most 1000")

    @classmethod
    def parse(cls, data: bytes | None, where: str) -> Lineage:
        """From the bytes of a file at `where`; empty where there is none. Raises ManifestError for anything else."""
        if data is None:
            return cls()
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ManifestError(f"{where}: {first_fault(error, 'the whole')} (this release reads schema 1)") from error

    def unfinished(self, champion: str | None) -> Promotion | None:
        """The newest entry, where the `champion` file still says what it replaced; None elsewhere.

        Whoever wrote the entry has yet to write the file, or died before that.
        """
        last = self.entries[-1] if self.entries else None
        return last if last is not None and last.version != champion == last.replaced else None

    def current(self, champion: str | None) -> str | None:
        """What is in service, given what the `champion` file says.

        The lineage is written first, so the newest entry counts also while it is unfinished. A file that says something
        else was written by other hands, and counts.
        """
        begun = self.unfinished(champion)
        return champion if begun is None else begun.version

    def before(self, version: str | None) -> Iterator[str]:
        """Other versions that were in service and were not rolled back, the latest first; some more than once."""
        return (item for item in self._were_in_service() if item != version and item not in self.rolled_back)

    def anchor(self) -> str | None:
        """The version that a person last put in service, and that was not rolled back since."""
        chosen = (entry.version for entry in reversed(self.entries) if entry.token is None)
        return next((version for version in chosen if version not in self.rolled_back), None)

    def knows(self, version: str) -> bool:
        """Whether a version was ever in service, as far back as the entries go."""
        return version in self._were_in_service()

    def fenced(self, token: int) -> Lineage:
        """With a trainer's token remembered. Raises StaleToken for one lower than remembered."""
        if token < self.token:
            raise StaleToken(
                f"token {token} is stale: a trainer with token {self.token} has taken over; nothing was changed"
            )
        return self.model_copy(update={"token": token})

    def promoted(
        self, promotion: Promotion, champion: str | None, expected: str | EllipsisType | None = ...
    ) -> Lineage:
        """With a version in service, in place of `expected` where that is given.

        Raises StaleToken, RolledBack for a trainer's of a version rolled back, or ChampionChanged.
        """
        version, token = promotion.version, promotion.token
        fenced = self if token is None else self.fenced(token)
        if token is not None and version in self.rolled_back:
            raise RolledBack(
                f"version {version} was rolled back; only a person puts it in service again, with "
                "`ganomaly-stream models promote`"
            )
        if expected not in (..., current := self.current(champion)):
            raise ChampionChanged(
                f"{current or 'none'} was put in service meanwhile, and {version} was to replace {expected or 'none'}"
            )
        return self._with(promotion, champion, fenced.token, self.rolled_back - {version})

    def went_back(self, promotion: Promotion, champion: str | None) -> Lineage:
        """With a version in service again, and all that came into service after it marked as rolled back."""
        after = {self.current(champion), *takewhile(lambda item: item != promotion.version, self._were_in_service())}
        rolled_back = self.rolled_back.union(item for item in after if item is not None) - {promotion.version}
        return self._with(promotion, champion, self.token, rolled_back)

    def holds(self, promotion: Promotion) -> bool:
        """Whether a promotion is among the entries, whatever it replaced."""
        return any(entry.model_copy(update={"replaced": promotion.replaced}) == promotion for entry in self.entries)

    def _with(self, promotion: Promotion, champion: str | None, token: int, rolled_back: frozenset[str]) -> Lineage:
        entry = promotion.model_copy(update={"replaced": self.current(champion)})
        entries = (*self.entries, entry)[-MOST_ENTRIES:]
        return self.model_copy(update={"token": token, "entries": entries, "rolled_back": rolled_back})

    def _were_in_service(self) -> Iterator[str]:
        for entry in reversed(self.entries):
            yield entry.version
        # What was in service before there was a lineage.
        if self.entries and self.entries[0].replaced:
            yield self.entries[0].replaced
