"""The file that names a provider of log-ins, and who may enter."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.login import may_enter, read_login

WHOLE = """[auth]
client_id = "winnow"
client_secret = "kept"
server_metadata_url = "https://id.example/.well-known/openid-configuration"
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_the_file_names_the_provider_and_who_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "login.toml", WHOLE + 'allowed = ["Ada@Example.org "]\n')
    found = read_login(path, "s" * 40)
    assert found.allowed == ("ada@example.org",)
    assert 'redirect_uri = "http://localhost:8511/oauth2callback"' in found.secrets(8511)
    assert f'cookie_secret = "{"s" * 40}"' in found.secrets(8511)
    assert may_enter("ada@example.org", found.allowed) and not may_enter("bob@example.org", found.allowed)
    assert may_enter("bob@example.org", ()) and not may_enter("", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[auth", "is not TOML"),
        ("client_id = 'x'", "needs one table"),
        (WHOLE + "redirect_uri = 'http://evil.example'", "unknown: redirect_uri"),
        (WHOLE.replace("client_secret", "secret"), "unknown: secret"),
        (WHOLE.replace('client_secret = "kept"\n', ""), "has no client_secret"),
        (WHOLE.replace("https://", "http://"), "is not an https:// address"),
        (WHOLE + 'cookie_secret = "short"', "under 32 characters"),
        (WHOLE + "allowed = 'ada'", "no list of e-mail addresses"),
        (WHOLE + "allowed = [3]", "no list of e-mail addresses"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        read_login(write(tmp_path / "login.toml", text), "s" * 40)
    assert "\n" not in str(error.value)


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "login.toml", WHOLE)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        read_login(path, "s" * 40)
