"""The stage ``geoloc leaderboard``: all variants beside each other, the baseline and the papers."""

from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from geoloc_core.contracts.metrics import column, rounded
from geoloc_core.errors import UserError
from geoloc_core.evaluation import page, published, tables
from geoloc_core.evaluation.board import Board, Interval, Report, Row, Section, build
from geoloc_core.evaluation.details import Restated
from geoloc_core.evaluation.metrics import CONVENTIONS
from geoloc_core.evaluation.score import RESTATED, read_draws
from geoloc_core.files import check_folder, read_json, replacing_folder, write_json
from geoloc_core.params import entry
from geoloc_core.progress import output, say
from geoloc_core.project import Project

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "leaderboard"


def leaderboard(project: Project) -> None:
    """Gather all scores, name the best, write the tables, and add the scores to the MLflow runs of their models.

    Raises:
        UserError: A variant has no scores, or they cannot be compared.
    """
    from geoloc_core.registry import tracking
    from geoloc_core.registry.card import model_card

    check_folder(project.leaderboard, NAME)
    scores = gather(project)
    board = build(project.profile, scores, partial(read_draws, project), published.tables())
    with replacing_folder(project.leaderboard, NAME) as aside:
        aside.mkdir()
        write_json(aside / "leaderboard.json", board)
        (aside / "leaderboard.md").write_text(tables.markdown(board), encoding="utf-8")
        (aside / "leaderboard.html").write_text(page.html(board), encoding="utf-8")
    write_json(project.summary(NAME, NAME), _summary(board))
    _plot(project, board)
    # here and not in every `score`: MLflow takes longer to start than a variant to score
    tracking.log_scores(project, scores, {variant: model_card(project, variant) for variant in scores})
    say(f"leaderboard: {tables.CROWN} {tables.verdict(board)}")


def gather(project: Project) -> dict[str, dict[str, Any]]:
    """The scores of every variant, in the order of ``params.yaml``.

    Raises:
        UserError: A variant has none, or they are damaged.
    """
    found = {}
    for variant in project.profile.variants:
        remedy = f"expected the scores; run `geoloc score {variant}`"
        report = read_json(project.scores(variant) / "scores.json", remedy, Report)
        found[variant] = report.model_dump()
    return found


def load(project: Project) -> Board:
    """The leaderboard as last written.

    Raises:
        UserError: There is none, or it is damaged.
    """
    board: Board = read_json(project.leaderboard / "leaderboard.json", "run `geoloc leaderboard`", Board)
    return board


def restated(project: Project, board: Board, convention: str) -> Board:
    """A leaderboard whose distances are measured as another project's code does, from the scores.

    Args:
        project: Whose.
        board: As last written.
        convention: One of :data:`~geoloc_core.evaluation.metrics.CONVENTIONS`.

    Raises:
        UserError: There is no such convention, or the scores are damaged.
    """
    chosen = entry(CONVENTIONS, convention, "convention", "those that are known")
    reports, by_name = gather(project), restatements(project)

    def other(section: Section, row: Row) -> Row:
        of = row.name if not row.baseline else _like(reports, section, row)
        both = by_name[of].get(section.name, Restated(ours={}, majority={}))
        known = (both.majority if row.baseline else both.ours).get(convention)
        if known is None:
            path = project.scores(of) / RESTATED
            raise UserError(f"{path}: no {convention!r} of {section.name}; run `geoloc score {of}`")
        values = {name: rounded(name, found.value) for name, found in known.items() if found.value is not None}
        ends = {
            name: Interval(low=found.low, high=found.high)
            for name, found in known.items()
            if not row.baseline and found.low is not None and found.high is not None
        }
        kept = {name: spread for name, spread in row.spreads.items() if name not in values}
        changed = {"values": row.values | values, "intervals": row.intervals | ends, "spreads": kept}
        return row.model_copy(update=changed)

    def others(section: Section) -> Section:
        known = [one for one in section.comparisons if (metric := column(one.metric)) and not metric.is_distance]
        return section.model_copy(update={"rows": [other(section, row) for row in section.rows], "comparisons": known})

    sections = [others(section) for section in board.sections]
    return board.model_copy(update={"sections": sections, "convention": f"{convention}: {chosen}"})


def restatements(project: Project) -> dict[str, dict[str, Restated]]:
    """By variant and benchmark, distances as other projects' code measures them.

    Raises:
        UserError: They are missing or damaged.
    """
    return {
        name: read_json(project.scores(name) / RESTATED, f"run `geoloc score {name}`", dict[str, Restated])
        for name in project.profile.variants
    }


def _like(reports: dict[str, dict[str, Any]], section: Section, baseline: Row) -> str:
    """A variant of a section that has a baseline."""
    return next(
        row.name
        for row in section.rows
        if not row.baseline
        and row.labels == baseline.labels
        and baseline.name == f"always {reports[row.name]['majority']['name']}"
    )


def show(project: Project, stream: TextIO | None = None, convention: str | None = None) -> None:
    """Print the leaderboard as last written.

    Args:
        project: Whose.
        stream: Where to; the standard output if not given.
        convention: How distances are measured, if not as usual.

    Raises:
        UserError: There is none.
    """
    console = output(stream)
    board = load(project)
    if convention is not None:
        board = restated(project, board, convention)
    console.print(tables.render_terminal(board, console.width))


def _summary(board: Board) -> dict[str, Any]:
    """The best, and every variant by the deciding metric."""
    deciding = board.sections[0]
    values = {row.name: row.values[board.best.metric] for row in deciding.rows if board.best.metric in row.values}
    return {**board.best.model_dump(), "n": deciding.n, "published": deciding.published, "values": values}


def _plot(project: Project, board: Board) -> None:
    from geoloc_core.plots import picture

    rows = len(board.sections[0].rows)
    with picture(project.plot(NAME, NAME), width=7, height=1.2 + 0.28 * rows) as axes:
        _bars(axes, board)


def _bars(axes: "Axes", board: Board) -> None:
    metric, section = board.best.metric, board.sections[0]
    rows, found = [row for row in section.rows[::-1] if metric in row.values], column(metric)
    colours = ["#b8b8b8" if r.baseline else "#e07a5f" if r.name == board.best.variant else "#1f6f8b" for r in rows]
    bars = axes.barh([row.name for row in rows], [row.values[metric] for row in rows], color=colours, height=0.7)
    axes.bar_label(bars, [found.show(r.values[metric]) if found else f"{r.values[metric]:g}" for r in rows], padding=3)
    published = [] if board.banner else [(row.paper[metric], row.name) for row in rows if metric in row.paper]
    if published:
        axes.scatter(*zip(*published, strict=True), marker="D", color="#3d405b", zorder=3, label="paper")
        axes.legend(frameon=False)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    what = f"{found.group.removesuffix(', %')} {found.head}{'' if found.falling else ', %'}" if found else metric
    axes.set(
        title=f"{'Demo, ' if board.banner else ''}{section.name}, n = {section.n:,}",
        xlabel=what,
    )
