"""Who is the champion: by evidence, or by a person's word. Every decision is kept with the versions it is about.

Only the alias ``champion`` and a few tags are decided; ``previous`` and ``challenger`` follow from them. So a command
may be killed anywhere and run again: what it has begun is brought to its end by the next one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError
from geoloc_core.files import write_json
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.registry import evidence, news, shift, tracking, versions
from geoloc_core.registry.decision import Decision, Rule, weigh, who
from geoloc_core.registry.versions import CHALLENGER, CHAMPION, FOLLOWS, PREVIOUS, REJECTED, ROLLED_BACK

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient

    from geoloc_core.evaluation.board import Board


def champion(project: Project) -> tuple[str, Path]:
    """The registered champion: its version, and the folder of its files.

    Raises:
        UserError: There is none yet, its files are gone, or MLflow's store cannot be used.
    """
    mlflow_client = tracking.client(project)
    import mlflow

    name = project.profile.registry.model
    with tracking.answering(project):
        version = versions.holder(mlflow_client, name)
    if version is None:
        raise UserError(f"model {name!r}: no champion registered; run `make demo` or `geoloc promote` first")
    try:
        with tracking.fluent(project):
            files = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version.version}")
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UserError(
            f"model {name!r} version {version.version}: its files are gone ({' '.join(str(error).split())[:200]}); "
            "run `geoloc promote --replace` to put the best variant in its place"
        ) from None
    return version.version, Path(files) / "artifacts" / "geolocator"


def promote(project: Project, replace: bool = False) -> Decision:
    """Register the best variant, and make it the champion if the evidence says so.

    The best is the first of the leaderboard that no person has rejected or rolled back.

    Args:
        project: The project.
        replace: Make the best the champion whatever the evidence, as after the selection set itself has changed, and
            write its files again.

    Returns:
        What was decided, also written to ``.state/promotion.json``.

    Raises:
        UserError: There is no leaderboard yet, it is of other parameters or answers, or MLflow's store cannot be used.
    """
    from geoloc_core.evaluation import leaderboard

    board, registry = leaderboard.load(project), project.profile.registry
    best = board.best
    asked = (registry.benchmark, registry.metric, project.profile.demo)
    if (best.benchmark, best.metric, bool(board.banner)) != asked:
        path = project.leaderboard / "leaderboard.json"
        raise UserError(f"{path}: not of the present parameters; run `geoloc leaderboard` first")
    return _decided(project, lambda at_work: at_work.promote(board, replace))


def choose(project: Project, number: int, because: str = "") -> Decision:
    """Make a version the champion because a person says so; it may be one that was rejected or rolled back.

    Raises:
        UserError: There is no such version, or MLflow's store cannot be used.
    """
    return _decided(project, lambda at_work: at_work.choose(number, because))


def roll_back(project: Project, because: str = "") -> Decision:
    """Give the place back to the version that was champion before; the present one is never crowned again by itself.

    Raises:
        UserError: There is no version to go back to, or MLflow's store cannot be used.
    """
    return _decided(project, lambda at_work: at_work.roll_back(because))


def reject(project: Project, number: int, because: str) -> Decision:
    """Never let a version become champion by itself.

    Raises:
        UserError: There is no such version, it is the champion, or MLflow's store cannot be used.
    """
    return _decided(project, lambda at_work: at_work.reject(number, because))


def _decided(project: Project, decide: Callable[["_Registry"], Decision]) -> Decision:
    """Decide while no other promotion of this machine is at work, and keep for the hook what it has to hear."""
    with tracking.one_at_a_time(tracking.store(project) / "promotion.lock"):
        mlflow_client = tracking.client(project)
        with tracking.answering(project), tracking.fluent(project):
            at_work = _Registry(project, mlflow_client, project.profile.registry.model)
            at_work.settle()
            decision = decide(at_work)
        news.keep(project, decision)
    return decision


@dataclass(frozen=True)
class _Registry:
    """The registered model while no other promotion of this machine is at work on it."""

    project: Project
    client: "MlflowClient"
    name: str

    def settle(self) -> None:
        """Bring what a killed command left to its end: aliases follow from who is champion and from the tags."""
        holder = versions.holder(self.client, self.name)
        if holder is not None and versions.is_barred(holder) and (before := self.before(holder)) is not None:
            self.client.set_registered_model_alias(self.name, CHAMPION, before.version)
            holder = before
        before = None if holder is None else self.before(holder)
        if before is None:
            self.drop(PREVIOUS)
        elif (known := versions.holder(self.client, self.name, PREVIOUS)) is None or known.version != before.version:
            self.client.set_registered_model_alias(self.name, PREVIOUS, before.version)
        challenger = versions.holder(self.client, self.name, CHALLENGER)
        if challenger and (versions.is_barred(challenger) or (holder and holder.version == challenger.version)):
            self.drop(CHALLENGER)

    def drop(self, alias: str) -> None:
        """Take an alias from whoever has it."""
        if versions.holder(self.client, self.name, alias) is not None:
            self.client.delete_registered_model_alias(self.name, alias)

    def before(self, version: Any) -> Any:
        """The last champion before a version that no person has barred; None where there is none."""
        seen = {str(version.version)}
        while (number := version.tags.get(FOLLOWS)) and number not in seen:
            seen.add(number)
            version = versions.numbered(self.client, self.name, number)
            if version is None:
                return None
            if not versions.is_barred(version):
                return version
        return None

    def crown(self, version: Any, holder: Any) -> None:
        """Make a version the champion after another one."""
        if holder is not None and holder.version != version.version:
            self.client.set_model_version_tag(self.name, version.version, FOLLOWS, str(holder.version))
        self.client.set_registered_model_alias(self.name, CHAMPION, version.version)
        self.drop(CHALLENGER)  # which lost to another champion
        self.settle()

    def promote(self, board: "Board", replace: bool) -> Decision:
        """See :func:`promote`."""
        experiment_id = tracking.experiment(self.project, self.client)
        tracking.settle(self.client, experiment_id)
        versions.remove_leftovers(self.project, self.client, experiment_id)
        # the first section is the deciding one, its rows from the best
        ranked = [row.name for row in board.sections[0].rows if not row.baseline]
        unwanted = set() if replace else versions.barred(self.client, self.name)
        variant = next((name for name in ranked if versions.made(self.project, name) not in unwanted), None)
        if variant is None:
            shift.keep(self.project, None)
            why = "every variant of the leaderboard was rejected or rolled back"
            return self.note("none left", False, why, None, versions.holder(self.client, self.name))
        tables = self.answers(board, variant)
        self.look_for_shifts(variant, set(ranked))
        candidate = versions.register(self.project, self.client, experiment_id, variant, tables, anew=replace)
        self.refresh_champion(candidate, set(ranked))
        while True:
            holder = versions.holder(self.client, self.name)
            decide = self.weigh(candidate, holder, tables, len(ranked), replace)
            if self.is_still(holder):  # another machine may have promoted meanwhile: MLflow keeps the last word alone
                return decide()

    def look_for_shifts(self, best: str, ranked: set[str]) -> None:
        """Note how far features and answers have moved from the champion's, before it may change."""
        holder, registry = versions.holder(self.client, self.name), self.project.profile.registry
        if holder is None:
            shift.keep(self.project, None)
            return
        variant = holder.tags.get("variant", "")
        variant = variant if variant in ranked else best
        limits = self.project.profile.operations.warn_shift
        found = list(shift.of_features(self.project, variant, versions.learned(holder) or {}, limits))
        try:
            then = versions.selection(holder, registry.benchmark)
        except UserError:  # half of a file, as a kill leaves it; who is compared is told so, unless it is written anew
            then = None
        if then is not None:
            now = evidence.of_variant(self.project, variant, registry.benchmark)
            found += shift.of_answers(now, then, registry.benchmark, limits)
        shift.keep(self.project, found)
        for moved in found:
            if moved.warns:
                say(f"promote: warning: {moved.words()}")

    def is_still(self, holder: Any) -> bool:
        """Whether the champion is the one that was compared with."""
        now = versions.holder(self.client, self.name)
        return (now and now.version) == (holder and holder.version)

    def answers(self, board: "Board", variant: str) -> dict[str, "pa.Table"]:
        """A variant's answers to the selection set, those of the leaderboard; and to the benchmarks with guards."""
        best, tables = board.best, self.present(variant)
        table = tables[best.benchmark]
        same = evidence.sha256(table) == best.benchmark_sha256
        if same and variant == best.variant:
            same = math.isclose(evidence.figure(table, best.metric)[0], best.value, rel_tol=1e-9, abs_tol=1e-9)
        if not same:
            raise UserError(
                f"{self.project.answers(variant)}: not the answers that the leaderboard was made of; "
                "run `geoloc leaderboard` first"
            )
        return tables

    def present(self, variant: str) -> dict[str, "pa.Table"]:
        """A variant's answers as they are now: to the selection set, and to what it has answered that has guards."""
        from geoloc_core.variants import answers

        registry, answered = self.project.profile.registry, answers.note(self.project, variant).benchmarks
        asked = (registry.benchmark, *(name for name in registry.guards.benchmarks if name in answered))
        return {name: evidence.of_variant(self.project, variant, name) for name in asked}

    def refresh_champion(self, candidate: Any, ranked: set[str]) -> None:
        """Where the champion's model is still here, its present answers are too: keep these."""
        holder = versions.holder(self.client, self.name)
        variant = "" if holder is None else holder.tags.get("variant", "")
        if holder is None or holder.version == candidate.version or variant not in ranked:
            return
        if versions.made(self.project, variant) == holder.tags.get(versions.MODEL):
            versions.keep_selection(self.client, holder, self.present(variant))

    def weigh(
        self, candidate: Any, holder: Any, tables: dict[str, "pa.Table"], variants: int, replace: bool
    ) -> Callable[[], Decision]:
        """What is to be done about a candidate: nothing has been yet."""
        registry = self.project.profile.registry
        if replace:
            same = holder is not None and holder.version == candidate.version
            why = f"{who()} {'had its files written again' if same else 'put it in place'} with --replace"
            return lambda: self.crowned("replaced", why, candidate, holder)
        if holder is None:
            return lambda: self.crowned("first", "there was no champion", candidate, holder)
        if holder.version == candidate.version:
            return lambda: self.kept("same", "no other variant is better", candidate)
        theirs = versions.selection(holder, registry.benchmark)
        elsewhere = {name: (tables.get(name), versions.selection(holder, name)) for name in registry.guards.benchmarks}
        ours, compared = tables[registry.benchmark], None
        if theirs is not None:
            compared = evidence.compare(ours, theirs, registry, variants, elsewhere)
        if compared is None:
            why = (
                f"the champion, version {holder.version}, has not answered the same photos of {registry.benchmark}; "
                "`geoloc promote --replace` puts the candidate in its place"
            )
            return lambda: self.kept("other photos", why, candidate)
        better, why = weigh(compared, registry)
        if better:
            return lambda: self.crowned("evidence", why, candidate, holder, compared)
        return lambda: self.kept("evidence", why, candidate, compared)

    def crowned(
        self, rule: Rule, why: str, candidate: Any, holder: Any, compared: evidence.Compared | None = None
    ) -> Decision:
        """Make a candidate the champion, and note why."""
        anew = holder is None or holder.version != candidate.version
        decision = self.note(rule, anew, why, candidate, candidate, compared)
        for tag in (REJECTED, ROLLED_BACK):
            if tag in candidate.tags:
                self.client.delete_model_version_tag(self.name, candidate.version, tag)
        self.crown(candidate, holder)
        return decision

    def kept(self, rule: Rule, why: str, candidate: Any, compared: evidence.Compared | None = None) -> Decision:
        """Keep the champion, and note why."""
        holder = versions.holder(self.client, self.name)
        decision = self.note(rule, False, why, candidate, holder, compared)
        if holder.version == candidate.version:
            self.drop(CHALLENGER)
        else:
            self.client.set_registered_model_alias(self.name, CHALLENGER, candidate.version)
        return decision

    def note(
        self,
        rule: Rule,
        promoted: bool,
        why: str,
        about: Any,
        holder: Any,
        compared: evidence.Compared | None = None,
    ) -> Decision:
        """Write a decision down: with the version that it is about, and in ``.state/promotion.json``."""
        registry = self.project.profile.registry
        shown = {
            version.version: versions.contender(self.project, version, versions.selection(version, registry.benchmark))
            for version in (about, holder)
            if version is not None
        }
        decision = Decision(
            rule=rule,
            promoted=promoted,
            why=why,
            model=self.name,
            metric=f"{registry.benchmark}/{registry.metric}",
            champion=None if holder is None else shown[holder.version],
            candidate=None if about is None else shown[about.version],
            compared=compared,
        )
        if about is not None:
            self.keep(about, decision)
        write_json(self.project.state / "promotion.json", decision)
        return decision

    def keep(self, version: Any, decision: Decision) -> None:
        """Keep a decision with a version, in its record and in its description."""
        known = versions.keep_decision(self.client, version, decision)
        versions.describe(self.project, self.client, version, known)

    def asked(self, number: int) -> Any:
        """See :func:`~geoloc_core.registry.versions.asked`."""
        return versions.asked(self.client, self.name, number)

    def choose(self, number: int, because: str) -> Decision:
        """See :func:`choose`."""
        version, holder = self.asked(number), versions.holder(self.client, self.name)
        return self.crowned("chosen", _said(f"{who()} chose it", because), version, holder)

    def roll_back(self, because: str) -> Decision:
        """See :func:`roll_back`."""
        holder = versions.holder(self.client, self.name)
        before = None if holder is None else self.before(holder)
        if holder is None or before is None:
            raise UserError(
                f"model {self.name!r}: no champion before {'any' if holder is None else f'version {holder.version}'}; "
                "expected one to go back to; name one with `geoloc promote --version N`"
            )
        why = _said(f"{who()} rolled version {holder.version} back", because)
        decision = self.note("rolled back", True, why, holder, before)
        self.keep(before, decision)
        self.client.set_model_version_tag(self.name, holder.version, ROLLED_BACK, why)
        self.settle()
        return decision

    def reject(self, number: int, because: str) -> Decision:
        """See :func:`reject`."""
        version, holder = self.asked(number), versions.holder(self.client, self.name)
        if holder is not None and holder.version == version.version:
            raise UserError(
                f"model {self.name!r} version {number}: the champion; "
                "run `geoloc promote --rollback`, or crown another one first with `geoloc promote --version N`"
            )
        why = _said(f"{who()} rejected version {number}", because)
        decision = self.note("rejected", False, why, version, holder)
        self.client.set_model_version_tag(self.name, version.version, REJECTED, why)
        self.settle()
        return decision


def _said(what: str, because: str) -> str:
    reason = " ".join(because.split())
    return f"{what}: {reason}" if reason else what
