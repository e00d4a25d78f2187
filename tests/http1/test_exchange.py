"""One request and its response."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

import pytest

from app.http1.exchange import Caller, Exchange, caller_of
from tests.http1.site import Receive, Send, answer_with, body_of, get, post, serving, until


def caller(scope: dict[str, Any]) -> Caller:
    """Return who asks."""
    found = caller_of(scope)
    assert found is not None
    return found


# -- the request -------------------------------------------------------------------------------------------------------


async def test_large_bodies_come_whole_to_an_app_that_takes_its_time() -> None:
    async def app(_: dict[str, Any], receive: Receive, send: Send) -> None:
        digest, size = hashlib.sha256(), 0
        while True:
            await asyncio.sleep(0)
            message = await receive()
            digest.update(message["body"])
            size = max(size, len(message["body"]))
            if not message["more_body"]:
                break
        await answer_with(send, digest.digest(), x_largest=str(size))

    body = bytes(range(256)) * 20_000
    chunks = b"".join(b"%x\r\n%b\r\n" % (100_000, body[at : at + 100_000]) for at in range(0, 5_100_000, 100_000))
    async with serving(app) as site:
        line = await site.open()
        told = await line.ask(post(body))
        assert told.body == hashlib.sha256(body).digest()
        assert int(told.headers["x-largest"]) < 400_000
        told = await line.ask(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert told.body == hashlib.sha256(body[:5_100_000]).digest()


async def test_a_body_of_many_small_chunks() -> None:
    async def app(_: dict[str, Any], receive: Receive, send: Send) -> None:
        await answer_with(send, await body_of(receive))

    async with serving(app) as site:
        body = bytes(range(256)) * 100
        chunks = b"".join(b"1\r\n%c\r\n" % each for each in body)
        told = await site.ask(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert told.body == body


async def test_a_body_nobody_takes_is_not_read_on() -> None:
    waits: list[int] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        exchange = caller_of(scope)
        assert isinstance(exchange, Exchange)
        await until(lambda: len(exchange.body) > 65_536)
        for _ in range(200):
            await asyncio.sleep(0)
        waits.append(len(exchange.body))
        assert len((await receive())["body"]) == waits[0]
        await until(lambda: len(exchange.body) > 65_536)  # it is read on once there is room
        await answer_with(send, b"enough", connection="close")

    async with serving(app) as site:
        line = await site.open()
        line.write(post(bytes(30_000_000)))
        assert (await line.told()).body == b"enough"
        line.writer.transport.abort()
    assert waits[0] < 400_000


async def test_an_answer_before_the_body_has_come_drops_the_rest_of_it() -> None:
    async def app(scope: dict[str, Any], _: Receive, send: Send) -> None:
        await answer_with(send, scope["path"].encode())

    async with serving(app) as site:
        line = await site.open()
        whole = post(b"0" * 500_000, path="/a")
        assert (await line.ask(whole[:100_000])).body == b"/a"
        line.write(whole[100_000:] + get("/b"))
        assert (await line.told()).body == b"/b"


async def test_who_is_refused_in_mid_body_still_hears_why() -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        await answer_with(send, b"too large", 413, connection="close")

    async with serving(app) as site:
        line = await site.open()
        line.write(post(bytes(3_000_000)))
        told = await line.told()
        assert (told.status, told.body) == (413, b"too large")
        assert await line.ends()


_EXPECTS = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n"


async def test_who_expects_leave_gets_it_when_the_body_is_wanted() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(_: dict[str, Any], receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await answer_with(send, await body_of(receive))

    async with serving(app) as site:
        line = await site.open()
        line.write(_EXPECTS)
        await begun.wait()
        go_on.set()
        assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.write(b"he")
        line.write(b"llo")
        assert (await line.told()).body == b"hello"
        assert (await line.ask(_EXPECTS + b"again")).body == b"again"  # it came by itself: no leave is needed


async def test_who_expects_leave_and_is_answered_without_sends_no_body() -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        await answer_with(send, b"no", 401)

    async with serving(app) as site:
        line = await site.open()
        told = await line.ask(_EXPECTS)
        assert (told.status, told.headers["connection"]) == (401, "close")
        assert await line.ends()


# -- the response ------------------------------------------------------------------------------------------------------


async def test_bodies_without_a_length_come_in_chunks() -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(app) as site:
        line = await site.open()
        for _ in range(2):
            told = await line.ask(get())
            assert (told.body, told.headers["transfer-encoding"]) == (b"one two", "chunked")
        old = await site.open()
        old.write(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = (await old.reader.read()).partition(b"\r\n\r\n")
        assert body == b"one two"
        assert b"chunked" not in head


async def test_some_responses_have_no_body() -> None:
    async def app(scope: dict[str, Any], _: Receive, send: Send) -> None:
        await answer_with(send, b"hello", {"/204": 204, "/304": 304}.get(scope["path"], 200))

    async with serving(app) as site:
        line = await site.open()
        for path, status in (("/204", 204), ("/304", 304)):
            assert (await line.ask(get(path))).status == status
        line.write(get().replace(b"GET", b"HEAD"))
        assert (await line.told(head=True)).headers["content-length"] == "5"
        assert (await line.ask(get())).body == b"hello"


async def test_headers_of_any_app() -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        headers = ((b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"Close"))
        await send({"type": "http.response.start", "status": 299, "headers": (each for each in headers)})
        await send({"type": "http.response.body", "body": bytearray(b"ok")})

    async with serving(app) as site:
        line = await site.open()
        told = await line.ask(get())
        assert (told.status, told.body) == (299, b"ok")
        assert {name for name in told.headers if name != "date"} == {"content-length", "connection"}
        assert await line.ends()


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nset-cookie: b")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\rb")],
        [(b"x", b"a\0b")],
        [(b"x\r\ny", b"a")],
        [(b"content-length", b"2"), (b"content-length", b"3")],
        [(b"content-length", b"two")],
        [(b"content-length", b"1")],
        [(b"content-length", b"3")],
    ],
)
async def test_what_would_be_no_response_is_a_500(headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    with caplog.at_level(logging.ERROR):
        async with serving(app) as site:
            line = await site.open()
            told = await line.ask(get())
            assert (told.status, told.json["error"]["code"]) == (500, "internal_error")
            assert await line.ends()
    assert "bug in the app" in caplog.text


@pytest.mark.parametrize("pieces", [[b"ab"], [b"ab", b"cd"], [b"ab", b"c", b"de"]])
async def test_a_length_that_was_told_wrong_cuts_the_connection(pieces: list[bytes]) -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"" if len(pieces) == 1 else b"more"})

    async with serving(app) as site:
        line = await site.open()
        line.write(get())
        body = (await line.reader.read()).partition(b"\r\n\r\n")[2]
        assert body == b"".join(pieces)[: len(body)]
        assert len(body) <= 4


@pytest.mark.parametrize("begins", ["not", "head", "body", "whole"])
@pytest.mark.parametrize("raises", [False, True])
async def test_an_app_that_fails(begins: str, raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        if begins != "not":
            await send({"type": "http.response.start", "status": 200})
        if begins in {"body", "whole"}:
            await send({"type": "http.response.body", "body": b"begun", "more_body": begins == "body"})
        if raises:
            raise LookupError

    with caplog.at_level(logging.ERROR):
        async with serving(app) as site:
            line = await site.open()
            if begins == "body":
                with pytest.raises(asyncio.IncompleteReadError):
                    await line.ask(get())
            elif begins == "whole":
                assert [(await line.ask(get())).body for _ in range(2)] == [b"begun", b"begun"]
            else:
                assert (await line.ask(get())).status == 500
                assert await line.ends()
            old = await site.open()
            old.write(b"GET / HTTP/1.0\r\n\r\n")
            if begins == "body":  # else it would look whole
                with pytest.raises(ConnectionError):
                    await old.reader.read()
    assert bool(caplog.records) == (raises or begins != "whole")


async def test_a_head_fails_without_a_body() -> None:
    async def app(_: dict[str, Any], __: Receive, ___: Send) -> None:
        raise LookupError

    async with serving(app) as site:
        line = await site.open()
        line.write(get().replace(b"GET", b"HEAD"))
        assert (await line.told(head=True)).status == 500
        assert await line.ends()


@pytest.mark.parametrize(
    "kinds",
    [["http.response.body"], ["http.response.start"] * 2, ["websocket.close"], ["http.response.start", "nonsense"]],
)
async def test_messages_out_of_order_are_errors(kinds: list[str], caplog: pytest.LogCaptureFixture) -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        for kind in kinds:
            await send({"type": kind, "status": 200})

    async with serving(app) as site:
        assert (await site.ask(get())).status == 500
    assert "Unexpected ASGI message" in caplog.text


async def test_a_message_after_the_last_is_an_error() -> None:
    errors: list[BaseException] = []

    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        await answer_with(send, b"whole")
        try:
            await send({"type": "http.response.body"})
        except RuntimeError as error:
            errors.append(error)

    async with serving(app) as site:
        assert (await site.ask(get())).body == b"whole"
    assert len(errors) == 1


# -- the caller --------------------------------------------------------------------------------------------------------


async def test_a_slow_reader_is_waited_for() -> None:
    paused = asyncio.Event()
    piece = b"0" * 50_000

    async def app(scope: dict[str, Any], __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        written = 0
        while caller(scope).write_now(piece):
            written += 1
        paused.set()
        for _ in range(written, 1000):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(app) as site:
        line = await site.open()
        line.write(get())
        await asyncio.wait_for(paused.wait(), 10)
        assert (await line.told()).body == b"begun" + piece * 1000


async def test_a_slow_reader_may_leave() -> None:
    ended, paused = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        while not caller(scope).gone:
            if not caller(scope).write_now(bytes(50_000)):
                paused.set()
            await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})
        ended.set()

    async with serving(app) as site:
        line = await site.open()
        line.write(get())
        await line.reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(paused.wait(), 10)
        line.writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 5)


async def test_what_may_be_written_now() -> None:
    seen: list[bool] = []

    async def app(scope: dict[str, Any], _: Receive, send: Send) -> None:
        write_now = caller(scope).write_now
        seen.append(write_now(b"before the head"))
        await send({"type": "http.response.start", "status": 200})
        seen.append(write_now(b"before the body"))
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        seen.append(write_now(b""))
        seen.append(write_now(b"two"))
        await send({"type": "http.response.body"})
        seen.append(write_now(b"after the end"))

    async with serving(app) as site:
        line = await site.open()
        told = await line.ask(get())
        assert told.body == b"one two"
        assert seen == [False, False, False, True, False]
        seen.clear()
        line.write(get().replace(b"GET", b"HEAD"))
        assert (await line.told(head=True)).status == 200
        assert (await line.ask(get())).body == b"one two"
        assert seen == [False] * 5 + [False, False, False, True, False]


async def test_a_caller_that_leaves() -> None:
    begun, left = asyncio.Event(), asyncio.Event()
    seen: list[object] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        who = caller(scope)
        assert not who.gone
        who.on_gone = lambda: seen.append(who.gone)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        assert (await receive())["type"] == "http.request"
        waits = [asyncio.ensure_future(receive()) for _ in range(3)]
        waits.pop().cancel()
        begun.set()
        seen.extend([(await each)["type"] for each in waits])
        seen.append(who.write_now(b"to nobody"))
        await send({"type": "http.response.body", "body": b"to nobody"})
        seen.append((await receive())["type"])
        left.set()

    async with serving(app) as site:
        line = await site.open()
        line.write(get())
        await begun.wait()
        line.writer.transport.abort()
        await asyncio.wait_for(left.wait(), 5)
    assert seen == [True, "http.disconnect", "http.disconnect", False, "http.disconnect"]


async def test_who_leaves_after_a_large_body_is_seen_to() -> None:
    taken, left = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, _: Send) -> None:
        caller(scope).on_gone = left.set
        await until(lambda: not caller_more(scope))  # all of it is there, and more than is read without a pause
        await body_of(receive)
        taken.set()
        await left.wait()

    def caller_more(scope: dict[str, Any]) -> bool:
        exchange = caller_of(scope)
        return isinstance(exchange, Exchange) and exchange.more

    async with serving(app) as site:
        line = await site.open()
        line.write(post(bytes(100_000)))
        await asyncio.wait_for(taken.wait(), 5)
        line.writer.transport.abort()
        await asyncio.wait_for(left.wait(), 5)


async def test_a_slow_reader_does_not_keep_the_server_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    paused = asyncio.Event()

    async def app(scope: dict[str, Any], _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        while True:
            if not caller(scope).write_now(bytes(50_000)):
                paused.set()
            await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})

    async with serving(app) as site:
        line = await site.open()
        line.write(get())
        await line.reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(paused.wait(), 10)
        await asyncio.sleep(0)
        for each in list(site.server.server_state.tasks):
            each.cancel()
        await until(lambda: not site.server.server_state.tasks and not site.server.server_state.connections)
    assert not [each for each in caplog.records if each.name == "sluice"]


async def test_who_leaves_after_the_answer_is_no_deserter() -> None:
    seen: list[str] = []
    done, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await body_of(receive)
        caller(scope).on_gone = lambda: seen.append("gone")
        await answer_with(send, b"whole")
        assert (await receive())["type"] == "http.disconnect"
        await done.wait()
        assert not caller(scope).gone
        ended.set()

    async with serving(app) as site:
        line = await site.open()
        assert (await line.ask(get())).body == b"whole"
        line.writer.close()
        await until(lambda: not site.server.server_state.connections)
        done.set()
        await asyncio.wait_for(ended.wait(), 5)
    assert seen == []
