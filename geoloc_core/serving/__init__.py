"""The registered champion, asked for a place."""
