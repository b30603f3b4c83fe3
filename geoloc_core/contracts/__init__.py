"""What every model family keeps to: what it reads, what it answers, what its classes are."""
