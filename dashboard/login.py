"""Who may see anything, where a log-in is required: `winnow dashboard --login FILE`, by Streamlit's own OpenID Connect.

The file is read once, when the server starts. Every page stops at the log-in before it reads anything; who is logged in is
the author of what they decide.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st

LOGIN = "WINNOW_LOGIN"
"""The variable of the server's environment that says that there is a log-in: who is allowed, as a JSON list."""

_KEYS = {"client_id", "client_secret", "server_metadata_url", "cookie_secret", "allowed"}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_SHORTEST = 32
"""Characters of a cookie secret at least."""


@dataclass(frozen=True)
class Login:
    """A provider of log-ins. allowed: e-mail addresses in lower case; empty = whoever the provider lets in."""

    client_id: str
    client_secret: str
    server_metadata_url: str
    cookie_secret: str
    allowed: tuple[str, ...]

    def secrets(self, port: int) -> str:
        """What Streamlit reads, as TOML: the provider, and where it sends people back to."""
        values = {
            "redirect_uri": f"http://localhost:{port}/oauth2callback",
            "cookie_secret": self.cookie_secret,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "server_metadata_url": self.server_metadata_url,
        }
        return "\n".join(["[auth]", *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""])


def read_login(path: Path, cookie_secret: str) -> Login:
    """The provider that a file names.

    Args:   cookie_secret: what cookies are signed with where the file has none: log-ins then end with the server
    Raises: OSError for a file that cannot be read; ValueError for one that others may read, or whose content is wrong
    """
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{path} holds a secret, and others may read it; chmod 600 {path}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    given = content.get("auth")
    if not isinstance(given, dict) or (unknown := sorted({*given} - _KEYS)) or len(content) > 1:
        names = ", ".join(sorted(_KEYS))
        found = f"; unknown: {', '.join(unknown)}" if isinstance(given, dict) and unknown else ""
        raise ValueError(f"{path} needs one table [auth] with {names}{found}")
    texts = {"cookie_secret": cookie_secret, **{name: value for name, value in given.items() if name != "allowed"}}
    for name in sorted(_KEYS - {"allowed"}):
        if not isinstance(texts.get(name), str) or not texts[name]:
            raise ValueError(f"{path} has no {name}; it needs client_id, client_secret and server_metadata_url")
    if len(texts["cookie_secret"]) < _SHORTEST:
        raise ValueError(
            f"cookie_secret in {path} has under {_SHORTEST} characters; leave it out, or take a longer one"
        )
    url = urlsplit(texts["server_metadata_url"])
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOCAL):
        raise ValueError(f"server_metadata_url in {path} is not an https:// address")
    allowed = given.get("allowed", [])
    if not isinstance(allowed, list) or not all(isinstance(one, str) and one.strip() for one in allowed):
        raise ValueError(f'allowed in {path} is no list of e-mail addresses, such as ["ada@example.org"]')
    return Login(**texts, allowed=tuple(one.strip().lower() for one in allowed))


def is_required() -> bool:
    """Whether this server asks for a log-in."""
    return LOGIN in os.environ


def person() -> str:
    """Who is logged in: the verified e-mail address, in lower case; "" for nobody."""
    if not st.user.get("is_logged_in"):
        return ""
    email, verified = st.user.get("email"), st.user.get("email_verified", True)
    return email.strip().lower() if isinstance(email, str) and verified in (True, "true") else ""


def may_enter(who: str, allowed: Sequence[str]) -> bool:
    """Whether a person is among those allowed; everybody with an address where none is named."""
    return bool(who) and (not allowed or who in allowed)


def require() -> None:
    """End the page, with the log-in, for whoever may not see it. Called before anything is read."""
    if not is_required():
        return
    who = person()
    if may_enter(who, json.loads(os.environ[LOGIN])):
        return
    with st.container(key="empty"):
        if st.user.get("is_logged_in"):
            st.error("This account may not open this dashboard.", icon=":material/lock:")
            st.button("Log out", on_click=st.logout)
        else:
            st.markdown("#### Log in to open this dashboard")
            st.button("Log in", type="primary", icon=":material/login:", on_click=st.login)
    st.stop()
