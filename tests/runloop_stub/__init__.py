"""A stub of Runloop: its API and its tunnels on loopback, with boxes whose commands really run."""

from tests.runloop_stub.box import StubBox
from tests.runloop_stub.server import RunloopStub

__all__ = ["RunloopStub", "StubBox"]
