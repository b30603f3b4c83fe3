"""What a process holds is told without what the one that started it does."""

import subprocess
import sys
import threading
from pathlib import Path

import memory
import numpy as np
import pytest
from memory import STATUS, peak, watched

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="Linux tells the memory of each process")
MUCH = 400_000_000


@pytest.mark.slow
def test_the_peak_of_a_process_is_its_own():
    held = np.ones(MUCH, np.uint8)
    assert peak() > held.nbytes
    script = "from memory import peak; print(peak())"
    told = subprocess.check_output([sys.executable, "-c", script], cwd=Path(memory.__file__).parent)
    assert 1_000_000 < int(told) < 100_000_000


@pytest.mark.slow
def test_the_command_of_the_project_is_measured_in_a_process_of_its_own():
    held = np.ones(MUCH, np.uint8)
    told = subprocess.check_output([sys.executable, memory.__file__, "--version"], text=True).split()
    assert held.nbytes > int(told[-1]) > 10_000_000


def test_what_was_held_in_the_block_is_noticed_and_mapped_files_are_not(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(MUCH // 4,))
    with watched(0.001) as most:
        before = most[0]
        mapped[:] = 1
        small = most[0] - before
        held = np.ones(MUCH // 4, np.uint8)
        threading.Event().wait(0.2)
    assert small < MUCH // 8
    assert most[0] - before > 0.9 * held.nbytes
