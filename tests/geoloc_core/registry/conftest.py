"""One empty database of MLflow's for all tests: making it takes many seconds."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's, which takes it many seconds to make: for tests to copy."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    import mlflow

    place = f"sqlite:///{path}"
    mlflow.MlflowClient(place, place).search_experiments(max_results=1)
    return path
