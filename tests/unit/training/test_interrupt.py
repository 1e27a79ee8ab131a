"""Signals while a fit runs: counted, and told to whoever asks."""

from __future__ import annotations

import os
import signal
import threading
import time

from orchestration.training.interrupt import Interrupted, Interrupts


def test_the_first_signal_asks_and_the_second_demands() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        assert interrupts.first is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert (interrupts.first, interrupts.at_once) == (signal.SIGTERM, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert (interrupts.first, interrupts.at_once) == (signal.SIGTERM, True)
    assert signal.getsignal(signal.SIGTERM) is before


def test_patience_ends() -> None:
    with Interrupts(grace_s=0.05) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        assert interrupts.at_once


def test_in_another_thread_nothing_is_installed() -> None:
    found = []

    def enter() -> None:
        with Interrupts() as interrupts:
            found.append((interrupts.first, signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, before)]


def test_whatever_ends_on_ctrl_c_ends_on_both() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert [Interrupted(number).exit_code for number in (signal.SIGINT, signal.SIGTERM)] == [130, 143]
