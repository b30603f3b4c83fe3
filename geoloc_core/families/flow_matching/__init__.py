"""Flow matching on the sphere: a density over all places, without cells (PLONK, Dufour et al. 2025).

A network on frozen features says in which direction, and how fast, each place of the sphere moves: evenly spread noise
flows together into the places where the photo may be from. Places are drawn by following the flow, and the density at
any place follows from how much the flow has spread out on its way back to the noise.
"""

from geoloc_core.families.flow_matching.learning import fit
from geoloc_core.families.flow_matching.model import Flow, load
from geoloc_core.families.flow_matching.options import Options

__all__ = ["Flow", "Options", "fit", "load"]
