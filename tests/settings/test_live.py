from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.settings import ConfigError, Live, Settings


@pytest.fixture
def env(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text("MODEL_LARGE=groq/one\n")
    return path


def _change(env: Path, text: str | bytes) -> None:
    stamp = env.stat().st_mtime_ns
    env.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(env, ns=(stamp, stamp + 1_000_000))


def test_a_change_is_taken_once_it_rests(env: Path) -> None:
    live = Live(env)
    before = live.current
    assert live.poll() is None
    _change(env, "MODEL_LARGE=groq/two\n")
    assert live.poll() is None
    assert live.current is before
    assert live.poll() is True
    assert (live.current.model_large, live.generation, live.error) == ("groq/two", 1, None)
    assert live.poll() is None


def test_half_a_write_is_never_read(env: Path) -> None:
    live = Live(env)
    for text in ("MODEL_", "MODEL_LARGE=", "MODEL_LARGE=groq/tw"):
        _change(env, text)
        assert live.poll() is None
    assert live.current.model_large == "groq/one"


def test_what_others_ask_for_waits_for_a_rest_too(env: Path) -> None:
    live = Live(env)
    live.reload_soon()
    _change(env, "MODEL_")
    assert live.poll() is None
    _change(env, "MODEL_LARGE=groq/one\n")
    assert live.poll() is None
    assert live.poll() is True
    assert live.poll() is None
    live.reload_soon()
    assert live.poll() is True


class _Overtaken(Live):
    """A writer begins anew just as the file is read."""

    again: str | None = None

    def _read(self) -> Settings | ConfigError:
        if self.again is not None:
            _change(self.env_file, self.again)
            self.again = None
        return super()._read()


def test_what_is_written_while_it_is_read_waits_for_the_next_rest(env: Path) -> None:
    live = _Overtaken(env)
    _change(env, "MODEL_LARGE=groq/two\n")
    assert live.poll() is None
    live.again = "MODEL_"
    assert live.poll() is None
    assert (live.current.model_large, live.error) == ("groq/one", None)
    _change(env, "MODEL_LARGE=groq/three\n")
    assert live.poll() is None
    assert live.poll() is True
    assert live.current.model_large == "groq/three"


@pytest.mark.parametrize("broken", ["PORT=x\n", "MODEL_LARGE=nowhere/x\n", b"\xff\xfe\x00", "BACKENDS=x", "ROLES={"])
def test_a_broken_edit_changes_nothing_and_is_told(env: Path, broken: str | bytes) -> None:
    live = Live(env)
    before = live.current
    _change(env, broken)
    live.poll()
    assert live.poll() is False
    assert live.current is before
    assert live.generation == 0
    assert live.error
    _change(env, "MODEL_LARGE=groq/one\n# mended")
    live.poll()
    assert live.poll() is True
    now: Live = live
    assert now.error is None
    assert live.current.model_large == "groq/one"


def test_a_file_may_be_replaced(env: Path) -> None:
    live = Live(env)
    other = env.with_name("new")
    other.write_text("MODEL_LARGE=groq/two\n")
    other.replace(env)
    live.poll()
    assert live.poll() is True
    assert live.current.model_large == "groq/two"


def test_a_file_may_appear(tmp_path: Path) -> None:
    live = Live(tmp_path / ".env")
    live.env_file.write_text("PORT=9\n")
    live.poll()
    assert live.poll() is True
    assert live.current.port == 9


def test_a_bad_file_at_the_start_is_an_error(env: Path) -> None:
    env.write_text("PORT=x\n")
    with pytest.raises(ConfigError, match="PORT"):
        Live(env)


def test_a_reload_without_a_change_keeps_the_snapshot(env: Path) -> None:
    live = Live(env)
    before = live.current
    assert before.chains
    assert live.reload()
    assert live.current is before
    assert live.generation == 0
