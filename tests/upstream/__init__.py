"""A scripted upstream that plays every backend, for tests and for the demo: ``async with Upstream() as up``."""

from tests.upstream.log import Attempt
from tests.upstream.server import Upstream

__all__ = ["Attempt", "Upstream"]
