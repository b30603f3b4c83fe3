"""Groups of photos as numbers: whom two photos have in common can be told, and not who it is."""

from typing import Any

import numpy as np

UNKNOWN = 0
"""The group of a photo of which none is known."""


def hashed(ids: Any) -> np.ndarray:
    """A number (N,) int64 for each group id of a column of strings, the same for the same id in any corpus.

    Ids of photographers are not kept with a model; 64 bits of SipHash are, with the fixed key of pandas, so that
    a photographer of whom a model has photos is known again and the list of them is not published.

    Args:
        ids: A column of pyarrow; a null is :data:`UNKNOWN`.
    """
    import pandas as pd
    import pyarrow as pa

    whole = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    coded = whole.cast(pa.large_string()).dictionary_encode()
    names = coded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    of_names = pd.util.hash_array(names, categorize=False).view(np.int64)
    at = coded.indices.fill_null(len(names)).to_numpy().astype(np.int64)
    found: np.ndarray = np.append(of_names, np.int64(UNKNOWN))[at]
    return found
