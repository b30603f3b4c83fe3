"""The geography: distances, boundaries, labels and label spaces."""
