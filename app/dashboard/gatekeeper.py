"""Who gets in: one pure ASGI layer around everything, the web socket included, and the page that asks for the key.

The page needs no script, and nothing of the dashboard itself is served before the key was given.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from app.api.auth import admit_admin
from app.dashboard.render import render
from app.dashboard.sessions import LIFE_S, Sessions, Tries, same
from app.errors import PolicyError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from app.dashboard.config import Config

COOKIE = "sluice_dashboard"
LOGIN, LOGOUT, STATIC, LIVE = "/login", "/logout", "/static/", "/health/live"
_BODY_LIMIT = 8192
_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The browser itself keeps pages from loading anything from elsewhere. Vue compiles templates: so ``unsafe-eval``."""
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


class Gatekeeper:
    """The outermost layer.

    Args:
        app: what is behind it.
        config: has the key in force.
    """

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._config = config
        self._sessions = Sessions()
        self._tries = Tries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or send it to the page that asks for the key."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        guarded = _guarded(send)
        if answer is None:
            await self._app(scope, receive, guarded)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401})
        else:
            await answer(scope, receive, guarded)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """Return what a request is answered with before it reaches anything, or None where it may pass."""
        path, headers = scope["path"], dict(scope["headers"])
        if path == LIVE:
            return PlainTextResponse("live")
        if path.startswith(STATIC):
            return None
        if _from_elsewhere(headers):
            return PlainTextResponse("This came from a page of another host.", 403)
        if not self._config.admin_key:
            return self._by_place(scope, headers)
        if path == LOGIN:
            return await self._login(scope, receive, headers)
        token = _token(headers)
        if path == LOGOUT:
            self._sessions.close(token)
            return _leaving(RedirectResponse(LOGIN, 303))
        if self._sessions.valid(token, self._config.admin_key):
            return None
        return _asked(scope)

    def _by_place(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """Where no ADMIN_KEY is set, this machine alone gets in, as at the admin endpoints."""
        try:
            admit_admin(scope, headers, self._config.settings)
        except PolicyError as error:
            return HTMLResponse(render("refused.html", message=error.message), 403)
        return RedirectResponse("/", 303) if scope["path"] in {LOGIN, LOGOUT} else None

    async def _login(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Response:
        following = _inner(parse_qs(scope["query_string"].decode("latin-1")).get("next", ["/"])[0])
        if scope["method"] != "POST":
            return _login_page(following)
        address = (scope.get("client") or ("",))[0]
        wait_s = self._tries.wait_s(address)
        if wait_s > 0:
            return _login_page(following, f"Too many wrong keys. Try again in {wait_s:.0f} seconds.", 429)
        key = parse_qs((await _body(receive)).decode("utf-8", "replace")).get("key", [""])[0]
        if not same(key, self._config.admin_key):
            self._tries.failed(address)
            return _login_page(following, "That is not the ADMIN_KEY of this Sluice.", 401)
        answer = RedirectResponse(following, 303)
        secure = scope.get("scheme") == "https" or headers.get(b"x-forwarded-proto") == b"https"
        token = self._sessions.open(self._config.admin_key)
        answer.set_cookie(COOKIE, token, int(LIFE_S), httponly=True, samesite="strict", secure=secure)
        return answer


def _guarded(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return sending


def _from_elsewhere(headers: dict[bytes, bytes]) -> bool:
    """Whether a page of another origin sent this; a proxy may have changed the host, and says so."""
    origin = headers.get(b"origin")
    if origin is None:
        return False
    hosts = {headers.get(b"host", b""), headers.get(b"x-forwarded-host", b"")}
    try:
        return urlsplit(origin).netloc not in hosts
    except ValueError:
        return True


def _token(headers: dict[bytes, bytes]) -> str:
    try:
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _asked(scope: Scope) -> Response:
    """Ask for the key; what is no page is only refused."""
    if scope["type"] == "websocket" or scope["method"] != "GET" or scope["path"].startswith("/_nicegui"):
        return PlainTextResponse("Log in first.", 401)
    following = "" if scope["path"] == "/" else f"?next={quote(scope['path'])}"
    return RedirectResponse(f"{LOGIN}{following}", 303)


def _inner(path: str) -> str:
    """Return a path of this host; anything else is the first page."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _login_page(following: str, trouble: str = "", status: int = 200) -> Response:
    page = render("login.html", trouble=trouble, action=f"{LOGIN}?next={quote(following)}")
    return HTMLResponse(page, status, {"cache-control": "no-store"})


def _leaving(answer: Response) -> Response:
    answer.delete_cookie(COOKIE)
    return answer


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) < _BODY_LIMIT:
        message: dict[str, Any] = dict(await receive())
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body
