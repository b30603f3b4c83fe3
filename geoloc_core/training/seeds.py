"""Seeds of what is random in a training."""


def of_epoch(seed: int, epoch: int) -> int:
    """The seed of one epoch: it depends on the two numbers alone, so that a resumed training goes on as it was."""
    return seed * 1000 + epoch
