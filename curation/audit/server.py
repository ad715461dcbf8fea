"""The audit behind the page: what is shown when, and a small HTTP server on this machine only.

The server names things by ids of the draw and looks them up; no path ever comes from a request. Requests
must name this machine as their host, and answers must come from the page itself: a web page elsewhere can
neither read the dataset nor answer for the judge.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import statistics as numbers
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, BinaryIO, Final, cast

from curation.audit import items
from curation.audit.judgements import Judgements
from curation.audit.questions import ANSWERS, Answer
from curation.audit.sample import Item, Sample, open_sample
from curation.audit.statistics import KALEIDO, Row, Summary, row_title, summarise
from reprise.errors import RepriseError
from reprise.storage import Storage

HOST: Final = "127.0.0.1"
MAX_BODY: Final = 4096  # bytes
_CHUNK: Final = 256 << 10  # bytes of a clip sent at a time
_IDLE: Final = 60  # s that a connection may stay silent

# What the page is made of: path -> (package, file, media type). Style and helpers are the report's own.
_PAGE: Final[Mapping[str, tuple[str, str, str]]] = {
    "/": ("curation.audit", "index.html", "text/html; charset=utf-8"),
    "/audit.css": ("curation.audit", "audit.css", "text/css; charset=utf-8"),
    "/audit.js": ("curation.audit", "audit.js", "text/javascript; charset=utf-8"),
    "/style.css": ("curation.report", "style.css", "text/css; charset=utf-8"),
    "/dom.js": ("curation.report", "dom.js", "text/javascript; charset=utf-8"),
    "/words.js": ("curation.report", "words.js", "text/javascript; charset=utf-8"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refused(Exception):
    """A request that is answered with an error, in one line."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Audit:
    """One judge's audit of one draw; knows nothing of HTTP."""

    storage: Storage
    sample: Sample
    judgements: Judgements
    rows: items.Rows

    def state(self) -> dict[str, Any]:
        """Where the judge stands: the draw in its order and what of it is done."""
        answers = self.judgements.answers()
        return {
            "dataset": self.storage.uri.partition("?")[0].rstrip("/").rpartition("/")[2] or self.storage.uri,
            "judge": self.judgements.judge,
            "seed": self.sample.seed,
            "items": [
                {"id": item.subject_id, "done": self._complete(item, answers.get(item.subject_id, {}))}
                for item in self.sample.items
            ],
            "seconds": self._pace(),
        }

    def item(self, subject_id: str) -> dict[str, Any]:
        """A subject as far as this judge may see it: alone, then what was made of it, then the verdict."""
        item = self.find(subject_id)
        row, subject = self.rows.of(item)
        answers = self.judgements.of(subject_id)
        return {
            **items.describe(item, row, subject),
            "answers": answers,
            "generated": items.describe_generated(item, subject) if self._judged(item, answers) else None,
            "reveal": items.reveal(item, subject, answers) if self._complete(item, answers) else None,
            "seconds": self._pace(),
        }

    def answer(self, subject_id: Any, question: Any, answer: Any, seconds: Any) -> dict[str, Any]:
        """Keep an answer, or take one back with None; returns the subject as it may be seen now."""
        item = self.find(subject_id)
        answers = self.judgements.of(item.subject_id)
        allowed = item.all_questions if self._judged(item, answers) else item.questions
        if not isinstance(question, str) or question not in {each.name for each in allowed}:
            raise Refused(HTTPStatus.BAD_REQUEST, "no such question about this subject")
        if answer is not None and answer not in ANSWERS:
            raise Refused(HTTPStatus.BAD_REQUEST, "the answer is yes, no, unsure or null")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise Refused(HTTPStatus.BAD_REQUEST, "seconds is no number")
        self.judgements.record(item.subject_id, question, cast("Answer | None", answer), float(seconds))
        return self.item(item.subject_id)

    def picture(self, subject_id: str, name: str) -> tuple[bytes, str]:
        item = self.find(subject_id)
        answers = self.judgements.of(subject_id)
        if any(each.name == name for each in item.generated) and not self._judged(item, answers):
            raise Refused(HTTPStatus.CONFLICT, "judge the subject first")
        found = items.picture(item, *self.rows.of(item), name)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no such picture")
        return found

    def clip(self, subject_id: str) -> str:
        """Path of a subject's clip below the dataset."""
        path = str(self.rows.of(self.find(subject_id))[0].get("clip_path") or "")
        try:
            there = bool(path) and self.storage.is_file(path)
        except RepriseError:  # it leads out of the dataset
            there = False
        if not there:
            raise Refused(HTTPStatus.NOT_FOUND, "the clip is gone")
        return path

    def summary(self) -> Summary:
        answers = {judge: self.judgements.answers(judge) for judge in self.judgements.judges()}
        return summarise(self.sample, answers)

    def find(self, subject_id: Any) -> Item:
        item = self.sample.by_id.get(subject_id) if isinstance(subject_id, str) else None
        if item is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no such subject in this draw")
        return item

    def _pace(self) -> float | None:
        """Median time that a completed subject took, s."""
        seconds = self.judgements.seconds()
        return numbers.median(seconds) if seconds else None

    def _judged(self, item: Item, answers: Mapping[str, Answer]) -> bool:
        """Are all questions about the subject itself answered? Its references tell that it was kept."""
        return all(question.name in answers for question in item.questions)

    def _complete(self, item: Item, answers: Mapping[str, Answer]) -> bool:
        return all(question.name in answers for question in item.all_questions)


