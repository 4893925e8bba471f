"""A small provider of OpenID Connect on localhost, written from the standard: what a log-in is tried against."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey


class Provider:
    """An OpenID Connect provider that lets in whoever `claims` says, after one click."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"email": "ada@example.org", "email_verified": True}
        self.key = RSAKey.generate_key(2048, parameters={"kid": "one"})
        self.codes: dict[str, dict[str, str]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(provider) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *given: object) -> None:
                pass

            def answer(self, content: str | dict[str, Any], kind: str = "application/json") -> None:
                body = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path == "/.well-known/openid-configuration":
                    self.answer(provider.metadata())
                elif url.path == "/keys":
                    self.answer({"keys": [provider.key.as_dict(private=False) | {"use": "sig", "alg": "RS256"}]})
                elif url.path == "/authorize":
                    code = secrets.token_urlsafe(8)
                    provider.codes[code] = query
                    back = f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"
                    self.answer(
                        f"<title>Provider</title><a id=in href='{back.replace('&', '&amp;')}'>Let me in</a>",
                        "text/html",
                    )
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                given = {name: values[0] for name, values in parse_qs(self.rfile.read(size).decode()).items()}
                basic = self.headers.get("Authorization", "")
                expected = "Basic " + base64.b64encode(b"winnow:kept").decode()
                asked = provider.codes.pop(given.get("code", ""), None)
                proof = base64.urlsafe_b64encode(hashlib.sha256(given.get("code_verifier", "").encode()).digest())
                if asked is None or basic != expected or asked["code_challenge"] != proof.decode().rstrip("="):
                    self.send_error(400)
                    return
                now = int(time.time())
                claims = {"iss": provider.issuer, "aud": "winnow", "sub": "1", "iat": now, "exp": now + 600}
                claims |= {"nonce": asked["nonce"], **provider.claims}
                token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, provider.key)
                self.answer({"access_token": "x", "token_type": "Bearer", "id_token": token, "expires_in": 600})

        return Handler

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
            "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }  # fmt: skip
