from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from cluster.auth import ensure_token, find_token, token_path
from cluster.errors import ClusterError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EAGLERAY_TOKEN", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # so that what a test writes there is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_first_start_writes_a_token_that_only_the_account_can_read(home: Path) -> None:
    assert find_token() is None
    ensure_token()
    path = home / ".ray" / "auth_token"
    assert token_path() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = find_token()
    assert token is not None
    assert (len(token.value), token.origin) == (64, str(path))
    assert token.value not in repr(token)


def test_a_token_that_is_there_is_kept(home: Path) -> None:
    ensure_token()
    before = token_path().read_text()
    ensure_token()
    assert token_path().read_text() == before
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_first_starts_at_once_agree_on_one_token(home: Path) -> None:
    seen: list[str] = []

    def start() -> None:
        ensure_token()
        seen.append(token_path().read_text())

    threads = [threading.Thread(target=start) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(seen) == 16
    assert len(set(seen)) == 1
    assert [path.name for path in (home / ".ray").iterdir()] == ["auth_token"]


def test_a_home_that_cannot_be_written_gives_a_token_for_this_process(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ray").write_text("a file where the folder should be")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / ".ray" / "deeper" / "auth_token"))
    monkeypatch.setattr("cluster.auth.find_token", lambda *_: None)
    ensure_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_tokens_are_looked_for_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "token"
    file.write_text(" from-file \n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert find_token().value == "from-file"
    for name in ("RAY_AUTH_TOKEN", "EAGLERAY_TOKEN", "MINE"):
        monkeypatch.setenv(name, name.lower())
        token = find_token("MINE" if name == "MINE" else None)
        assert token is not None
        assert (token.value, token.origin) == (name.lower(), f"the environment variable {name}")


def test_a_named_variable_that_is_not_set_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"environment variable NOT_THERE.* is not set"):
        find_token("NOT_THERE")


def test_an_empty_token_file_counts_as_none(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("\n")
    assert find_token() is None


def test_tokens_switched_off_stay_off(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ensure_token()
    assert not (home / ".ray").exists()
