"""The audit behind the page: what is shown when, and a small HTTP server for this machine only.

Requests name subjects and pictures by ids of the sample, never by path. They must name this machine as their
host, and answers must come from the page itself, so that a web page elsewhere can neither read the dataset
nor answer for the judge.
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
from curation.audit.sample import AuditItem, AuditSample, open_sample
from curation.audit.statistics import (
    KALEIDO_ACCURACY,
    AgreementRow,
    AuditSummary,
    get_row_title,
    summarise_audit,
)
from reprise.errors import RepriseError
from reprise.storage import Storage

HOST: Final = "127.0.0.1"
MAX_BODY: Final = 4096  # bytes
_CHUNK_BYTES: Final = 256 << 10  # bytes of a clip sent at a time
_IDLE_TIMEOUT: Final = 60  # s that a connection may stay silent

# Files of the page: path -> (package, file, media type). Style and helpers are those of the report.
_PAGE_FILES: Final[Mapping[str, tuple[str, str, str]]] = {
    "/": ("curation.audit", "index.html", "text/html; charset=utf-8"),
    "/audit.css": ("curation.audit", "audit.css", "text/css; charset=utf-8"),
    "/audit.js": ("curation.audit", "audit.js", "text/javascript; charset=utf-8"),
    "/style.css": ("curation.report", "style.css", "text/css; charset=utf-8"),
    "/dom.js": ("curation.report", "dom.js", "text/javascript; charset=utf-8"),
    "/labels.js": ("curation.report", "labels.js", "text/javascript; charset=utf-8"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestError(Exception):
    """A request that gets an error of one line as its response."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Audit:
    """The audit of one sample by one judge, without HTTP."""

    storage: Storage
    sample: AuditSample
    judgements: Judgements
    rows: items.RowCache

    def get_state(self) -> dict[str, Any]:
        """Return the progress of the judge: the subjects in order, and which are done."""
        answers = self.judgements.get_answers()
        return {
            "dataset": self.storage.uri.partition("?")[0].rstrip("/").rpartition("/")[2] or self.storage.uri,
            "judge": self.judgements.judge,
            "seed": self.sample.seed,
            "items": [
                {"id": item.subject_id, "done": self._is_complete(item, answers.get(item.subject_id, {}))}
                for item in self.sample.items
            ],
            "seconds": self._get_pace(),
        }

    def get_item(self, subject_id: str) -> dict[str, Any]:
        """Return what this judge may see of a subject: only itself, then its references, then its verdict."""
        item = self.find_item(subject_id)
        row, subject = self.rows.read_subject(item)
        answers = self.judgements.get_subject_answers(subject_id)
        return {
            **items.describe_subject(item, row, subject),
            "answers": answers,
            "generated": items.describe_generated(item, subject) if self._is_judged(item, answers) else None,
            "reveal": items.reveal_verdict(item, subject, answers)
            if self._is_complete(item, answers)
            else None,
            "seconds": self._get_pace(),
        }

    def record_answer(self, subject_id: Any, question: Any, answer: Any, seconds: Any) -> dict[str, Any]:
        """Record an answer, or take one back with None; return the subject as in `get_item`."""
        item = self.find_item(subject_id)
        answers = self.judgements.get_subject_answers(item.subject_id)
        allowed = item.all_questions if self._is_judged(item, answers) else item.questions
        if not isinstance(question, str) or question not in {each.name for each in allowed}:
            raise RequestError(HTTPStatus.BAD_REQUEST, "no such question about this subject")
        if answer is not None and answer not in ANSWERS:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the answer is yes, no, unsure or null")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise RequestError(HTTPStatus.BAD_REQUEST, "seconds is not a number")
        self.judgements.record_answer(
            item.subject_id, question, cast("Answer | None", answer), float(seconds)
        )
        return self.get_item(item.subject_id)

    def get_picture(self, subject_id: str, name: str) -> tuple[bytes, str]:
        """Return (bytes, media type) of a picture, if this judge may see it."""
        item = self.find_item(subject_id)
        answers = self.judgements.get_subject_answers(subject_id)
        if any(each.name == name for each in item.generated) and not self._is_judged(item, answers):
            raise RequestError(HTTPStatus.CONFLICT, "judge the subject first")
        found = items.render_picture(item, *self.rows.read_subject(item), name)
        if found is None:
            raise RequestError(HTTPStatus.NOT_FOUND, "no such picture")
        return found

    def get_clip_path(self, subject_id: str) -> str:
        """Return the path of a subject's clip below the dataset."""
        path = str(self.rows.read_subject(self.find_item(subject_id))[0].get("clip_path") or "")
        try:
            there = bool(path) and self.storage.is_file(path)
        except RepriseError:  # the path is outside the dataset
            there = False
        if not there:
            raise RequestError(HTTPStatus.NOT_FOUND, "the clip is gone")
        return path

    def build_summary(self) -> AuditSummary:
        """Summarise the answers of all judges so far."""
        answers = {judge: self.judgements.get_answers(judge) for judge in self.judgements.list_judges()}
        return summarise_audit(self.sample, answers)

    def find_item(self, subject_id: Any) -> AuditItem:
        """Find a subject of the sample by its id."""
        item = self.sample.by_id.get(subject_id) if isinstance(subject_id, str) else None
        if item is None:
            raise RequestError(HTTPStatus.NOT_FOUND, "no such subject in this sample")
        return item

    def _get_pace(self) -> float | None:
        """Median time that a completed subject took, s."""
        seconds = self.judgements.list_seconds()
        return numbers.median(seconds) if seconds else None

    def _is_judged(self, item: AuditItem, answers: Mapping[str, Answer]) -> bool:
        """Check that the subject's own questions are answered, because its references reveal the verdict."""
        return all(question.name in answers for question in item.questions)

    def _is_complete(self, item: AuditItem, answers: Mapping[str, Answer]) -> bool:
        return all(question.name in answers for question in item.all_questions)


