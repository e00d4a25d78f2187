"""The HTTP client: what real servers do on real sockets, and bytes that come in any pieces."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from app.backend import http
from app.backend.connection import Connection
from app.backend.http import Exchange, HttpClient
from app.errors import BackendError, Reason
from app.trace import Trace

_HEADERS = CIMultiDict({"content-type": "application/json", "authorization": "Bearer key"})
_MOST = 1 << 20
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(4)


def _says(*answers: bytes, ends: bool = False) -> Play:
    """Answer so many requests of one connection with these bytes."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await _request(reader)
            writer.write(answer)
            await writer.drain()
        if not ends:
            await reader.read()

    return play


@contextlib.asynccontextmanager
async def _server(play: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[URL, list[int]]]:
    """Serve on a free port; yields the URL and the connections so far."""
    made: list[int] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await play(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(len(made))
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    async with server:
        yield URL(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"), made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient()
    yield made
    await made.close()


async def _post(client: HttpClient, url: URL, body: bytes = b"body") -> Exchange:
    return await client.post(url, _HEADERS, body, 5.0, Trace())


async def _fails(client: HttpClient, url: URL) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await (await _post(client, url)).read(_MOST)
    return caught.value


_BODY = b'{"a":"' + b"x" * 300 + b'"}'
_WHOLE = {
    "sized": b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n10\r\n%b\r\n%x;x=y\r\n%b\r\n0\r\nTrailer: t\r\n\r\n"
    % (_BODY[:16], len(_BODY) - 16, _BODY[16:]),
    "gzip": b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    % (len(gzip.compress(_BODY)), gzip.compress(_BODY)),
}


@pytest.mark.parametrize("form", _WHOLE.values(), ids=_WHOLE.keys())
async def test_a_body_is_read_and_its_connection_kept(client: HttpClient, form: bytes) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nX-Some: thing\r\n" + form
    async with _server(_says(answer, answer)) as (url, made):
        for _ in range(2):
            reply = await _post(client, url)
            assert (reply.status, reply.headers["x-some"]) == (201, "thing")
            assert await reply.read(_MOST) == _BODY
            reply.close()
        assert made == [0]


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_a_body_may_end_with_its_connection(client: HttpClient, head: bytes) -> None:
    async with _server(_says(head + _BODY, ends=True)) as (url, made):
        assert await (await _post(client, url)).read(_MOST) == _BODY
        assert await (await _post(client, url)).read(_MOST) == _BODY
        assert made == [0, 1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", Reason.RESET),
        (b"HTTP/1.1 200", Reason.RESET),
        (b"SSH-2.0-OpenSSH_9\r\n", Reason.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Reason.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", Reason.MALFORMED),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Reason.MALFORMED),
        (b"HTTP/1.1 200 OK\r\n" + b"A: %b\r\n" % (b"a" * 999) * 70, Reason.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Reason.CUT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Reason.CUT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Reason.CUT),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", Reason.CUT),
    ],
)
async def test_what_is_no_answer_is_told_apart(client: HttpClient, answer: bytes, reason: Reason) -> None:
    async with _server(_says(answer, ends=True)) as (url, _):
        assert (await _fails(client, url)).reason is reason


async def test_a_kept_connection_that_was_closed_is_worth_another_try_at_once(client: HttpClient) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(_OK)
        await _request(reader)  # and closes without a word

    async with _server(once) as (url, made):
        assert await (await _post(client, url)).read(_MOST) == b"ok"
        lost = await _fails(client, url)
        assert (lost.reason, lost.retry_after_s, made) == (Reason.RESET, 0.0, [0])
        assert await (await _post(client, url)).read(_MOST) == b"ok"
        assert made == [0, 1]


async def test_a_connection_that_talks_out_of_turn_is_not_used_again(client: HttpClient) -> None:
    async with _server(_says(_OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")) as (url, made):
        assert await (await _post(client, url)).read(_MOST) == b"ok"
        assert await (await _post(client, url)).read(_MOST) == b"ok"
        assert made == [0, 1]


async def test_nobody_listens(client: HttpClient) -> None:
    async with _server(_says()) as (url, _):
        pass
    assert (await _fails(client, url)).reason is Reason.CONNECT
    assert (await _fails(client, URL("http://nowhere.invalid/v1"))).reason is Reason.CONNECT


async def test_a_body_over_the_limit_is_refused(client: HttpClient) -> None:
    async with _server(_says(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + b"x" * 400_000)) as (url, _):
        reply = await _post(client, url)
        with pytest.raises(BackendError) as caught:
            await reply.read(100_000)
        assert caught.value.reason is Reason.TOO_LARGE
        reply.close()


async def test_a_slow_reader_stops_the_sender_and_gets_everything(client: HttpClient) -> None:
    total, sent = 8_000_000, 0
    stuck = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 100_000)
            sent += 100_000
            try:
                await asyncio.wait_for(writer.drain(), 0.3)
            except TimeoutError:
                stuck.set()
                await writer.drain()

    async with _server(play) as (url, _):
        reply = await _post(client, url)
        await asyncio.wait_for(stuck.wait(), 20)
        assert sent < total
        got = 0
        while data := await reply.some():
            got += len(data)
        assert got == total


async def test_packed_bytes_that_bring_nothing_yet_are_not_the_end(client: HttpClient) -> None:
    packed = gzip.compress(_BODY)
    go_on = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed))
        writer.write(packed[:10])
        await writer.drain()
        await go_on.wait()
        writer.write(packed[10:])
        await reader.read()

    async with _server(play) as (url, _):
        reply = await _post(client, url)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        assert await reply.some() == _BODY


def _parts_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("chunk", [0, 4000])
async def test_what_unpacks_without_end_is_refused(client: HttpClient, chunk: int) -> None:
    packed = gzip.compress(bytes(80 * 1024 * 1024))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in _parts_of(packed, chunk)) if chunk else packed
    framing = b"Transfer-Encoding: chunked" if chunk else b"Content-Length: %d" % len(packed)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n%b\r\n\r\n%b" % (framing, framed))
        await reader.read()

    async with _server(play) as (url, _):
        reply = await _post(client, url)
        with pytest.raises(BackendError, match="many times as large"):
            await reply.read(1 << 30)


