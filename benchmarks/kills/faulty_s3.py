"""A proxy before an S3 server that fails a share of all requests, as a busy or broken store does."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_HEADERS = {"connection", "transfer-encoding", "keep-alive"}
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients hang up on purpose, and on connections that were closed on purpose."""


class FaultyS3:
    """Serves on 127.0.0.1 and forwards to `target` ("host:port"); `share` of the requests fail."""

    def __init__(self, target: str, share: float, seed: int) -> None:
        self.share = share
        self.faults = 0
        draw, lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward_request(self) -> None:
                body = self._read_body()
                with lock:
                    number = draw.random()
                    failing = number < proxy.share
                    proxy.faults += failing
                if failing and number < proxy.share / 2:
                    self.close_connection = True
                    self.connection.close()
                    return
                if failing:
                    self._send_reply(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
                    return
                connection = http.client.HTTPConnection(target, timeout=60)
                with contextlib.closing(connection):
                    connection.request(self.command, self.path, body or None, self._get_headers())
                    reply = connection.getresponse()
                    self._send_reply(reply.status, reply.getheaders(), reply.read())

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward_request

            def _read_body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass  # trailers
                return b"".join(parts)

            def _get_headers(self) -> dict[str, str]:
                skipped = {*_HOP_HEADERS, "content-length"}  # which the client writes itself
                return {name: value for name, value in self.headers.items() if name.lower() not in skipped}

            def _send_reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                length = str(len(body))
                for name, value in headers:
                    if name.lower() == "content-length":
                        length = value  # a HEAD reply states the length of a body that it does not have
                    elif name.lower() not in _HOP_HEADERS:
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def serve_requests(self) -> Iterator[FaultyS3]:
        """Serve while the body runs."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
