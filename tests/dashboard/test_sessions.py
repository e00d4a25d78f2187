from __future__ import annotations

from app.dashboard.sessions import LIFE_S, Sessions, Tries, same


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_session_lasts_a_day_of_work_and_no_longer() -> None:
    clock = _Clock()
    sessions = Sessions(clock)
    token = sessions.open("key")
    assert sessions.valid(token, "key")
    assert not sessions.valid(token + "x", "key")
    assert not sessions.valid("", "key")
    clock.now += LIFE_S - 1
    assert sessions.valid(token, "key")
    clock.now += 1
    assert not sessions.valid(token, "key")


def test_another_key_ends_the_sessions_of_the_old_one() -> None:
    sessions = Sessions()
    token = sessions.open("old")
    assert not sessions.valid(token, "new")


def test_who_leaves_is_out_and_others_are_not() -> None:
    sessions = Sessions()
    one, two = sessions.open("key"), sessions.open("key")
    sessions.close(one)
    sessions.close("never was")
    assert (sessions.valid(one, "key"), sessions.valid(two, "key")) == (False, True)


def test_sessions_are_bounded_and_the_oldest_goes() -> None:
    sessions = Sessions()
    tokens = [sessions.open("key") for _ in range(1001)]
    assert not sessions.valid(tokens[0], "key")
    assert sessions.valid(tokens[1], "key")
    assert sessions.valid(tokens[-1], "key")


def test_five_wrong_keys_a_minute_then_a_rest() -> None:
    clock = _Clock()
    tries = Tries(clock)
    for _ in range(5):
        assert tries.wait_s("a") == 0
        tries.failed("a")
        clock.now += 1
    assert tries.wait_s("a") == 55
    assert tries.wait_s("b") == 0
    clock.now += 55
    assert tries.wait_s("a") == 0


def test_addresses_are_bounded() -> None:
    tries = Tries()
    for number in range(3000):
        tries.failed(str(number))
    assert len(tries._failed) == 1000


def test_keys_are_the_same_or_not() -> None:
    assert same("schlüssel", "schlüssel")
    assert not same("", "x")
