"""Scores, baselines and the leaderboard."""
