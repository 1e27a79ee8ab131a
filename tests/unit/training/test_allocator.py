"""What a step frees stays with the process: the next step finds its pages, in the main thread and in others."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = """
import resource, sys, threading
import numpy as np
from orchestration.training import allocator

def step():
    kept = [np.ones(2**18) for _ in range(48)]  # 2 MB each, 96 MB in all

def steps():
    if sys.argv[1] == "keep":
        assert allocator.keep()
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)

if sys.argv[2] == "thread":
    other = threading.Thread(target=steps)
    other.start()
    other.join()
else:
    steps()
"""


def _faults(*how: str) -> int:
    """Page faults a step."""
    told = subprocess.run([sys.executable, "-c", STEPS, *how], check=True, capture_output=True, text=True)
    return int(told.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_step_finds_the_pages_that_the_last_one_freed(where: str) -> None:
    assert _faults("keep", where) < 200  # a page is 4 KB: 96 MB are 24,576
    assert _faults("leave", where) > 1000
