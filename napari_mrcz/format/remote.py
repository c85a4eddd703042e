"""Bytes of a file at a URL: HTTP by ranges, s3 and others by fsspec.

Only what is asked for travels, and a little around it that is asked for next: the head of the file,
its end, where the footer is, and some bytes after small pieces. What fails is asked for again, from
where it stopped, until a deadline.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import OrderedDict
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, size_text
from napari_mrcz.format.machine import Abandoned, go_on_if_wanted

if TYPE_CHECKING:
    from collections.abc import Coroutine

TIMEOUT_S = 30.0
"""Longest wait for bytes; a second more for each `SLOWEST` of them."""

SLOWEST = 100_000
"""Bytes a second; slower connections are given up."""

# A connection that is silent for so long is replaced by another.
_SILENT_S = 10.0
# Attempts in a row without a byte; the wait before the second, which then doubles.
_MOST_IN_VAIN = 4
_WAIT_S = 0.25
# All small pieces of a file together may take so many of `TIMEOUT_S`.
_MOST_TIMEOUTS = 10
# How often a read ahead looks whether it is still wanted.
_LOOK_S = 0.05
_HEAD_NBYTES, _END_NBYTES = 2**14, 2**16
# Headers of chunks lie far apart, the entries of a directory of TIFF beside each other.
_SMALL_NBYTES, _NEAR_NBYTES = 128, 2**12
_MOST_BLOCKS = 16
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.IGNORECASE)
# A URL that is sent as it is, such as one that is signed.
_ENCODED = re.compile(r"(?:[!#$&-;=?-Z_a-z~\[\]]|%[0-9A-Fa-f]{2})+")
_RIGHTS = (401, 403, 407)
_GONE = (404, 410)
_TRY_AGAIN = (408, 425, 429)
_INSTALL = "pip install 'napari-mrcz[remote]'"


class RemoteBytes:
    """The bytes of a file at a URL, read at any place and from any thread.

    `url`: as fsspec takes it, which has the settings of each protocol, such as keys and headers.
    `nbytes`: length of the file. Raise `MrczError` if it is not there, may not be read, cannot be
    reached, or the server sends no ranges.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # by the byte they begin at
        self._changed = ""  # the server's mark of this version of the file
        self._small_s = 0.0
        self.nbytes = -1
        try:
            self._files, self._path = _url_to_fs(url)
        except ImportError as error:
            raise MrczError(url, f"a URL needs more ({error})", advice=_INSTALL) from error
        except ValueError as error:
            raise MrczError(url, f"is not a URL that is read: {error}") from error
        except Exception as error:  # some connect, by libraries that have errors of their own
            found = f"cannot be opened: {str(error) or type(error).__name__}"
            raise MrczError(url, found, advice="Check the address and the connection") from error
        self._process = os.getpid()
        self._is_http = url.lower().startswith(("http://", "https://"))
        self._keep(0, self._fetch(0, _HEAD_NBYTES))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were.

        Raise `MrczError` if the server does not send them in time.
        """
        end = min(offset + len(buffer), self.nbytes)
        if end <= offset:
            return 0
        found = self._kept(offset, end)
        if found is None:
            is_small = end - offset <= _SMALL_NBYTES
            start, stop = self._around(offset) if is_small else (offset, end)
            began = time.monotonic()
            block = self._fetch(start, stop)
            if is_small:
                self._keep(start, block)
                self._small_s += time.monotonic() - began
                if self._small_s > _MOST_TIMEOUTS * TIMEOUT_S:  # walking from chunk to chunk
                    said = f"its index is not read: {self._small_s:.0f} s were not enough for that"
                    advice = "Copy the file here first, or add a footer there (napari-mrcz convert)"
                    raise MrczError(self._url, said, offset=offset, advice=advice)
            found = memoryview(block)[offset - start : end - start]
        buffer[: len(found)] = found
        return len(found)

    def _kept(self, offset: int, end: int) -> memoryview | None:
        with self._lock:
            for start, block in self._blocks.items():
                if start <= offset and end <= start + len(block):
                    return memoryview(block)[offset - start : end - start]
        return None

    def _keep(self, start: int, block: bytes) -> None:
        with self._lock:
            self._blocks[start] = block
            small = [at for at, kept in self._blocks.items() if len(kept) <= _NEAR_NBYTES]
            if len(small) > _MOST_BLOCKS:
                del self._blocks[small[0]]

    def _around(self, offset: int) -> tuple[int, int]:
        """Return the range that is read instead of a few bytes."""
        if offset >= self.nbytes - _END_NBYTES:
            return max(0, self.nbytes - _END_NBYTES), self.nbytes
        with self._lock:
            last = next(reversed(self._blocks), 0)
            near = last <= offset <= last + len(self._blocks.get(last, b"")) + _NEAR_NBYTES
        return offset, min(self.nbytes, offset + (_NEAR_NBYTES if near else _SMALL_NBYTES))

    def _fetch(self, start: int, stop: int) -> bytes:
        """Return bytes of the file, as many as there are; ask again for what does not come."""
        got = bytearray()
        deadline = time.monotonic() + TIMEOUT_S + (stop - start) / SLOWEST
        in_vain, why = 0, ""
        while self.nbytes < 0 or len(got) < min(stop, self.nbytes) - start:
            before = len(got)
            try:
                self._ask(start + before, stop, got, deadline)
                why = "it sends fewer than it was asked for"
            except (MrczError, Abandoned):
                raise
            except FileNotFoundError as error:
                raise MrczError(self._url, "is not there") from error
            except PermissionError as error:
                raise MrczError(self._url, f"may not be read: {error}") from error
            except Exception as error:  # each library has errors of its own
                why = str(getattr(error, "message", error)) or type(error).__name__
                if type(error).__name__ == "NoCredentialsError":  # of s3: it may be public
                    self._files, self._path = _url_to_fs(self._url, anon=True)
            if time.monotonic() >= deadline:
                why = f"the connection is too slow or silent ({why})"
                break
            in_vain = in_vain + 1 if len(got) == before else 0
            if in_vain == _MOST_IN_VAIN:
                break
            if in_vain:
                left = deadline - time.monotonic()
                time.sleep(max(0.0, min(_WAIT_S * 2 ** (in_vain - 1), left)))
        else:
            return bytes(got)
        wanted = "" if self.nbytes < 0 else f" of {size_text(min(stop, self.nbytes) - start)}"
        found = f"the server sent {size_text(len(got))}{wanted}, then no more: {why}"
        advice = "Check the connection, or copy the file here first"
        raise MrczError(self._url, found, offset=start + len(got), advice=advice)

    def _ask(self, start: int, stop: int, got: bytearray, deadline: float) -> None:
        """Ask once for bytes, and append to `got` those that come."""
        if self._process != os.getpid():  # the thread of fsspec is not in a fork
            self._files, self._path = _url_to_fs(self._url)
            self._process = os.getpid()
        files, path = self._files, self._path
        if self._is_http:
            self._run(self._get(start, stop, got), deadline)
            return
        if self.nbytes < 0:
            about = self._run(files._info(path), deadline) if files.async_impl else files.info(path)
            self.nbytes = int(about["size"])
        if (end := min(stop, self.nbytes)) <= start:
            return
        if files.async_impl:
            got += self._run(files._cat_file(path, start=start, end=end), deadline)
        else:
            got += files.cat_file(path, start=start, end=end)

    def _run(self, coroutine: Coroutine[Any, Any, Any], deadline: float) -> Any:
        """Run a coroutine in fsspec's thread; end it if it takes too long or is not wanted."""
        import asyncio  # slow to import

        future = asyncio.run_coroutine_threadsafe(coroutine, self._files.loop)
        try:
            while not future.done():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("no answer in time")
                look = _LOOK_S if go_on_if_wanted() else left
                wait([future], min(left, look))
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _get(self, start: int, stop: int, got: bytearray) -> None:
        from aiohttp import ClientTimeout
        from yarl import URL

        session = await self._files.set_session()
        options = dict(self._files.kwargs)
        options.setdefault(
            "timeout", ClientTimeout(None, sock_connect=_SILENT_S, sock_read=_SILENT_S)
        )
        headers = {**options.pop("headers", {}), "Range": f"bytes={start}-{stop - 1}"}
        headers["Accept-Encoding"] = "identity"
        url: Any = self._url
        url = URL(url, encoded=True) if _ENCODED.fullmatch(url) else self._files.encode_url(url)
        most = len(got) + stop - start
        async with session.get(url, headers=headers, **options) as answer:
            self._check(answer, start, stop)
            async for piece in answer.content.iter_any():
                got += piece
                if len(got) > most:
                    raise MrczError(self._url, "the server sends more than it was asked for")

    def _check(self, answer: Any, start: int, stop: int) -> None:
        """Check that an answer by HTTP has what was asked for, of the same file as before."""
        status, said = answer.status, f"{answer.status} {answer.reason}"
        stated = answer.headers.get("Content-Range", "")
        if status == 416 and stated == "bytes */0":
            self.nbytes = 0
            return
        if status == 200:
            found = "the server sends whole files and no parts of them (HTTP ranges)"
            raise MrczError(self._url, found, advice="Copy the file here first")
        if status in _GONE:
            raise MrczError(self._url, f"is not there ({said})", advice="Check the address")
        if status in _RIGHTS:
            raise MrczError(self._url, f"may not be read ({said})", advice="Ask for the right to")
        if status in _TRY_AGAIN or status >= 500:
            raise OSError(f"the server answers {said}")
        sent = _RANGE.fullmatch(stated) if status == 206 else None
        if sent is None or int(sent[1]) != start or int(sent[2]) >= stop:
            about = f"asked for bytes {start} to {stop - 1}, the server answers {said} {stated}"
            raise MrczError(self._url, about.strip(), advice="Copy the file here first")
        # One server of several may mark weakly what others mark, or not at all.
        total, mark = int(sent[3]), answer.headers.get("ETag", "").removeprefix("W/")
        if self.nbytes < 0:
            self.nbytes = total
        self._changed = self._changed or mark
        if total != self.nbytes or (mark and mark != self._changed):
            found = "the file was changed on the server since it was first opened"
            raise MrczError(self._url, found, advice="Open it again")


def _url_to_fs(url: str, **options: Any) -> tuple[Any, str]:
    """Return what reads a protocol, and what it calls the file."""
    from fsspec.config import conf  # slow to import, and need not be there
    from fsspec.core import url_to_fs

    protocol = url.partition(":")[0].lower()
    if protocol in ("http", "https"):  # by the proxy that the environment names
        known = conf.get(protocol, {}).get("client_kwargs", {})
        options["client_kwargs"] = {"trust_env": True, **known}
    files, path = url_to_fs(url, **options)
    return files, path
