"""The registered model in MLflow's terms: this file is the model, its weights travel as artifacts, no pickle."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class GeolocatorModel(PythonModel):
    """Photos in a ``binary`` column ``image``; out come ``top_k`` rows per photo, best first."""

    def load_context(self, context: Any) -> None:
        """Open the bundle."""
        from geoloc_core.serving import bundle

        self.bundle = bundle.load(Path(context.artifacts["geolocator"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Places of photos."""
        from geoloc_core.serving.answer import rows

        photos = list(model_input["image"])
        prediction = self.bundle.predict(photos, (params or {}).get("top_k", 5))
        frame = pd.DataFrame(rows(prediction, self.bundle.labelspace))
        return frame.astype({"photo": "int64", "rank": "int64"})


set_model(GeolocatorModel())
