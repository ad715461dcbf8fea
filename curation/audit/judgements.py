"""The answers of all judges: one line of JSON per answer, on disk before the server replies.

On a local disk all judges share `audit/<seed>-<n>.jsonl`. S3 cannot append, so there each judge has a small
file, `audit/<seed>-<n>/<judge>.jsonl`, which every answer rewrites. The last of several answers to a question
by one judge counts. The answer null removes the one before.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from curation.audit.questions import ANSWERS, Answer
from curation.audit.sample import AUDIT_FOLDER, AuditSample
from reprise.digest import compute_digest
from reprise.errors import RepriseError
from reprise.storage import Storage

MAX_SECONDS: Final = 3600.0  # s; more is recorded as this
_JUDGE_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,60}")


@dataclass(frozen=True)
class Judgement:
    """One answer. The fields are those of a line of the file."""

    judge: str
    subject_id: str
    question: str
    answer: Answer | None  # None: taken back
    seconds: float  # s, how long the question was looked at
    blind: bool  # the verdict had not been shown to this judge
    at: str  # ISO 8601, UTC


class Judgements:
    """The answers of all judges to one sample. It writes the answers of one judge.

    Raises:
        RepriseError: `judge` is not a valid name, or the answers cannot be read.
    """

    def __init__(self, storage: Storage, sample: AuditSample, judge: str) -> None:
        self.judge = judge.strip()
        if not _JUDGE_NAME.fullmatch(self.judge):
            raise RepriseError(f"{judge!r} is not a name for a judge: give 1 to 60 printable characters")
        self._storage, self._sample = storage, sample
        self._lock = threading.Lock()
        self.damaged = 0  # lines that could not be read
        self._lines: list[bytes] = []  # this judge's, for places that cannot append
        self._answers: dict[str, dict[str, dict[str, Answer]]] = {}
        self._seconds: dict[str, dict[tuple[str, str], float]] = {}
        self._unblinded: set[tuple[str, str]] = set()  # (judge, subject) whose verdict was shown
        self.revised: set[tuple[str, str, str]] = set()  # answers changed after that
        for data in self._read_files():
            for line in data.splitlines():
                judgement = _parse_line(line) if line.strip() else None
                if judgement is None:
                    # After a loss of power at most one line is incomplete; the others count.
                    self.damaged += bool(line.strip())
                    continue
                self._apply_judgement(judgement)
                if judgement.judge == self.judge:
                    self._lines.append(line)

    @property
    def path(self) -> str:
        """Path of the answers, below the dataset."""
        if self._storage.is_remote:
            return f"{AUDIT_FOLDER}/{self._sample.name}/{_build_file_name(self.judge)}.jsonl"
        return f"{AUDIT_FOLDER}/{self._sample.name}.jsonl"

    def _read_files(self) -> Iterator[bytes]:
        if self._storage.is_remote:
            for rel in self._storage.list_paths(f"{AUDIT_FOLDER}/{self._sample.name}", ".jsonl"):
                yield self._storage.read_bytes(rel)
        elif self._storage.is_file(self.path):
            yield self._storage.read_bytes(self.path)

    def _apply_judgement(self, judgement: Judgement) -> None:
        item = self._sample.by_id.get(judgement.subject_id)
        if item is None or judgement.question not in {each.name for each in item.all_questions}:
            return  # about a picture that no longer exists
        who, subject, question = judgement.judge, judgement.subject_id, judgement.question
        answers = self._answers.setdefault(who, {}).setdefault(subject, {})
        if judgement.answer is None:
            answers.pop(question, None)
        else:
            answers[question] = judgement.answer
        self._seconds.setdefault(who, {})[subject, question] = judgement.seconds
        if not judgement.blind:
            self._unblinded.add((who, subject))
            self.revised.add((who, subject, question))
        if self._is_complete(subject, answers):
            self._unblinded.add((who, subject))

    def record_answer(
        self, subject_id: str, question: str, answer: Answer | None, seconds: float
    ) -> Judgement:
        """Record an answer; on return it is on disk.

        Raises:
            RepriseError: it could not be written, so it does not count.
        """
        with self._lock:
            judgement = Judgement(
                self.judge,
                subject_id,
                question,
                answer,
                round(min(max(seconds, 0.0), MAX_SECONDS), 2),
                (self.judge, subject_id) not in self._unblinded,
                datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            )
            line = json.dumps(asdict(judgement), ensure_ascii=False).encode()
            self._write_line(line)
            self._apply_judgement(judgement)
            return judgement

    def _write_line(self, line: bytes) -> None:
        path = self._storage.get_local_path(self.path)
        if path is None:
            self._storage.write_bytes(self.path, b"".join(each + b"\n" for each in [*self._lines, line]))
            self._lines.append(line)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One write for the whole line, because two servers may append at the same time.
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                data = (b"\n" if torn else b"") + line + b"\n"
                if os.write(handle, data) != len(data):
                    raise OSError(None, "no space left")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise RepriseError(f"cannot write {path}: {error.strerror}") from error

    def get_answers(self, judge: str | None = None) -> Mapping[str, Mapping[str, Answer]]:
        """Return subject_id -> question -> answer, of this or another judge, as a copy."""
        with self._lock:
            return {each: dict(given) for each, given in self._answers.get(judge or self.judge, {}).items()}

    def list_judges(self) -> list[str]:
        """List the judges with an answer that counts, sorted."""
        with self._lock:
            return sorted(who for who, items in self._answers.items() if any(items.values()))

    def get_subject_answers(self, subject_id: str) -> Mapping[str, Answer]:
        """Return question -> answer, of this judge about one subject."""
        with self._lock:
            return dict(self._answers.get(self.judge, {}).get(subject_id, {}))

    def _is_complete(self, subject_id: str, given: Mapping[str, Answer]) -> bool:
        return len(given) == len(self._sample.by_id[subject_id].all_questions)

    def list_seconds(self) -> list[float]:
        """List how long this judge looked at each completed subject, s."""
        with self._lock:
            looked: dict[str, float] = {}
            for (subject, _), seconds in self._seconds.get(self.judge, {}).items():
                looked[subject] = looked.get(subject, 0.0) + seconds
            answers = self._answers.get(self.judge, {})
            return [looked[each] for each, given in answers.items() if self._is_complete(each, given)]


def _parse_line(line: bytes) -> Judgement | None:
    """Parse a line of the file; None if it is damaged."""
    try:
        found: Any = json.loads(line)
        fields = {name: found[name] for name in Judgement.__annotations__}
    except (ValueError, KeyError, TypeError):
        return None
    texts = (fields["judge"], fields["subject_id"], fields["question"], fields["at"])
    number = fields["seconds"]
    if not all(isinstance(text, str) for text in texts) or fields["answer"] not in (None, *ANSWERS):
        return None
    if not isinstance(fields["blind"], bool) or isinstance(number, bool):
        return None
    if not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return Judgement(**fields)


def _build_file_name(judge: str) -> str:
    """Build the file name of a judge; a hash distinguishes names that would become equal."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", judge).strip("._")
    return plain if plain == judge else f"{plain or 'judge'}-{compute_digest(judge, length=8)}"