def open_audit(storage: Storage, *, n: int, seed: int, judge: str) -> Audit:
    """An audit, new or as it was left.

    Raises:
        RepriseError: see `open_sample` and `Judgements`.
    """
    sample = open_sample(storage, n, seed)
    return Audit(storage, sample, Judgements(storage, sample, judge), items.Rows(storage))


def summary_json(summary: Summary) -> dict[str, Any]:
    """The summary for the page."""

    def row(each: Row) -> dict[str, Any]:
        low, high = each.interval
        return {
            **asdict(each),
            "title": row_title(each),
            "accuracy": each.accuracy,
            "low": low,
            "high": high,
            "kaleido": KALEIDO.get(each.name) if each.of == "kept" else None,
        }

    return {
        **asdict(summary),
        "kept": [row(each) for each in summary.kept],
        "rejected": [row(each) for each in summary.rejected],
        "generated": [row(each) for each in summary.generated],
    }


def serve(audit: Audit, port: int = 0) -> ThreadingHTTPServer:
    """A server that listens on the loopback interface; the caller runs and closes it. Port 0: any free one.

    Raises:
        RepriseError: the port is taken or not allowed.
    """
    try:
        return _Server((HOST, port), type("Handler", (_Handler,), {"audit": audit}))
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise RepriseError(f"port {port} is taken: choose another --port, or 0 for any") from error
        raise RepriseError(f"cannot listen on {HOST}:{port}: {error}") from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that goes away in the middle of a clip is no event.
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    audit: Audit
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Reprise", ""
    timeout = _IDLE

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the terminal shows the address and, at the end, the table."""

    def _answer(self, work: Callable[[], None]) -> None:
        try:
            self._check_host()
            work()
        except Refused as refused:
            self._json({"error": str(refused)}, refused.status)
        except RepriseError as error:
            self._json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _check_host(self) -> None:
        """A name that some other machine's page points here is not ours (DNS rebinding)."""
        port = cast(_Server, self.server).server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.close_connection = True
            raise Refused(HTTPStatus.FORBIDDEN, f"open http://{HOST}:{port}/")

    def _get(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        if path in _PAGE:
            package, file, kind = _PAGE[path]
            self._bytes((resources.files(package) / "page" / file).read_bytes(), kind)
            return
        parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
        match parts:
            case ["api", "state"]:
                self._json(self.audit.state())
            case ["api", "summary"]:
                self._json(summary_json(self.audit.summary()))
            case ["api", "items", subject_id]:
                self._json(self.audit.item(subject_id))
            case ["pictures", subject_id, name]:
                # Named by content, so what a browser holds is never stale.
                data, kind = self.audit.picture(subject_id, name)
                self._bytes(data, kind, cache="private, max-age=3600")
            case ["clips", subject_id]:
                self._clip(self.audit.clip(subject_id))
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "no such page")

    def _post(self) -> None:
        body = self._body()
        if urllib.parse.urlsplit(self.path).path != "/api/answers":
            raise Refused(HTTPStatus.NOT_FOUND, "no such page")
        if self.headers.get("Origin") not in (None, f"http://{self.headers.get('Host')}"):
            raise Refused(HTTPStatus.FORBIDDEN, "answers come from the audit's own page")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON")
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict) or set(given) != {"item", "question", "answer", "seconds"}:
            raise Refused(HTTPStatus.BAD_REQUEST, "send an object with item, question, answer and seconds")
        self._json(self.audit.answer(given["item"], given["question"], given["answer"], given["seconds"]))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length, re.ASCII) or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        if int(length) > MAX_BODY:
            self.close_connection = True  # what is not read must not be taken for the next request
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY} bytes")
        return cast(BinaryIO, self.rfile).read(int(length))

    def _json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode()
        self._bytes(data, "application/json; charset=utf-8", status)

    def _bytes(
        self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, *, cache: str = "no-store"
    ) -> None:
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": cache})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _clip(self, rel: str) -> None:
        """A clip, or the part of it that a player asks for: without parts a browser cannot seek."""
        storage = self.audit.storage
        size = storage.size(rel)
        wanted = byte_range(self.headers.get("Range"), size)
        headers = {
            "Content-Type": "video/mp4",
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, max-age=3600",
        }
        if wanted is None:
            start, end, status = 0, size, HTTPStatus.OK
        elif wanted == (0, 0):
            self._head(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                {"Content-Range": f"bytes */{size}", "Content-Length": "0"},
            )
            return
        else:
            (start, end), status = wanted, HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        with _opened(storage, rel) as file:
            self._head(status, {**headers, "Content-Length": str(end - start)})
            if self.command == "HEAD":
                return
            file.seek(start)
            left = end - start
            while left:
                try:
                    chunk = bytes(file.read(min(_CHUNK, left)))
                except OSError:
                    chunk = b""
                if not chunk:
                    self.close_connection = (
                        True  # the file shrank or the store went away: the length is a lie now
                    )
                    return
                self.wfile.write(chunk)
                left -= len(chunk)


@contextlib.contextmanager
def _opened(storage: Storage, rel: str) -> Iterator[Any]:
    with storage.open_input(rel) as file:
        yield file


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """A Range header -> [start, end) in bytes (RFC 9110, 14.1.2).

    Returns:
        None: send all: no header, not in bytes, malformed, or several ranges at once.
        (0, 0): nothing of the file is in the range.
    """
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (header or "").strip(), re.ASCII)
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        if found[2] and int(found[2]) < start:
            return None
        end = min(size, int(found[2]) + 1) if found[2] else size
    return (start, end) if start < end else (0, 0)
