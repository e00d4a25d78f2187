"""Who is calling: API keys for the calls, the admin key or this machine for the admin endpoints."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from app.errors import PolicyError, SluiceError

if TYPE_CHECKING:
    from app.call import KeyTerms
    from app.ledger.keys import Keys
    from app.settings import Settings

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_FORWARDING = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x-forwarded-host", b"via")

Headers = Mapping[bytes, bytes]


class Caller(NamedTuple):
    """Who is calling: a tenant, and what the key allows; None where that is everything."""

    tenant: str
    key: KeyTerms | None = None


async def authenticate(headers: Headers, settings: Settings, keys: Keys) -> Caller:
    """Return who is calling.

    Keys are looked up by their SHA-256, so that the time taken tells nothing of a key. As long as there are none, in
    API_KEYS or in the database, and KEYS_REQUIRED is off, anybody may call.

    Raises:
        PolicyError: 401, where keys are asked for and none or a wrong one came.
        SluiceError: 503, the keys cannot be read yet.
    """
    key = presented_key(headers)
    digest = hashlib.sha256(key).digest()
    tenant = settings.tenants.get(digest)
    if tenant is not None:
        return Caller(tenant)
    known = keys.are_known or await keys.known()
    terms = keys.find(digest)
    if terms is not None:
        return Caller(terms.tenant, terms)
    if not known and (key or not settings.api_keys):
        raise SluiceError(
            "The keys cannot be read: the database is away. Try again.",
            status=503,
            code="keys_unavailable",
            fault="sluice_keys_unavailable",
            retry_after_s=2,
        )
    if not (settings.api_keys or keys.any or settings.keys_required):
        return _ANYBODY
    raise PolicyError(
        "Incorrect API key provided. It is unknown, revoked, or its time is over."
        if key
        else "You didn't provide an API key. Send one of Sluice's keys as 'Authorization: Bearer KEY'.",
        status=401,
        type="invalid_request_error",
        code="invalid_api_key",
        fault="policy_unauthenticated",
    )


async def still_good(key_id: str, keys: Keys) -> KeyTerms:
    """Return what a key allows on whose behalf something is done later.

    Raises:
        PolicyError: 401, it was revoked, or its time is over.
    """
    await keys.known()
    terms = keys.of(key_id)
    if terms is None:
        raise PolicyError(
            "The key that this was asked with is revoked, or its time is over.",
            status=401,
            type="invalid_request_error",
            code="invalid_api_key",
            fault="policy_unauthenticated",
        )
    return terms


_ANYBODY = Caller("anonymous")


def presented_key(headers: Headers) -> bytes:
    """Return the key of ``Authorization: Bearer`` or Anthropic's ``x-api-key``; empty where there is none."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token:
        return token.strip()
    return headers.get(b"x-api-key", b"")


def admit_admin(scope: Mapping[str, Any], headers: Headers, settings: Settings) -> None:
    """Let an admin in: by ADMIN_KEY, or, where that is unset, from this machine and by nobody's hand but its own.

    A page in the operator's browser also comes from loopback: hence the looks at Origin and Host.

    Raises:
        PolicyError: 401 for a wrong key, 403 for a stranger.
    """
    if settings.admin_key is not None:
        if not hmac.compare_digest(presented_key(headers), settings.admin_key.get_secret_value().encode()):
            raise PolicyError(
                "This needs ADMIN_KEY: send it as 'Authorization: Bearer KEY'.",
                status=401,
                code="invalid_admin_key",
                fault="policy_unauthenticated",
            )
        return
    client = scope.get("client")
    if client is None or client[0] not in _LOOPBACK or any(name in headers for name in _FORWARDING):
        raise _stranger("Set ADMIN_KEY to use the admin endpoints from elsewhere than this machine.")
    origin = headers.get(b"origin")
    if _host(b"//" + headers.get(b"host", b"")) not in _LOOPBACK or (origin and _host(origin) not in _LOOPBACK):
        raise _stranger("Set ADMIN_KEY to use the admin endpoints from a web page of another host.")


def _host(url: bytes) -> str | None:
    try:
        return urlsplit(url.decode("latin-1")).hostname
    except ValueError:
        return None


def _stranger(message: str) -> PolicyError:
    return PolicyError(message, code="admin_forbidden", fault="policy_admin_forbidden")
