"""Retrieval behind a model of cells: the answer is a photo that looks alike, from the cells that the model names.

The recipe of NeuroGuessr 2 on cached features, a key for each step: a read-out over the best cells; a gate of the
fewest cells that hold most of the probability; the nearest neighbours by cosine among their photos; their best one as
the answer; heads that learn what is near; whitening, the blend of both and CSLS (Conneau et al. 2018); and re-ranking
of the best candidates by logistic regression. What the source leaves open is defined here.

A photo never finds one of its own photographer's.
"""

from geoloc_core.families.retrieval.learning import fit
from geoloc_core.families.retrieval.model import Retrieval, load
from geoloc_core.families.retrieval.options import Options

__all__ = ["Options", "Retrieval", "fit", "load"]
