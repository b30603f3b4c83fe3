"""What a name means, in the profile in use or else in any other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc_core.params.reading import load
from geoloc_core.params.schema import About, Checkpoint, Corpus, Profile, entry
from geoloc_core.yamls import read_yaml


def any_corpus(path: Path, name: str) -> Corpus:
    """A corpus of the profile in use or, where that has none of the name, of any other.

    Raises:
        UserError: The file is wrong, or no profile has the corpus.
    """
    known = dict(load(path).corpora)
    for block in (read_yaml(path).get("profiles") or {}).values():
        for key, corpus in block["corpora"].items():
            known.setdefault(key, Corpus.model_validate(corpus))
    found: Corpus = entry(known, name, "corpus", "params.yaml")
    return found


@dataclass(frozen=True)
class NamedEncoder:
    """What an encoder's name means.

    Attributes:
        profile: The profile that names it.
        image: Options of its image tower, where it has one.
        text: Options of its text tower, where it has one.
        checkpoint: Where its weights are published; None where they are trained here.
        about: What is published about them.
    """

    profile: str
    image: Any
    text: Any
    checkpoint: Checkpoint | None
    about: About

    @classmethod
    def of(cls, profile: str, block: Profile, name: str) -> "NamedEncoder":
        """What a profile means by a name."""
        image, text = block.encoders.get(name), block.text_encoders.get(name)
        return cls(profile, image, text, block.checkpoints.get(name), block.about.get(name, About()))


def encoders(path: Path) -> list[tuple[str, NamedEncoder]]:
    """Every encoder of every profile by name, those of the profile in use first.

    Raises:
        UserError: The file is wrong.
    """
    used, raw = load(path), read_yaml(path)
    blocks = raw.get("profiles") or {}
    current = next((name for name, block in blocks.items() if block == raw["run"]), "run")
    profiles = {current: used} | {
        name: Profile.model_validate(block) for name, block in blocks.items() if block != raw["run"]
    }
    return [
        (name, NamedEncoder.of(profile, block, name))
        for profile, block in profiles.items()
        for name in dict.fromkeys((*block.encoders, *block.text_encoders))
    ]


def any_encoder(path: Path, name: str) -> NamedEncoder:
    """An encoder of the profile in use or, where that has none of the name, of any other.

    Raises:
        UserError: The file is wrong, or no profile has the encoder.
    """
    known: dict[str, NamedEncoder] = {}
    for key, encoder in encoders(path):
        known.setdefault(key, encoder)
    found: NamedEncoder = entry(known, name, "encoder", "params.yaml")
    return found
