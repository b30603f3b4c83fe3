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


def test_a_paper_may_print_any_metric_and_no_other():
    paper = Paper.model_validate({"source": "A", "benchmarks": {"im2gps": {"accuracy": 36.1, "top_5": 63.7, 25: 1}}})
    assert paper.benchmarks == {"im2gps": {"accuracy": 36.1, "top_5": 63.7, 25: 1.0}}
    with pytest.raises(ValueError, match="'acuracy': no metric; expected a distance in km, or a metric such as"):
        Paper.model_validate({"source": "A", "benchmarks": {"im2gps": {"acuracy": 36.1}}})
