"""The record of a decision about who is champion: who took it, when, by what figures and why."""

import getpass
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from geoloc_core.contracts.metrics import column
from geoloc_core.params.schema import Registry
from geoloc_core.plugins import Strict
from geoloc_core.registry import evidence
from geoloc_core.registry.evidence import Compared

Rule = Literal[
    "first", "evidence", "same", "other photos", "replaced", "chosen", "rolled back", "rejected", "none left"
]
"""What decided: figures or their absence, or a person."""


class Score(Strict):
    """A figure with its 95 % interval."""

    value: float
    low: float | None
    high: float | None

    def words(self, metric: str) -> str:
        """The figure as it is written, with its interval."""
        found = column(metric.rpartition("/")[2])
        show = found.show if found else "{:g}".format
        return show(self.value) + ("" if self.low is None else f" [{show(self.low)}, {show(self.high)}]")


class Contender(Strict):
    """A version that took part.

    Attributes:
        version: Its number.
        variant: Which one it is.
        run_id: The run that trained it.
        score: By the deciding metric; None where its answers to the selection set were not kept.
    """

    version: int
    variant: str
    run_id: str
    score: Score | None

    def said(self, metric: str) -> str:
        """It in words, with the score."""
        if self.score is None:
            return f"{self.variant} (version {self.version})"
        return f"{self.variant} (version {self.version}, {metric} {self.score.words(metric)})"


class Decision(Strict):
    """What was decided.

    Attributes:
        at: When, UTC.
        by: Who ran the command.
        rule: What decided.
        promoted: Whether the champion is another one than before.
        why: In one sentence.
        model: Name of the registered model.
        metric: What decides: benchmark and metric.
        champion: Who is champion now; None where nobody is.
        candidate: Whom it was about; None where nobody was left to consider.
        compared: The figures; None where none were needed, or none could be had.
    """

    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    by: str = Field(default_factory=lambda: who())
    rule: Rule
    promoted: bool
    why: str
    model: str
    metric: str
    champion: Contender | None
    candidate: Contender | None
    compared: Compared | None = None

    @property
    def verdict(self) -> str:
        """What became of the candidate, in a line."""
        if self.candidate is None:
            return f"{self.why}; the champion stays"
        about = self.candidate.said(self.metric)
        now = "" if self.champion is None else self.champion.said(self.metric)
        match self.rule:
            case "rolled back":
                return f"{self.why}; {now} is the champion again"
            case "rejected":
                return f"{self.why}; {about} will not become champion by itself"
        if self.champion is not None and self.champion.version == self.candidate.version:
            return f"{about} is the champion {'now' if self.promoted else 'already'}: {self.why}"
        return f"{about} does not take the place of {now}: {self.why}"

    def repeats(self, other: "Decision | None") -> bool:
        """Whether it says what another one has said, perhaps at another time."""
        return other is not None and self.model_copy(update={"at": other.at, "by": other.by}) == other


def who() -> str:
    """The user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def weigh(compared: Compared, registry: Registry) -> tuple[bool, str]:
    """Whether a candidate takes the champion's place, and why or why not, in one sentence.

    Args:
        compared: The figures of both.
        registry: The least gain.
    """
    gain, what = compared.gain, f"{registry.metric} on {registry.benchmark}"
    unit = evidence.unit_of(registry.metric)
    on = f"on {compared.photos:,} photos in {compared.groups:,} groups"
    size = f"{what} {'improves' if gain.value > 0 else 'worsens'} by {gain.words(unit)} {on}"
    if gain.value <= 0:
        return False, f"{what} is no better" if gain.value == 0 else size
    if gain.low is None or gain.low <= 0:
        return False, f"{size}, which may be chance"
    if gain.value < registry.min_gain:
        return False, f"{size}, less than registry.min_gain ({registry.min_gain:g})"
    if compared.unmeasured:
        names = ", ".join(compared.unmeasured)
        return False, (
            f"{size}, but both have not answered the same photos of {names}, which registry.guards name; "
            "`geoloc promote --replace` puts the candidate in its place"
        )
    if lost := evidence.broken(compared.guards):
        return False, f"{size}, but {'; '.join(lost)}"
    return True, size + (", and no guard is broken" if compared.guards else "")
