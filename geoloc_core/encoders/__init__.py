"""Frozen image towers, the features they extract and where these are stored."""
