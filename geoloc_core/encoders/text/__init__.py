"""Frozen text towers, and the sentences that they turn into features."""
