"""The hang watch, in processes of its own: it ends them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest


def _run(code: str) -> tuple[int, str, str, float]:
    """(exit code, standard output, standard error, seconds)."""
    began = time.monotonic()
    whole = "import time, re\nfrom orchestration.training import watchdog\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


def test_a_process_that_stands_still_says_where_and_ends() -> None:
    code, out, err, seconds = _run(
        """
        def waits_for_a_peer():
            time.sleep(50)
        with watchdog.Watch(0.5, lambda text: print("told", text, flush=True)):
            waits_for_a_peer()
        """
    )
    assert code == watchdog_exit()
    assert out.startswith("told no progress for 0.5 s, in waits_for_a_peer (<string>:")
    assert "in waits_for_a_peer" in err  # every thread's stack, in the worker's log
    assert seconds < 40


def test_one_that_beats_goes_on_and_may_stand_still_afterwards() -> None:
    code, out, err, _ = _run(
        """
        with watchdog.Watch(0.6, lambda text: print("told", text)):
            for _ in range(12):
                time.sleep(0.1)
                watchdog.beat()
        time.sleep(1.2)
        print("done")
        """
    )
    assert (code, out) == (0, "done\n"), err


def test_a_driver_that_cannot_be_told_does_not_keep_it_alive() -> None:
    code, _, _, seconds = _run(
        """
        watchdog.TELL_S = 0.2
        with watchdog.Watch(0.3, lambda text: time.sleep(50)):
            time.sleep(50)
        """
    )
    assert code == watchdog_exit()
    assert seconds < 40


@pytest.mark.parametrize("kind", ["held"])
def test_a_library_that_keeps_pythons_lock_is_ended_too(kind: str) -> None:
    code, out, err, seconds = _run(
        """
        import ctypes
        watchdog.LATER_S = 0.5
        libc = ctypes.PyDLL(None)  # calls that keep the lock
        with watchdog.Watch(0.5, lambda text: print("told", text, flush=True)):
            time.sleep(0.1)
            libc.sleep(50)
        """
    )
    assert code == 1  # faulthandler's own
    assert not out
    assert "Timeout" in err
    assert seconds < 40


def watchdog_exit() -> int:
    from orchestration.training.watchdog import EXIT_CODE

    return EXIT_CODE
