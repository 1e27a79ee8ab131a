"""Ray's tokens, so that the user need not know of them. A Ray that starts with `ray.init()` writes `~/.ray/auth_token`, and from
then on every cluster of that account asks for it; a client without `RAY_AUTH_MODE=token` is refused. Takes the
environment; gives the token to send and its origin. Called by the session and by the Jobs API client. Imports no Ray unless
it must."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError

HOW = "set EAGLERAY_TOKEN, or RAY_AUTH_TOKEN_PATH to a file, or put the cluster's token into ~/.ray/auth_token (`ray get-auth-token` on its head node prints it)"


@dataclass(frozen=True)
class Token:
    """`origin` says where `value` came from, for messages; the value itself is never printed."""

    value: str
    origin: str

    def __repr__(self) -> str:
        return f"Token(from {self.origin})"


def token_path() -> Path:
    """Where Ray itself looks: RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def find_token(token_env: str | None = None) -> Token | None:
    """The first of: the variable named by `token_env`, EAGLERAY_TOKEN, RAY_AUTH_TOKEN, the token file. None: there is none.

    Raises ClusterError where `token_env` names a variable that is not set, or the file cannot be read.
    """
    if token_env is not None and not os.environ.get(token_env, "").strip():
        raise ClusterError(
            f"the environment variable {token_env}, which should hold the cluster's token, is not set or empty"
        )
    for name in filter(None, (token_env, "EAGLERAY_TOKEN", "RAY_AUTH_TOKEN")):
        if value := os.environ.get(name, "").strip():
            return Token(value, f"the environment variable {name}")
    path = token_path()
    try:
        value = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: the cluster token cannot be read ({error}); {HOW}") from None
    return Token(value, str(path)) if value else None


def ensure_token() -> None:
    """Before an embedded Ray starts: a token that only this account can read, and no word about it.

    Ray would write the file itself, but readable by all and in place, so that two first starts at once can disagree.
    """
    quiet()
    if disabled() or find_token() is not None:
        _export()
        return
    path = token_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR), "w") as handle:
            handle.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # another process was first: its token counts
            os.link(aside, path)
        aside.unlink()
    except OSError:  # a home that cannot be written: the token lives as long as this process and its children
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def join_with_token(token_env: str | None = None) -> None:
    """Before joining a running cluster at an explicit address, where Ray itself never turns tokens on. A cluster that asks
    for none takes a client that sends one."""
    quiet()
    if disabled() or find_token(token_env) is None:
        return
    _export(token_env)
    os.environ["RAY_AUTH_MODE"] = "token"
    if "ray" in sys.modules:  # the mode was read when ray was imported: let it read again
        from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader, Config

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def disabled() -> bool:
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"


def quiet() -> None:
    """Ray warns at each start that tokens are on, or that they are off; `eagleray doctor` says it once instead."""
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)


def _export(token_env: str | None = None) -> None:
    """What only we know of (EAGLERAY_TOKEN, `token_env`) is handed to Ray and its children under Ray's own name."""
    token = find_token(token_env)
    if token is not None and token.origin != str(token_path()):
        os.environ["RAY_AUTH_TOKEN"] = token.value
