import pytest

from tests.geoloc_core.made_answers import make_project, save_models


@pytest.fixture
def project(tmp_path):
    """A project with two trained variants."""
    made = make_project(tmp_path)
    save_models(made)
    return made
