"""How the command ends."""

from __future__ import annotations

import signal
import sys
import types

import pytest

from jobs import cli
from orchestration.training.interrupt import Interrupted


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), 130),
        (Interrupted(signal.SIGINT), 130),
        (Interrupted(signal.SIGTERM), 143),
        (SystemExit(int(signal.SIGTERM)), 143),  # what Ray makes of it outside a fit
        (SystemExit(3), 3),
    ],
)
def test_a_signal_ends_the_command_with_the_code_a_shell_tells(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = types.ModuleType("jobs.schema")

    def run() -> None:
        raise raised

    verb.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jobs.schema", verb)
    monkeypatch.setattr(sys, "argv", ["eagleray", "schema"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert "Traceback" not in capsys.readouterr().err
