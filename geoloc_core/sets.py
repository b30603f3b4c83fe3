"""The names of the sets of photos, and of what two of them may share.

A set is one split of a training corpus, such as ``mp16/train``, or a whole benchmark, such as ``im2gps``.
"""

from enum import StrEnum


class Split(StrEnum):
    """What a photo is for, in the order in which a model meets them."""

    TRAIN = "train"
    """A model learns from it."""
    VALIDATION = "validation"
    """It chooses: when to stop, and which model is better."""
    TEST = "test"
    """It is only reported."""
    BENCHMARK = "benchmark"
    """It belongs to a corpus that is never trained on."""


class LeakKind(StrEnum):
    """What two sets may share."""

    PHOTOGRAPHERS = "photographers"
    NEAR_DUPLICATES = "near_duplicates"
    NEIGHBOURS = "neighbours"


def splits_of(role: str, test_share: float) -> tuple[Split, ...]:
    """The splits of a corpus.

    Args:
        role: ``train`` or ``benchmark``.
        test_share: Share of the groups of training corpora that are for test.
    """
    if role == "benchmark":
        return (Split.BENCHMARK,)
    return (Split.TRAIN, Split.VALIDATION, Split.TEST) if test_share else (Split.TRAIN, Split.VALIDATION)


def set_name(corpus: str, split: str) -> str:
    """The name of a set: ``mp16/train``, or ``im2gps``."""
    return corpus if split == Split.BENCHMARK else f"{corpus}/{split}"


def set_parts(name: str) -> tuple[str, Split]:
    """The corpus and the split of a set.

    Raises:
        ValueError: No set has such a name.
    """
    corpus, _, split = name.partition("/")
    return corpus, Split(split or Split.BENCHMARK)


def leak_name(kind: str, one: str, other: str) -> str:
    """A leak's name, whichever set is named first: ``near_duplicates: mp16/train + im2gps``."""
    return f"{kind}: {' + '.join(sorted((one, other), key=in_order))}"


def leak_parts(name: str) -> tuple[str, str, str]:
    """The kind and the two sets of a leak's name; empty where it names none."""
    kind, _, sets = name.partition(":")
    one, _, other = sets.partition("+")
    return kind.strip(), one.strip(), other.strip()


def in_order(name: str) -> tuple[int, str]:
    """What sorts the names of sets: those that are learnt from first, then by name."""
    return list(Split).index(set_parts(name)[1]), name