def _chunks_then_ok(*steps: asyncio.Event | bytes) -> Play:
    """Answer with ``abc`` and what follows, each after its event; then a second request on the same connection."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
            else:
                await step.wait()
        await _request(reader)
        writer.write(_OK)
        await reader.read()

    return play


async def test_what_is_taken_as_it_comes_wakes_nobody(client: HttpClient) -> None:
    waits, taken = asyncio.Event(), asyncio.Event()
    offered: list[bytes] = []

    def take(data: bytes) -> bool:
        offered.append(data)
        taken.set()
        return data != b"ghi"

    rest = b"3\r\nghi\r\n3\r\njkl\r\n0\r\n\r\n"
    async with _server(_chunks_then_ok(waits, b"3\r\ndef\r\n", taken, rest)) as (url, made):
        reply = await _post(client, url)
        assert await reply.some() == b"abc"
        reply.tap(take)
        asyncio.get_running_loop().call_soon(waits.set)
        assert await asyncio.wait_for(reply.some(), 5) == b"ghijkl"
        assert await reply.some() == b""
        assert offered == [b"def", b"ghi"]
        assert await (await _post(client, url)).read(_MOST) == b"ok"
        assert (offered, made) == ([b"def", b"ghi"], [0])


async def test_the_rest_of_a_finished_answer_is_dropped_and_the_connection_kept(client: HttpClient) -> None:
    go_on = asyncio.Event()
    async with _server(_chunks_then_ok(go_on, b"3\r\ndef\r\n0\r\n\r\n")) as (url, made):
        reply = await _post(client, url)
        assert await reply.some() == b"abc"
        reply.finish()
        go_on.set()
        async with asyncio.timeout(5):
            while not client._place(url).idle:  # noqa: ASYNC110 - nobody is told of it
                await asyncio.sleep(0)
        assert await (await _post(client, url)).read(_MOST) == b"ok"
        assert made == [0]


async def test_a_backend_that_lingers_is_cut_off(client: HttpClient) -> None:
    closed = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await reader.read()
        closed.set()

    async with _server(play) as (url, _):
        reply = await _post(client, url)
        assert await reply.some() == b"abc"
        reply.finish()
        await asyncio.wait_for(closed.wait(), 5)


async def test_a_call_that_is_given_up_closes_its_connection(client: HttpClient) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def play(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await _request(reader)
        asked.set()
        await reader.read()
        closed.set()

    async with _server(play) as (url, _):
        task = asyncio.create_task(_post(client, url))
        await asyncio.wait_for(asked.wait(), 5)
        task.cancel()
        await asyncio.wait_for(closed.wait(), 5)
        assert client._open == set() or all(not each.usable for each in client._open)


async def test_idle_connections_grow_old(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_KEEP_S", 0.0)
    async with _server(_says(_OK, _OK)) as (url, made):
        for _ in range(2):
            assert await (await _post(client, url)).read(_MOST) == b"ok"
        assert made == [0, 1]


async def test_tls_is_checked_and_spoken(client: HttpClient, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(
        subprocess.run,
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(certificate, key)
    async with _server(_says(_OK, _OK), own) as (url, made):
        assert (await _fails(client, url)).reason is Reason.CONNECT  # nobody vouches for it
        client._context().load_verify_locations(certificate)
        for _ in range(2):
            assert await (await _post(client, url)).read(_MOST) == b"ok"
        assert len(made) == 1  # asyncio's server does not tell of the one that was refused


async def test_a_header_cannot_hold_another(client: HttpClient) -> None:
    evil = CIMultiDict({"authorization": "Bearer x\r\nx-admin: yes"})
    with pytest.raises(ValueError, match="line end"):
        await client.post(URL("http://127.0.0.1:1/"), evil, b"", 1.0, Trace())


async def test_a_request_says_what_it_must(client: HttpClient) -> None:
    seen: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await _request(reader))
        writer.write(_OK)

    async with _server(play) as (url, _):
        await (await _post(client, URL(f"{url}?a=b%20c", encoded=True))).read(_MOST)
        head, _, body = seen[0].partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        assert (line, body) == (b"POST /v1/x?a=b%20c HTTP/1.1", b"body")
        assert lines == [
            f"Host: 127.0.0.1:{url.port}".encode(), b"content-type: application/json", b"authorization: Bearer key",
            b"Accept-Encoding: identity", b"Content-Length: 4",
        ]  # fmt: skip


class _Wire(asyncio.Transport):
    """A transport without a wire."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        pass


@given(form=st.sampled_from(sorted(_WHOLE)), cuts=st.lists(st.integers(1, 400), max_size=12))
def test_the_pieces_in_which_a_response_comes_make_no_difference(form: str, cuts: list[int]) -> None:
    async def play() -> tuple[int, bytes, int]:
        back: list[Connection] = []
        connection = Connection(asyncio.get_running_loop(), back.append, lambda _: None)
        connection.connection_made(_Wire())
        asked = asyncio.create_task(connection.ask(b"", b""))
        await asyncio.sleep(0)
        answer = b"HTTP/1.1 200 OK\r\n" + _WHOLE[form]
        for cut in [*cuts, len(answer)]:
            if answer:
                connection.data_received(answer[:cut])
            answer = answer[cut:]
        await asked
        return connection.status, await connection.rest(_MOST), len(back)

    assert asyncio.run(play()) == (200, _BODY, 1)


async def test_who_stands_in_the_address_is_named(client: HttpClient) -> None:
    place = client._place(URL("http://me:secret@127.0.0.1/v1"))
    assert b"Authorization: Basic bWU6c2VjcmV0\r\n" in http._head("POST", place, CIMultiDict(), 0)
    assert b"Basic" not in http._head("POST", place, _HEADERS, 0)
