"""A model hub on loopback that serves one folder, refuses, stalls, cuts and counts, by the name of the model."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COMMIT = "c" * 40
_PIECE = 32 << 10


class Hub:
    """What a test may look at and steer.

    Attributes:
        url: the endpoint, for ``HF_ENDPOINT``.
        requests: paths asked for, in order.
        go_on: a stalled download waits for it.
        stalled: set once a download waits.
    """

    def __init__(self, folder: Path) -> None:
        self.files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.url = ""
        self.requests: list[str] = []
        self.go_on, self.stalled = threading.Event(), threading.Event()


# Model name -> (status without a token, status with one, what the Hub says in X-Error-Code).
_REFUSALS = {
    "org/gated": (401, 403, "GatedRepo"),
    "org/missing": (401, 404, "RepoNotFound"),
    "org/badrev": (404, 404, "RevisionNotFound"),
    "org/rate": (429, 429, None),
    "org/down": (503, 503, None),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append(path)
        for name, (anonymous, known, code) in _REFUSALS.items():
            if name in path:
                status = known if self.headers.get("authorization") else anonymous
                self._reply(
                    status, b'{"error":"no"}', **({"X_Error_Code": code, "X_Error_Message": code} if code else {})
                )
                return
        if "/resolve/" in path:
            self._file(path, path.split("/resolve/")[1].split("/", 1)[1])
        elif "/tree/" in path:
            tree = [{"type": "file", "path": f, "size": len(b), "oid": _etag(b)} for f, b in self.hub.files.items()]
            self._reply(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif path.startswith("/api/models/"):
            about = {
                "id": "x",
                "sha": _COMMIT,
                "siblings": [{"rfilename": f} for f in self.hub.files],
                "private": False,
            }
            self._reply(200, json.dumps(about).encode(), Content_Type="application/json")
        else:
            self._reply(404, b"{}")

    def _file(self, path: str, name: str) -> None:
        body = self.hub.files.get(name)
        if body is None:
            self._reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=_COMMIT)
            return
        headers = {"ETag": f'"{_etag(body)}"', "X_Repo_Commit": _COMMIT, "Accept_Ranges": "bytes"}
        odd = self.command == "GET" and name.endswith("safetensors") and ("org/cut" in path or "org/stall" in path)
        if not odd:
            self._reply(200, body, **headers)
            return
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:_PIECE])
        self.wfile.flush()
        if "org/cut" in path:
            self.close_connection = True
            self.connection.close()
            return
        self.hub.stalled.set()
        self.hub.go_on.wait(30)
        self.wfile.write(body[_PIECE:])


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """Serve a folder as every model while the block runs."""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
