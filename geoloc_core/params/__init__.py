"""``params.yaml`` as typed, validated records: the only reader of that file."""

from geoloc_core.params.catalogue import NamedEncoder, any_corpus, any_encoder, encoders
from geoloc_core.params.reading import load
from geoloc_core.params.schema import (
    VALIDATION,
    About,
    Checkpoint,
    Corpus,
    CountryCode,
    Drift,
    Evaluation,
    Expect,
    Labels,
    Leaks,
    Profile,
    Registry,
    Texts,
    entry,
)

__all__ = [
    "VALIDATION",
    "About",
    "Checkpoint",
    "Corpus",
    "CountryCode",
    "Drift",
    "Evaluation",
    "Expect",
    "Labels",
    "Leaks",
    "NamedEncoder",
    "Profile",
    "Registry",
    "Texts",
    "any_corpus",
    "any_encoder",
    "encoders",
    "entry",
    "load",
]
