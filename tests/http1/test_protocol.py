"""A caller's connection: what is a request, in which order requests are answered, and when the connection ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from functools import partial
from typing import Any

import pytest

from app.http1.protocol import Http1Protocol
from tests.http1.site import Line, Receive, Send, answer_with, body_of, echo, get, post, serving, until


async def test_a_connection_carries_one_request_after_another() -> None:
    async with serving(echo) as site:
        line = await site.open()
        for n in range(3):
            told = await line.ask(post(b"hello", f"X-N: {n}", path="/a?b=c"))
            assert told.status == 200
            assert "date" in told.headers
            assert "connection" not in told.headers
            assert (told.json["method"], told.json["path"], told.json["query"]) == ("POST", "/a", "b=c")
            assert told.json["headers"] == [["host", "x"], ["content-length", "5"], ["x-n", str(n)]]
            assert told.json["body"] == "hello"
        assert site.server.server_state.total_requests == 3


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/a%20b%2Fc?d%20e", "/root/a b/c", "/root/a%20b%2Fc", "d%20e"),
        ("/?", "/root/", "/root/", ""),
        ("//a//b?c?d", "/root//a//b", "/root//a//b", "c?d"),
        ("/a?b#c", "/root/a", "/root/a", "b"),
        ("http://elsewhere:1/a?b", "/root/a", "/root/a", "b"),
    ],
)
async def test_the_target_of_a_request(target: str, path: str, raw_path: str, query: str) -> None:
    async with serving(echo, root_path="/root") as site:
        told = (await site.ask(get(target))).json
    assert (told["path"], told["raw_path"], told["query"], told["root_path"]) == (path, raw_path, query, "/root")


async def test_requests_sent_at_once_are_answered_in_order_and_one_at_a_time() -> None:
    under_way, most = 0, 0

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        await answer_with(send, scope["path"].encode() + await body_of(receive))

    async with serving(app) as site:
        line = await site.open()
        line.write(b"".join(post(b"!", path=f"/{n}") for n in range(60)))
        assert [(await line.told()).body for _ in range(60)] == [b"/%d!" % n for n in range(60)]
        assert most == 1
        assert (await line.ask(get("/end"))).body == b"/end"


async def test_so_many_requests_at_once_are_too_many() -> None:
    async with serving(echo) as site:
        line = await site.open()
        line.write(get("/n") * 200)
        for _ in range(101):
            assert (await line.told()).json["path"] == "/n"
        assert (await line.told()).status == 400
        assert await line.ends()


async def test_who_sent_more_requests_is_seen_to_leave() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def app(_: dict[str, Any], receive: Receive, __: Send) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with serving(app) as site:
        line = await site.open()
        line.write(get() + get())
        await begun.wait()
        line.writer.transport.abort()
        await asyncio.wait_for(left.wait(), 5)


async def test_requests_and_connections_leave_no_garbage() -> None:
    async with serving(echo) as site:
        await site.ask(post(b"hello"))
        gc.collect()
        gc.disable()
        try:
            line = await site.open()
            for _ in range(3):
                line.write(post(b"hello") + get("/a", "Connection: Upgrade", "Upgrade: x"))
                assert [(await line.told()).status for _ in range(2)] == [200, 200]
            known = [weakref.ref(each) for each in site.server.server_state.connections]
            before = len(known)
            line.writer.close()
            await until(lambda: len(site.server.server_state.connections) < before)
            await until(lambda: sum(each() is not None for each in known) == before - 1)
        finally:
            gc.enable()


# -- the connection's end ----------------------------------------------------------------------------------------------


async def test_idle_connections_are_closed_and_busy_ones_are_not() -> None:
    go_on = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] == "/busy":
            await go_on.wait()
        await echo(scope, receive, send)

    async with serving(app, timeout_keep_alive=0.05) as site:
        busy, unused, halfway, used = [await site.open() for _ in range(4)]
        busy.write(get("/busy"))
        halfway.write(b"GET / HT")
        assert (await used.ask(get())).status == 200
        for idle in (unused, halfway, used):
            assert await asyncio.wait_for(idle.ends(), 5)
        go_on.set()
        assert (await busy.told()).status == 200
        assert (await busy.ask(get())).status == 200


async def test_who_asks_to_close_is_closed_and_asks_no_more() -> None:
    async with serving(echo) as site:
        line = await site.open()
        line.write(get("/last", "Connection: close") + get("/never"))
        told = await line.told()
        assert (told.json["path"], told.headers["connection"]) == ("/last", "close")
        assert await line.ends()


@pytest.mark.parametrize("headers", ["", "Connection: keep-alive\r\n"])
async def test_http_1_0_is_closed(headers: str) -> None:
    async with serving(echo) as site:
        line = await site.open()
        told = await line.ask(f"GET / HTTP/1.0\r\n{headers}\r\n".encode())
        assert (told.json["http_version"], told.headers["connection"]) == ("1.0", "close")
        assert await line.ends()


async def test_half_a_close_is_a_whole_one() -> None:
    gone = asyncio.Event()

    async def app(_: dict[str, Any], receive: Receive, __: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with serving(app) as site:
        line = await site.open()
        line.write(get())
        line.writer.write_eof()
        await asyncio.wait_for(gone.wait(), 5)
        assert await line.ends()


async def test_shutting_down_closes_what_is_idle_and_lets_the_rest_be_answered() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await answer_with(send, b"whole")

    async with serving(app) as site:
        idle, busy, lined_up = [await site.open() for _ in range(3)]
        busy.write(get())
        lined_up.write(get() + get())
        await begun.wait()
        state = site.server.server_state
        await until(lambda: len(state.connections) == 3 and len(state.tasks) == 2)
        for each in list(state.connections):
            each.shutdown()
        assert await idle.ends()
        go_on.set()
        told = [await busy.told(), await lined_up.told(), await lined_up.told()]
        assert [(each.body, each.headers.get("connection")) for each in told] == [
            (b"whole", "close"),
            (b"whole", None),
            (b"whole", "close"),
        ]
        assert await busy.ends()
        assert await lined_up.ends()


async def test_an_app_that_goes_on_after_its_answer_holds_up_nobody() -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], _: Receive, send: Send) -> None:
        await answer_with(send, scope["path"].encode())
        if scope["path"] == "/slow":
            await go_on.wait()
            ended.set()

    async with serving(app) as site:
        line = await site.open()
        line.write(get("/slow") + get("/a"))
        assert [(await line.told()).body for _ in range(2)] == [b"/slow", b"/a"]
        assert (await line.ask(get("/b"))).body == b"/b"
        go_on.set()
        await asyncio.wait_for(ended.wait(), 5)
        assert (await line.ask(get("/c"))).body == b"/c"


async def test_a_task_that_is_cancelled_between_requests_costs_none() -> None:
    async with serving(echo) as site:
        line = await site.open()
        assert (await line.ask(get())).status == 200
        for each in list(site.server.server_state.tasks):
            each.cancel()
        await until(lambda: not site.server.server_state.tasks)
        assert (await line.ask(get())).status == 200


# -- what is no request ------------------------------------------------------------------------------------------------


async def _is_refused(line: Line, status: int, code: str) -> None:
    told = await line.told()
    assert (told.status, told.headers["content-type"], told.headers["connection"]) == (
        status,
        "application/json",
        "close",
    )
    assert set(told.json["error"]) == {"message", "type", "param", "code"}
    assert (told.json["error"]["type"], told.json["error"]["code"]) == ("invalid_request_error", code)
    assert await line.ends()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused(data: bytes) -> None:
    async with serving(echo) as site:
        line = await site.open()
        line.write(data)
        await _is_refused(line, 400, "invalid_http")


async def test_a_refusal_comes_after_the_answers_to_what_came_before() -> None:
    async with serving(echo) as site:
        line = await site.open()
        line.write(get("/a") + get("/b") + b"nonsense\r\n\r\n")
        assert [(await line.told()).json["path"] for _ in range(2)] == ["/a", "/b"]
        await _is_refused(line, 400, "invalid_http")


_BROKEN = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense"


async def test_a_request_whose_body_breaks_is_refused_and_the_app_told() -> None:
    ended: list[object] = []

    async def app(_: dict[str, Any], receive: Receive, __: Send) -> None:
        ended.append(await body_of(receive))
        ended.append((await receive())["type"])

    async with serving(app) as site:
        line = await site.open()
        line.write(_BROKEN)
        await _is_refused(line, 400, "invalid_http")
        assert ended[-1] == "http.disconnect"


async def test_a_body_that_breaks_under_its_answer_cuts_it() -> None:
    async def app(_: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serving(app) as site:
        line = await site.open()
        line.write(_BROKEN[:-8])
        await line.reader.readuntil(b"begun")
        line.write(b"nonsense")
        assert await line.reader.read() == b"\r\n"


async def test_a_body_that_breaks_in_the_line_is_refused_in_turn() -> None:
    async with serving(echo) as site:
        line = await site.open()
        line.write(get("/a") + _BROKEN)
        assert (await line.told()).json["path"] == "/a"
        await _is_refused(line, 400, "invalid_http")


async def test_heads_have_a_limit() -> None:
    async with serving(echo) as site:
        line = await site.open()
        assert (await line.ask(get("/", *[f"X-{n}: {'x' * 1000}" for n in range(60)]))).status == 200
        line.write(get("/", *[f"X-{n}: {'x' * 1000}" for n in range(70)]))
        await _is_refused(line, 431, "request_headers_too_large")


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nX-",
        b"GET / HTTP/1.1\r\nX: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1;",
    ],
)
async def test_what_never_ends_is_refused(begin: bytes) -> None:
    async with serving(echo) as site:
        line = await site.open()
        line.write(begin)
        for _ in range(30):
            line.write(b"x" * 20_000)
            await line.writer.drain()
        await _is_refused(line, 431, "request_headers_too_large")


async def test_headers_behind_a_body_are_nobodys() -> None:
    async with serving(echo) as site:
        line = await site.open()
        told = await line.ask(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Admin: yes\r\n\r\n"
        )
        assert (told.json["body"], told.json["headers"]) == ("abc", [["transfer-encoding", "chunked"]])
        assert (await line.ask(get())).json["headers"] == [["host", "x"]]


@pytest.mark.parametrize(
    ("framing", "sent"), [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")]
)
@pytest.mark.parametrize("apart", [False, True])
async def test_a_request_to_upgrade_is_a_plain_one(framing: str, sent: bytes, apart: bool) -> None:
    ask = f"POST /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{framing}\r\n\r\n".encode()
    async with serving(echo) as site:
        line = await site.open()
        for _ in range(2):
            line.write(ask)
            if apart:
                await line.writer.drain()
                await until(lambda: bool(site.server.server_state.tasks))
            line.write(sent + get("/b", "Connection: Upgrade", "Upgrade: websocket") + get("/c"))
            told = [await line.told() for _ in range(3)]
            assert [each.json["path"] for each in told] == ["/a", "/b", "/c"]
            assert told[0].json["body"] == "hello"


async def test_requests_to_upgrade_without_end() -> None:
    async with serving(echo) as site:
        line = await site.open()
        line.write(get("/b", "Connection: Upgrade", "Upgrade: x") * 1000)
        assert [(await line.told()).status for _ in range(102)] == [200] * 101 + [400]
        assert await line.ends()


async def test_uvicorns_own_logger_and_ours_say_nothing_of_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving(echo) as site:
            line = await site.open()
            line.write(b"GET /secret HTTP/1.1\r\nsecret\r\n\r\n")
            assert (await line.told()).status == 400
    assert "refused" in caplog.text
    assert "secret" not in caplog.text


async def test_a_unix_socket(tmp_path: Any) -> None:
    async def app(scope: dict[str, Any], _: Receive, send: Send) -> None:
        await answer_with(send, repr((scope["server"], scope["client"])).encode())

    async with serving(app) as site:
        path = str(tmp_path / "s")
        make = partial(Http1Protocol, site.server.config, site.server.server_state, {})
        listening = await asyncio.get_running_loop().create_unix_server(make, path)
        line = Line(*await asyncio.open_unix_connection(path))
        assert (await line.ask(get())).body == repr(((path, None), None)).encode()
        line.writer.close()
        listening.close()
