import io

import dagster as dg
import pytest
from rich.console import Console

from geoloc_core.errors import UserError
from orchestration.display import Display, Progress, failure_text
from orchestration.execution import step_labels
from orchestration.terminal import console, print_error
from tests.orchestration.small_project import definitions, materialize


def shown(result, labels, terminal=False):
    stream = io.StringIO()
    progress = Progress(labels)
    with Display(console(stream, force_terminal=terminal, width=100), progress) as display:
        for event in result.all_events:
            display.take(event)
    return progress, stream.getvalue()


def keys(*texts):
    return [dg.AssetKey(text.split("/")) for text in texts]


@pytest.mark.usefixtures("checks_pass")
def test_steps_have_names_for_people(project):
    assert step_labels(definitions(project), keys("ingest/mp16", "encode/clip-mp16")) == {
        "ingest__mp16": "ingest mp16",
        "ingest__mp16_manifest": "check manifest mp16",
        "encode__clip_mp16": "encode clip-mp16",
    }


@pytest.mark.slow
@pytest.mark.usefixtures("checks_fail")
def test_a_line_per_step_and_the_failure_as_the_check_says_it(project, instance):
    texts = ("fetch/mp16", "ingest/mp16", "encode/clip-mp16")
    result = materialize(project, instance, *texts)
    progress, text = shown(result, step_labels(definitions(project), keys(*texts)))
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "[1/4] fetch mp16",
        "[2/4] ingest mp16",
        "[3/4] check manifest mp16",
    ]
    assert lines[2].endswith(", failed")
    assert progress.not_started == 1
    assert progress.failures[0].startswith("check manifest mp16: the check failed\n\n| expectation")
    stream = io.StringIO()
    Console(file=stream, width=80).print(failure_text(progress.failures[0]))
    assert "latitude within 90" in stream.getvalue()
    assert "|" not in stream.getvalue()
    assert "ingest mp16" in shown(result, progress.labels, terminal=True)[1]


@pytest.mark.slow
@pytest.mark.usefixtures("checks_pass")
@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_printed_letter_for_letter(project, instance, terminal):
    labels = {"fetch__mp16": "fetch photos[edited] :car: [/]"}
    (project / "trouble").mkdir()
    (project / "trouble" / "mp16").write_text("geoloc: error: IMG_1[edited].jpg [/b]: no place :car:\n")
    progress, text = shown(materialize(project, instance, "fetch/mp16"), labels, terminal)
    assert labels["fetch__mp16"] in text
    stream = io.StringIO()
    console(stream).print(failure_text(progress.failures[0]), soft_wrap=True)
    print_error(console(stream), UserError("IMG_1[edited].jpg [/b] :car:"))
    assert stream.getvalue().splitlines() == [
        "fetch@mp16: IMG_1[edited].jpg [/b]: no place :car:",
        "geoloc: error: IMG_1[edited].jpg [/b] :car:",
    ]
