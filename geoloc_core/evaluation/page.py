"""The leaderboard as one page: a single file that needs no network."""

from geoloc_core.evaluation.board import Board
from geoloc_core.evaluation.tables import notes, phrase, table
from geoloc_core.report import render


def html(board: Board) -> str:
    """The leaderboard as a self-contained HTML page."""
    return render.document(
        "evaluation/leaderboard.html",
        board=board,
        figure=phrase(board),
        tables=[table(board, section) for section in board.sections],
        notes=notes(board, "In small print"),
    )
