"""How models are trained and how training is remembered."""