def open_audit(storage: Storage, *, n: int, seed: int, judge: str) -> Audit:
    """Open an audit, new or continued.

    Raises:
        RepriseError: see `open_sample` and `Judgements`.
    """
    sample = open_sample(storage, n, seed)
    return Audit(storage, sample, Judgements(storage, sample, judge), items.RowCache(storage))


def build_summary_json(summary: AuditSummary) -> dict[str, Any]:
    """Convert a summary to JSON for the page."""

    def build_row(each: AgreementRow) -> dict[str, Any]:
        low, high = each.interval
        return {
            **asdict(each),
            "title": get_row_title(each),
            "accuracy": each.accuracy,
            "low": low,
            "high": high,
            "kaleido": KALEIDO_ACCURACY.get(each.name) if each.of == "kept" else None,
        }

    return {
        **asdict(summary),
        "kept": [build_row(each) for each in summary.kept],
        "rejected": [build_row(each) for each in summary.rejected],
        "generated": [build_row(each) for each in summary.generated],
    }


def create_server(audit: Audit, port: int = 0) -> ThreadingHTTPServer:
    """Create a server on the loopback interface; the caller runs and closes it. Port 0: any free one.

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
        # A browser may close the connection in the middle of a clip.
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    audit: Audit
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Reprise", ""
    timeout = _IDLE_TIMEOUT

    def do_GET(self) -> None:
        self._handle_request(self._handle_get)

    def do_HEAD(self) -> None:
        self._handle_request(self._handle_get)

    def do_POST(self) -> None:
        self._handle_request(self._handle_post)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal shows the address and, at the end, the table."""

    def _handle_request(self, work: Callable[[], None]) -> None:
        try:
            self._check_host()
            work()
        except RequestError as refused:
            self._send_json({"error": str(refused)}, refused.status)
        except RepriseError as error:
            self._send_json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _check_host(self) -> None:
        """Refuse other host names: another site could point its name to this machine (DNS rebinding)."""
        port = cast(_Server, self.server).server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.close_connection = True
            raise RequestError(HTTPStatus.FORBIDDEN, f"open http://{HOST}:{port}/")

    def _handle_get(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        if path in _PAGE_FILES:
            package, file, kind = _PAGE_FILES[path]
            self._send_bytes((resources.files(package) / "page" / file).read_bytes(), kind)
            return
        parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
        match parts:
            case ["api", "state"]:
                self._send_json(self.audit.get_state())
            case ["api", "summary"]:
                self._send_json(build_summary_json(self.audit.build_summary()))
            case ["api", "items", subject_id]:
                self._send_json(self.audit.get_item(subject_id))
            case ["pictures", subject_id, name]:
                # Names follow content, so a browser's cache is never stale.
                data, kind = self.audit.get_picture(subject_id, name)
                self._send_bytes(data, kind, cache="private, max-age=3600")
            case ["clips", subject_id]:
                self._send_clip(self.audit.get_clip_path(subject_id))
            case _:
                raise RequestError(HTTPStatus.NOT_FOUND, "no such page")

    def _handle_post(self) -> None:
        body = self._read_body()
        if urllib.parse.urlsplit(self.path).path != "/api/answers":
            raise RequestError(HTTPStatus.NOT_FOUND, "no such page")
        if self.headers.get("Origin") not in (None, f"http://{self.headers.get('Host')}"):
            raise RequestError(HTTPStatus.FORBIDDEN, "answers come from the audit's own page")
        if self.headers.get_content_type() != "application/json":
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON")
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict) or set(given) != {"item", "question", "answer", "seconds"}:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, "send an object with item, question, answer and seconds"
            )
        self._send_json(
            self.audit.record_answer(given["item"], given["question"], given["answer"], given["seconds"])
        )

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length, re.ASCII) or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        if int(length) > MAX_BODY:
            self.close_connection = True  # the unread body must not be parsed as the next request
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY} bytes")
        return cast(BinaryIO, self.rfile).read(int(length))

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode()
        self._send_bytes(data, "application/json; charset=utf-8", status)

    def _send_bytes(
        self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, *, cache: str = "no-store"
    ) -> None:
        self._send_head(
            status, {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": cache}
        )
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send_head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send_clip(self, rel: str) -> None:
        """Send a clip, or the part that a player asks for; without parts a browser cannot seek."""
        storage = self.audit.storage
        size = storage.get_size(rel)
        wanted = parse_byte_range(self.headers.get("Range"), size)
        headers = {
            "Content-Type": "video/mp4",
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, max-age=3600",
        }
        if wanted is None:
            start, end, status = 0, size, HTTPStatus.OK
        elif wanted == (0, 0):
            self._send_head(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                {"Content-Range": f"bytes */{size}", "Content-Length": "0"},
            )
            return
        else:
            (start, end), status = wanted, HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        with _open_file(storage, rel) as file:
            self._send_head(status, {**headers, "Content-Length": str(end - start)})
            if self.command == "HEAD":
                return
            file.seek(start)
            left = end - start
            while left:
                try:
                    chunk = bytes(file.read(min(_CHUNK_BYTES, left)))
                except OSError:
                    chunk = b""
                if not chunk:
                    # The file shrank or cannot be read: the Content-Length is wrong now.
                    self.close_connection = True
                    return
                self.wfile.write(chunk)
                left -= len(chunk)


@contextlib.contextmanager
def _open_file(storage: Storage, rel: str) -> Iterator[Any]:
    with storage.open_input(rel) as file:
        yield file


def parse_byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Parse a Range header to [start, end) in bytes (RFC 9110, 14.1.2).

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
