"""A file of any size is read in the memory of a part of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from geoloc_core import parquet
from tests.benchmarks.memory import STATUS

ROOT = Path(__file__).parents[2]
READ = """
import sys
from pathlib import Path
from geoloc_core import parquet
from tests.benchmarks.memory import peak
path = Path(sys.argv[1])
before = peak()
if sys.argv[2] == "verify":
    parquet.verify(path, "")
else:
    for batch in parquet.batches(path, "", 250):
        pass
print(peak() - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """300 MB of what looks like photos, in groups of 10 MB."""
    path = tmp_path_factory.mktemp("large") / "00000.parquet"
    random = np.random.default_rng(0)
    with parquet.writer(path, pa.schema([("image", pa.binary())])) as out:
        for _ in range(30):
            out.write_table(pa.table({"image": [random.bytes(40_000) for _ in range(250)]}))
    return path


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells the peak of each process")
@pytest.mark.parametrize("how", ["verify", "batches"])
def test_memory_does_not_grow_with_the_file(large, how):
    command = [sys.executable, "-c", READ, str(large), how]
    taken = int(subprocess.check_output(command, cwd=ROOT))
    assert taken < large.stat().st_size / 2
