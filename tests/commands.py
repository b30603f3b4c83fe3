"""Commands of ``geoloc`` as a user types them, run in one process: most of what a small one takes are its imports."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

RUN = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from geoloc_core.cli import geoloc
said = []
for words in json.load(sys.stdin):
    written = io.BytesIO()
    with io.TextIOWrapper(written, "utf-8", write_through=True) as text, redirect_stdout(text), redirect_stderr(text):
        geoloc(words, standalone_mode=False)
        said.append(written.getvalue().decode())
json.dump(said, sys.stdout)
"""


def commands(root: Path, *lines: str, **variables: str) -> list[str]:
    """Run commands in a project, one after the other; each must succeed.

    Returns:
        What each printed.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=root, env={**os.environ, **variables}, text=True, capture_output=True,
        input=json.dumps([shlex.split(line) for line in lines]), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
