"""What an engine imports, in the engine's order: importing this module is all that there is to do."""

from app.engine import runtime
from app.engine.settings import parse
from tests.engine.process import environment

runtime.prepare(parse([], environment()))

import app.engine.server  # noqa: E402, F401 - after mlx
