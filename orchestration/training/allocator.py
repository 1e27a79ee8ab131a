"""What a step frees stays with the process for the next step. Takes nothing; sets the C library's allocator. Called by the loop before
anything is built; knows no tensors.

glibc gives the top of the heap back to the kernel once it is larger than a few megabytes, and takes large pieces from it one by one: a step of
MiniLM over 400 tokens came to 3,300 page faults in a thread and 12,000 in the main one, some 4 microseconds each. Other C libraries and
systems are left as they are."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
LARGEST = 2**31 - 1
HEAP = 2**26  # bytes of a thread's heap: one that would be left with less room than that is not given back


def keep() -> bool:
    """True where it could be set."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(TRIM_THRESHOLD, LARGEST), mallopt(MMAP_THRESHOLD, 2**30), mallopt(TOP_PAD, HEAP)])
