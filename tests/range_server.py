"""A server of files by ranges of HTTP, which counts what it sends and misbehaves as it is told."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Files of a folder, at ``server.url(name)``.

    Attributes
    ----------
    sent : list of (str, int, int)
        Name, first byte and number of the bytes of each answer.
    asked : str
        Path and query of the last request, as they came.
    ranges : bool
        Answer with the part that was asked for.
    most : int or None
        Bytes after which each connection is cut.
    failures : int
        So many of the next requests are answered by 503.
    silent : threading.Event
        While it is not set, answers wait.
    surplus, shift, more : int
        Bytes sent beyond what was asked for, by which another place is sent, and by which the
        file is said to be longer.
    mark : str
        Of the version of the files, as ETag.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.sent: list[tuple[str, int, int]] = []
        self.asked = ""
        self.ranges = True
        self.most: int | None = None
        self.failures = self.surplus = self.shift = self.more = 0
        self.silent = threading.Event()
        self.silent.set()
        self.mark = '"1"'
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"http://127.0.0.1:{self.server_port}/{name}"

    @property
    def nbytes(self) -> int:
        """Bytes that were sent."""
        return sum(nbytes for _, _, nbytes in self.sent)

    def stop(self) -> None:
        """End the thread."""
        self.silent.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that have gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: RangeServer

    def do_GET(self) -> None:
        server, name = self.server, self.path.strip("/").partition("?")[0]
        server.asked = self.path
        server.silent.wait()
        if server.failures:
            server.failures -= 1
            self.send_error(503)
            return
        path = server.folder / name
        if not path.is_file():
            self.send_error(403 if name == "secret" else 404)
            return
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        start, stop = 0, len(content)
        if wanted and server.ranges:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start += server.shift
        body = content[start : stop + server.surplus]
        self.send_response(206 if server.ranges else 200)
        total = len(content) + server.more
        if server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1 + server.shift}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.mark)
        self.end_headers()
        if server.most is not None and len(body) > server.most:
            body = body[: server.most]
            self.close_connection = True
        server.sent.append((name, start, len(body)))
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
