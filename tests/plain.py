"""For HTTP clients that never speak TLS: reading the certificates of all authorities takes longer than most tests."""

from __future__ import annotations

import ssl

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, and is made in no time."""
