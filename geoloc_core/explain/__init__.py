"""Why a model answered as it did: maps of a photo, evidence, neighbours, and whether a map can be trusted."""
