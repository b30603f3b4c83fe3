"""The registered model in MLflow's terms: this file is the model, its weights travel as artifacts, no pickle."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class GeolocatorModel(PythonModel):
    """Photos in a ``binary`` column ``image``; out come ``top_k`` rows per place, best first.

    Photos with the same ``place_id`` are views of one place and are answered together, whatever their order; one
    without is a place of its own. A model that looks at one view takes that with the least ``heading``, in degrees, and
    one that reads them in turn does so by heading. ``photo`` in the answer is the position of a place's first photo.
    """

    def load_context(self, context: Any) -> None:
        """Open the bundle."""
        from geoloc_core.serving import bundle

        self.bundle = bundle.load(Path(context.artifacts["geolocator"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Where photos were taken.

        Raises:
            UserError: One is not a readable photo, or several are of one place and the model answers photos alone.
        """
        from geoloc_core.serving.answer import rows

        asked = units(model_input)
        prediction = self.bundle.predict(list(model_input["image"]), (params or {}).get("top_k", 5), asked)
        frame = pd.DataFrame(rows(prediction, self.bundle.labelspace, asked.first.tolist()))
        return frame.astype({"photo": "int64", "rank": "int64"})


def units(request: pd.DataFrame) -> Any:
    """The places of a request, as :class:`geoloc_core.contracts.batch.Units`, in the order of their first photos."""
    from geoloc_core.contracts.batch import Units

    alone = pd.Series([None] * len(request), request.index, dtype=object)
    places = request.get("place_id", alone).astype(object)
    headings = request.get("heading", alone).astype(float)
    return Units.of_places(np.arange(len(request)), places.where(places.notna(), None).to_numpy(), headings.to_numpy())


set_model(GeolocatorModel())
