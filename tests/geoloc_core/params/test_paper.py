import pytest
from pydantic import ValidationError

from geoloc_core.params.paper import Paper


def test_a_published_row_reads_as_it_stands_in_yaml():
    paper = Paper.model_validate({"source": "A", "accuracy": 8.2, "benchmarks": {"im2gps": {"200": 4.4, 750: 18}}})
    assert paper.benchmarks == {"im2gps": {200: 4.4, 750: 18.0}}
    assert paper.top_5 is None


@pytest.mark.parametrize(
    "wrong", [{"accuracy": 101}, {"mean_km": -1}, {"accuarcy": 3}, {"benchmarks": {"a": {"b": 1}}}]
)
def test_a_mistyped_number_or_key_is_refused(wrong):
    with pytest.raises(ValidationError):
        Paper.model_validate({"source": "A", **wrong})
