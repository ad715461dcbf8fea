"""The audit without a browser: the sample, the answers, the figures, and a server that checks requests."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.audit import Audit, create_server, open_audit, open_sample, summarise_audit
from curation.audit.judgements import Judgements
from curation.audit.questions import (
    CATEGORY,
    CLEAR,
    FRONTAL,
    MASK,
    PRESENT,
    Answer,
    is_good_subject,
    is_rejection_right,
    select_questions,
)
from curation.audit.sample import (
    KEPT,
    AuditItem,
    AuditSample,
    GeneratedPicture,
    Stratum,
    allocate_places,
    draw_sample,
    scan_subjects,
    split_places,
)
from curation.audit.server import MAX_BODY, parse_byte_range
from curation.audit.statistics import (
    AgreementRow,
    compute_kappa,
    compute_wilson_interval,
    estimate_share,
    find_consensus,
)
from pipelines.audit import main
from reprise.errors import RepriseError
from reprise.storage import Storage
from tests.curation.dataset.fake_dataset import Fake, write_dataset
from tests.s3 import S3

OPEN = (CATEGORY, MASK, CLEAR)


def item(
    name: str,
    reason: str | None = None,
    *,
    also: tuple[str, ...] = (),
    questions: Any = OPEN,
    made: tuple[str, ...] = (),
) -> AuditItem:
    return AuditItem(
        subject_id=name,
        shard="data/a.parquet",
        row=0,
        category="dog",
        kept=reason is None,
        reason=reason,
        failures=(reason, *also) if reason else (),
        questions=questions,
        generated=tuple(GeneratedPicture(each, each.rstrip("0"), True, None) for each in made),
        stratum=reason or KEPT,
    )


def sample_of(*items: AuditItem, population: dict[str, int] | None = None) -> AuditSample:
    drawn = Counter(each.stratum for each in items)
    strata = {name: Stratum((population or drawn)[name], count) for name, count in drawn.items()}
    return AuditSample(0, len(items), items, strata)


def all_yes(item: AuditItem, **otherwise: Answer) -> dict[str, Answer]:
    return {question.name: otherwise.get(question.name, "yes") for question in item.all_questions}


# ---- Wilson, kappa, weights --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert compute_wilson_interval(successes, trials) == (
        pytest.approx(low, abs=5e-5),
        pytest.approx(high, abs=5e-5),
    )


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_mirrors_and_narrows(case: tuple[int, int]) -> None:
    successes, trials = case
    low, high = compute_wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored = compute_wilson_interval(trials - successes, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == (pytest.approx(low), pytest.approx(high))
    wider = compute_wilson_interval(successes, trials)
    narrower = compute_wilson_interval(4 * successes, 4 * trials)
    assert narrower[1] - narrower[0] < wider[1] - wider[0]


def test_wilson_knows_nothing_without_trials_and_refuses_nonsense() -> None:
    assert compute_wilson_interval(0, 0) == (0, 1)
    for successes, trials in ((3, 2), (-1, 2), (1, -2)):
        with pytest.raises(ValueError):
            compute_wilson_interval(successes, trials)


def test_cohens_kappa_gives_the_textbook_value() -> None:
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert compute_kappa(pairs) == pytest.approx(0.4)


def test_cohens_kappa_at_its_ends() -> None:
    assert compute_kappa([("yes", "yes"), ("no", "no")]) == 1
    assert compute_kappa([("yes", "no"), ("no", "yes")]) == -1
    assert compute_kappa([("yes", "yes")] * 9) is None
    assert compute_kappa([]) is None


@given(st.lists(st.tuples(st.sampled_from("yn?"), st.sampled_from("yn?")), min_size=1))
def test_cohens_kappa_is_symmetric_and_bounded(pairs: list[tuple[str, str]]) -> None:
    kappa = compute_kappa(pairs)
    mirrored = compute_kappa([(right, left) for left, right in pairs])
    assert (kappa is None) == (mirrored is None)
    assert kappa is None or (kappa == pytest.approx(mirrored) and -1 <= kappa <= 1)


@given(st.lists(st.booleans(), min_size=1), st.floats(0.5, 1e6))
def test_equal_weights_change_nothing(outcomes: list[bool], weight: float) -> None:
    plain = AgreementRow("x", "kept", len(outcomes), sum(outcomes), 0)
    found = estimate_share("x", [(weight, outcome) for outcome in outcomes])
    assert found.share == pytest.approx(plain.accuracy)
    assert (found.low, found.high) == pytest.approx(plain.interval, abs=1e-9)


def test_unequal_weights_are_undone() -> None:
    # 10 of 1,000 and 10 of 10: nine tenths of the first stratum are right, none of the second.
    outcomes = [(100.0, n < 9) for n in range(10)] + [(1.0, False)] * 10
    found = estimate_share("x", outcomes)
    assert found.share == pytest.approx(900 / 1010)
    assert found.high - found.low > compute_wilson_interval(18, 20)[1] - compute_wilson_interval(18, 20)[0]


# ---- questions ---------------------------------------------------------------------------------------------


def test_questions_follow_from_what_was_found() -> None:
    names = [q.name for q in select_questions(box=True, mask=True, overlaps=True, human=True)]
    assert names == ["category", "mask", "clear", "own", "frontal"]
    assert [q.name for q in select_questions(box=True, mask=False, overlaps=False, human=False)] == [
        "category",
        "clear",
    ]
    assert select_questions(box=False, mask=False, overlaps=False, human=True) == [PRESENT]


@pytest.mark.parametrize(
    ("failure", "question"),
    [("label_min", "category"), ("sharpness_min", "clear"), ("border_share_max", "mask")],
)
def test_a_filter_is_judged_by_its_own_question(failure: str, question: str) -> None:
    answers: dict[str, Answer] = {q.name: "yes" for q in OPEN}
    assert is_rejection_right(failure, answers, OPEN) is False
    assert is_rejection_right(failure, {**answers, question: "no"}, OPEN) is True
    assert is_rejection_right(failure, {**answers, question: "unsure"}, OPEN) is None
    assert is_rejection_right(failure, {}, OPEN) is None


def test_a_reason_without_a_question_is_judged_by_all() -> None:
    answers: dict[str, Answer] = {"category": "yes", "clear": "yes"}
    assert is_rejection_right("no mask", answers, (CATEGORY, CLEAR)) is False
    assert is_rejection_right("no mask", {**answers, "clear": "no"}, (CATEGORY, CLEAR)) is True
    assert is_rejection_right("novelty_min", {**answers, "clear": "unsure"}, (CATEGORY, CLEAR)) is None
    # A threshold on faces for a subject without a question about faces.
    assert is_rejection_right("face_count_min", answers, (CATEGORY, CLEAR)) is False


def test_a_subject_that_was_not_found_is_judged_by_its_clip() -> None:
    assert is_rejection_right("not found", {"present": "no"}, (PRESENT,)) is True
    assert is_rejection_right("not found", {"present": "yes"}, (PRESENT,)) is False


def test_good_needs_every_answer_and_bad_only_one() -> None:
    assert is_good_subject({"category": "yes", "mask": "yes"}, OPEN) is None
    assert is_good_subject({"category": "no"}, OPEN) is False
    assert is_good_subject({"category": "yes", "mask": "yes", "clear": "yes"}, OPEN) is True


# ---- the draw ----------------------------------------------------------------------------------------------

SIZES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 60), max_size=8)


@given(SIZES, st.integers(0, 300))
def test_places_are_shared_fairly(sizes: dict[str, int], n: int) -> None:
    places = allocate_places(sizes, n)
    assert sum(places.values()) == min(n, sum(sizes.values()))
    assert all(0 <= places[name] <= sizes[name] for name in sizes)
    unfilled = [places[name] for name in sizes if places[name] < sizes[name]]
    if unfilled:  # no other stratum has more than one place more
        assert max(places.values()) <= min(unfilled) + 1
    more = allocate_places(sizes, n + 1)
    assert all(more[name] >= places[name] for name in sizes)


def test_half_and_half_unless_there_are_too_few() -> None:
    assert split_places(1000, 1000, 200) == (100, 100)
    assert split_places(1000, 30, 200) == (170, 30)
    assert split_places(5, 3, 200) == (5, 3)
    assert split_places(0, 9, 4) == (0, 4)


def crowd() -> list[AuditItem]:
    found = [item(f"k{n}") for n in range(500)]
    for reason, count in (("label_min", 300), ("sharpness_min", 40), ("not found", 3)):
        found += [item(f"{reason}{n}", reason) for n in range(count)]
    return found


def test_the_draw_is_half_kept_and_spread_over_the_reasons() -> None:
    made = draw_sample(crowd(), 100, 0)
    assert Counter(each.stratum for each in made.items) == {
        KEPT: 50, "label_min": 24, "sharpness_min": 23, "not found": 3,
    }  # fmt: skip
    assert made.strata["label_min"] == Stratum(300, 24)
    assert sum(stratum.population for stratum in made.strata.values()) == 843


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    one, again = draw_sample(crowd(), 60, 7), draw_sample(reversed(crowd()), 60, 7)
    assert [i.subject_id for i in one.items] == [i.subject_id for i in again.items]
    other = draw_sample(crowd(), 60, 8)
    assert {i.subject_id for i in one.items} != {i.subject_id for i in other.items}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(0, 200))
def test_a_larger_draw_contains_the_smaller(n: int, more: int) -> None:
    small, large = draw_sample(crowd(), n, 3), draw_sample(crowd(), n + more, 3)
    assert {i.subject_id for i in small.items} <= {i.subject_id for i in large.items}


def test_verdicts_are_mixed_in_the_order_of_showing() -> None:
    kept = [each.kept for each in draw_sample(crowd(), 200, 0).items]
    changes = sum(left != right for left, right in itertools.pairwise(kept))
    assert 70 < changes < 130


# ---- a dataset ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    return write_dataset(tmp_path_factory.mktemp("audit") / "walk", clips=30)


@pytest.fixture
def dataset(fake: Fake, tmp_path: Path) -> Storage:
    shutil.copytree(fake.root, tmp_path / "walk")
    return Storage.from_uri(tmp_path / "walk")


def test_every_judged_subject_of_the_dataset_can_be_drawn(fake: Fake, dataset: Storage) -> None:
    wanted = {s["subject_id"] for row in fake.rows for s in row["subjects"] if s["verdict"]}
    assert {each.subject_id for each in open_sample(dataset, 1000, 0).items} == wanted


def test_the_draw_is_frozen_when_it_is_first_made(dataset: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_sample(dataset, 20, 0)
    monkeypatch.setattr("curation.audit.sample.draw_sample", lambda *_: pytest.fail("drawn again"))
    assert open_sample(dataset, 20, 0) == first
    frozen = json.loads(dataset.read_bytes("audit/0-20.json"))
    assert [each["subject_id"] for each in frozen["items"]] == [each.subject_id for each in first.items]


def test_a_frozen_draw_judges_the_verdicts_of_today(
    dataset: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_sample(dataset, 20, 0)
    # As after a refilter that keeps everything.
    monkeypatch.setattr(
        "curation.audit.sample.scan_subjects",
        lambda *given: (replace(i, kept=True, reason=None, failures=()) for i in scan_subjects(*given)),
    )
    again = open_sample(dataset, 20, 0)
    assert all(each.kept for each in again.items)
    assert [each.stratum for each in again.items] == [each.stratum for each in first.items]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root), "no dataset at"),
        (lambda root: (root / "manifest.json").unlink(), "is not finished"),
        (lambda root: [path.unlink() for path in root.rglob("*") if path.is_file()], "is it a dataset?"),
        (lambda root: (root / "manifest.json").write_text("{"), "is not a Reprise manifest"),
        (lambda root: (root / "manifest.json").write_text('{"finished": false}'), "is not finished"),
        (lambda root: (root / "manifest.json").write_text('{"shards": []}'), "nothing to judge"),
        (lambda root: next((root / "data").iterdir()).write_bytes(b"PAR1"), "is damaged or not Parquet"),
    ],
)  # fmt: skip
def test_a_place_without_a_finished_dataset_is_one_line(dataset: Storage, spoil: Any, message: str) -> None:
    spoil(dataset.get_local_path())
    result = CliRunner().invoke(main, ["--dataset", dataset.uri, "--summary"])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_dataset_without_verdicts_has_nothing_to_judge(tmp_path: Path) -> None:
    write_dataset(tmp_path / "walk", clips=30)
    manifest = json.loads((tmp_path / "walk/manifest.json").read_text())
    import pyarrow.parquet as pq

    path = tmp_path / "walk" / manifest["shards"][0]["path"]
    manifest["shards"] = manifest["shards"][:1]
    (tmp_path / "walk/manifest.json").write_text(json.dumps(manifest))
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(RepriseError, match="nothing to judge"):
        open_sample(Storage.from_uri(tmp_path / "walk"), 20, 0)


def test_a_damaged_sample_and_a_new_dataset_are_one_line(dataset: Storage) -> None:
    open_sample(dataset, 20, 0)
    frozen = json.loads(dataset.read_bytes("audit/0-20.json"))
    frozen["items"][0]["subject_id"] = "somebody else"
    dataset.write_bytes("audit/0-20.json", json.dumps(frozen).encode())
    with pytest.raises(RepriseError, match="1 of the 20 drawn subjects are no longer in"):
        open_sample(dataset, 20, 0)
    dataset.write_bytes("audit/0-20.json", b'{"format": "reprise-audit-1"')
    with pytest.raises(RepriseError, match=r"0-20\.json is damaged"):
        open_sample(dataset, 20, 0)


# ---- judgements --------------------------------------------------------------------------------------------

PAIR = sample_of(item("a", made=("redux0",)), item("b", "label_min"))


def open_judgements(place: Path, judge: str = "ana", sample: AuditSample = PAIR) -> Judgements:
    return Judgements(Storage.from_uri(place), sample, judge)


def test_answers_are_on_disk_and_read_back(tmp_path: Path) -> None:
    first = open_judgements(tmp_path)
    first.record_answer("a", "category", "yes", 1.25)
    first.record_answer("a", "mask", "unsure", 2)
    lines = (tmp_path / "audit/0-2.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == ["yes", "unsure"]
    assert json.loads(lines[0])["seconds"] == 1.25
    assert open_judgements(tmp_path).get_answers() == {"a": {"category": "yes", "mask": "unsure"}}


def test_the_last_answer_wins_and_null_takes_it_back(tmp_path: Path) -> None:
    made = open_judgements(tmp_path)
    for answer in ("yes", "no", None, "unsure", "no"):
        made.record_answer("a", "category", answer, 1)  # type: ignore[arg-type]
    made.record_answer("a", "mask", "yes", 1)
    made.record_answer("a", "mask", None, 1)
    assert (
        made.get_subject_answers("a")
        == {"category": "no"}
        == open_judgements(tmp_path).get_subject_answers("a")
    )


def test_an_incomplete_last_line_loses_only_itself(tmp_path: Path) -> None:
    made = open_judgements(tmp_path)
    made.record_answer("a", "category", "yes", 1)
    made.record_answer("a", "mask", "yes", 1)
    path = tmp_path / "audit/0-2.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again = open_judgements(tmp_path)
    assert (again.damaged, again.get_subject_answers("a")) == (1, {"category": "yes"})
    again.record_answer("a", "clear", "no", 1)
    assert open_judgements(tmp_path).get_subject_answers("a") == {"category": "yes", "clear": "no"}


@settings(max_examples=40, deadline=None)  # every answer waits for the disk
@given(st.binary(max_size=200))
def test_no_line_whatever_it_holds_stops_the_audit(line: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "audit/0-2.jsonl")
        path.parent.mkdir()
        path.write_bytes(line + b"\n")
        made = open_judgements(Path(folder))
        made.record_answer("b", "clear", "no", 1)
        assert open_judgements(Path(folder)).get_subject_answers("b") == {"clear": "no"}


def test_judges_share_a_file_and_not_their_answers(tmp_path: Path) -> None:
    ana, bo = open_judgements(tmp_path), open_judgements(tmp_path, "Bo Ström / 猫")
    ana.record_answer("a", "category", "yes", 1)
    bo.record_answer("a", "category", "no", 1)
    again = open_judgements(tmp_path)
    assert again.list_judges() == ["Bo Ström / 猫", "ana"]
    assert again.get_subject_answers("a") == {"category": "yes"}
    assert again.get_answers("Bo Ström / 猫") == {"a": {"category": "no"}}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 61])
def test_a_judge_has_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(RepriseError, match="not a name for a judge"):
        open_judgements(tmp_path, name)


def test_an_answer_after_the_verdict_is_marked(tmp_path: Path) -> None:
    made = open_judgements(tmp_path)
    for question in ("category", "mask", "clear"):
        assert made.record_answer("b", question, "yes", 1).blind
    assert not made.record_answer("b", "mask", "no", 1).blind
    again = open_judgements(tmp_path)
    assert again.revised == {("ana", "b", "mask")}
    again.record_answer("b", "mask", None, 1)
    assert not open_judgements(tmp_path).record_answer("b", "mask", "yes", 1).blind


def test_the_time_of_a_subject_is_that_of_its_questions(tmp_path: Path) -> None:
    made = open_judgements(tmp_path)
    for question, seconds in (("category", 1.0), ("mask", 2.5), ("clear", 1e9)):
        made.record_answer("b", question, "yes", seconds)
    made.record_answer("a", "category", "yes", 9)
    assert made.list_seconds() == [3603.5]


def test_a_full_disk_is_reported_and_the_answer_does_not_count(tmp_path: Path, monkeypatch: Any) -> None:
    made = open_judgements(tmp_path)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("curation.audit.judgements.os.write", full)
    with pytest.raises(RepriseError, match=r"cannot write .*: No space left on device"):
        made.record_answer("a", "category", "yes", 1)
    assert made.get_subject_answers("a") == {}


# ---- the summary -------------------------------------------------------------------------------------------


def test_the_summary_counts_the_answers() -> None:
    kept = [item(f"k{n}", made=("redux0",)) for n in range(4)]
    lost = [item("r0", "label_min", also=("sharpness_min",)), item("r1", "label_min")]
    answers = {
        "k0": all_yes(kept[0]),
        "k1": all_yes(kept[1], mask="no"),
        "k2": all_yes(kept[2], category="unsure", **{"same:redux0": "no"}),
        "r0": all_yes(lost[0], category="no"),
        "r1": all_yes(lost[1]),
    }
    population = {KEPT: 400, "label_min": 20}
    found = summarise_audit(sample_of(*kept, *lost, population=population), {"ana": answers})
    assert (found.subjects, found.drawn, found.uncovered) == (5, 6, 0)
    assert found.kept == [
        AgreementRow("category", "kept", 2, 2, 1),
        AgreementRow("mask", "kept", 3, 2, 0),
        AgreementRow("clear", "kept", 3, 3, 0),
        AgreementRow("all", "kept", 2, 1, 1),
    ]
    assert found.rejected == [
        AgreementRow("label_min", "rejected", 2, 1, 0),
        AgreementRow("sharpness_min", "rejected", 1, 0, 0),
    ]
    assert found.generated == [AgreementRow("redux", "generated", 3, 2, 0)]
    shares = {each.name: each.share for each in found.dataset}
    # k0 and k1 represent 200 subjects each, r0 and r1 10 each.
    assert shares == {
        "correct decisions": pytest.approx(210 / 420),
        "kept correctly": pytest.approx(0.5),
        "rejected correctly": pytest.approx(0.5),
        "good subjects kept": pytest.approx(200 / 210),
    }


def test_reasons_without_a_judgement_are_reported_as_missing() -> None:
    items = [item("k"), item("r", "label_min")]
    found = summarise_audit(
        sample_of(*items, population={KEPT: 9, "label_min": 5}), {"ana": {"k": all_yes(items[0])}}
    )
    assert found.uncovered == 5
    assert found.dataset[2].share is None


def test_a_rejected_picture_is_agreed_with_by_no() -> None:
    made = replace(item("k"), generated=(GeneratedPicture("redux0", "redux", False, "identity_min"),))
    found = summarise_audit(sample_of(made), {"ana": {"k": all_yes(made, **{"same:redux0": "no"})}})
    assert found.generated == [AgreementRow("redux: identity_min", "rejected", 1, 1, 0)]


def test_questions_about_faces_are_only_for_humans() -> None:
    human, dog = item("h", questions=(*OPEN, FRONTAL)), item("d")
    found = summarise_audit(sample_of(human, dog), {"ana": {"h": all_yes(human), "d": all_yes(dog)}})
    assert [(row.name, row.judged) for row in found.kept if row.name == "frontal"] == [("frontal", 1)]


def test_two_judges_make_one_judgement_and_a_kappa() -> None:
    one = item("a")
    ana, bo, cy = all_yes(one), all_yes(one, mask="no"), all_yes(one, mask="unsure", clear="unsure")
    assert find_consensus([{"a": ana}, {"a": bo}])["a"]["mask"] == "unsure"
    assert find_consensus([{"a": ana}, {"a": cy}])["a"]["mask"] == "yes"
    found = summarise_audit(sample_of(one), {"ana": {"a": ana}, "bo": {"a": bo}})
    assert found.subjects == 1
    assert [(k.judges, k.answers, k.agreed) for k in found.kappas] == [(("ana", "bo"), 3, 2)]


# ---- the server --------------------------------------------------------------------------------------------


class Reply(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    def __init__(self, audit: Audit, port: int) -> None:
        self.audit, self.port = audit, port

    def __call__(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            headers = {"Content-Type": "application/json", **headers}
        connection.putrequest(
            method or ("GET" if data is None else "POST"), path, skip_host="Host" in headers
        )
        for name, value in headers.items():
            connection.putheader(name, value)
        if data is not None and "Content-Length" not in headers:
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        reply = connection.getresponse()
        found = Reply(reply.status, reply.headers, reply.read())
        connection.close()
        return found

    def answer(self, subject: str, question: str, answer: str | None = "yes") -> Reply:
        return self("/api/answers", {"item": subject, "question": question, "answer": answer, "seconds": 1.5})


@pytest.fixture
def client(dataset: Storage) -> Iterator[Client]:
    audit = open_audit(dataset, n=30, seed=0, judge="ana")
    server = create_server(audit)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Client(audit, server.server_port)
    server.shutdown()
    server.server_close()
    thread.join()


def first(client: Client, wanted: Any) -> AuditItem:
    return next(each for each in client.audit.sample.items if wanted(each))


def test_nothing_is_known_of_the_verdict_before_the_answers(client: Client) -> None:
    for each in client.audit.sample.items:
        shown = client(f"/api/items/{each.subject_id}").json
        assert shown["reveal"] is None
        assert shown["generated"] is None
        assert not {"verdict", "scores", "kept", "reason", "stratum"} & shown.keys()
    assert set(client("/api/state").json["items"][0]) == {"id", "done"}


def test_kept_and_rejected_look_alike(client: Client) -> None:
    kept = first(client, lambda i: i.kept)
    lost = first(client, lambda i: not i.kept and len(i.questions) == len(kept.questions))
    one, other = (client(f"/api/items/{each.subject_id}").json for each in (kept, lost))
    assert one.keys() == other.keys()
    for name in ("frame", "mask", "crop", "segment"):
        replies = [client(f"/pictures/{each.subject_id}/{name}") for each in (kept, lost)]
        assert [reply.status for reply in replies] == [200, 200]
        assert replies[0].headers["Content-Type"] == replies[1].headers["Content-Type"]


def test_generated_pictures_and_verdict_come_step_by_step(client: Client) -> None:
    one = first(client, lambda i: i.kept and i.generated)
    picture = f"/pictures/{one.subject_id}/{one.generated[0].name}"
    assert client(picture).status == 409
    assert client.answer(one.subject_id, one.reference_questions[0].name).status == 400
    for question in one.questions:
        reply = client.answer(one.subject_id, question.name).json
    assert [each["name"] for each in reply["generated"]] == [each.name for each in one.generated]
    assert reply["reveal"] is None
    assert client(picture).headers["Content-Type"] == "image/jpeg"
    for question in one.reference_questions:
        reply = client.answer(one.subject_id, question.name).json
    assert reply["reveal"]["kept"] is reply["reveal"]["agreed"] is True
    assert client("/api/state").json["seconds"] == pytest.approx(1.5 * len(one.all_questions))
    assert client.answer(one.subject_id, one.questions[0].name, None).json["reveal"] is None


def test_a_rejection_is_revealed_with_its_number(client: Client) -> None:
    one = first(client, lambda i: i.reason == "sharpness_min")
    for question in one.questions:
        reply = client.answer(one.subject_id, question.name, "no" if question == CLEAR else "yes").json
    message = reply["reveal"]
    assert (message["reason"], message["value"], message["threshold"]) == ("sharpness_min", 18.0, 40.0)
    assert message["agreed"] is True
    assert message["failures"] == [{"name": "sharpness_min", "agreed": True}]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fmanifest.json",
        "/manifest.json",
        "/audit/0-30.jsonl",
        "/clips/..%2f..%2fmanifest.json",
        "/clips/nobody",
        "/pictures/nobody/frame",
        "/pictures/%00/frame",
        "/api/items/",
        "/api/items/%2e%2e",
        "/api/items/a/b",
    ],
)
def test_only_subjects_of_the_draw_are_served(client: Client, path: str) -> None:
    assert client(path).status == 404


def test_names_of_pictures_are_looked_up(client: Client) -> None:
    one = client.audit.sample.items[0].subject_id
    for name in ("nothing", "..%2f..%2fmanifest.json", "%00", ""):
        assert client(f"/pictures/{one}/{name}").status == 404


def test_a_row_cannot_lead_out_of_the_dataset(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    one = client.audit.sample.items[0]
    secret = Path(client.audit.storage.uri).parent / "secret.mp4"
    secret.write_bytes(b"secret")
    for path in ("../secret.mp4", str(secret), "clips/../../secret.mp4"):
        monkeypatch.setattr(
            type(client.audit.rows), "read_subject", lambda *_, path=path: ({"clip_path": path}, {})
        )
        assert client(f"/clips/{one.subject_id}").status == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:80"])
def test_another_host_name_is_refused(client: Client, host: str) -> None:
    assert client("/api/state", Host=host).status == 403


def test_this_machine_is_known_by_both_names(client: Client) -> None:
    assert client("/api/state", Host=f"localhost:{client.port}").status == 200


def test_it_listens_on_this_machine_only(client: Client) -> None:
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        if not address.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((address, client.port), timeout=1)


def test_answers_come_from_the_page_itself(client: Client) -> None:
    one = client.audit.sample.items[0]
    body = {"item": one.subject_id, "question": one.questions[0].name, "answer": "yes", "seconds": 1}
    assert client("/api/answers", body, Origin="http://evil.example").status == 403
    assert client("/api/answers", body, Content_Type="text/plain").status == 415
    assert client.audit.judgements.get_answers() == {}
    assert client("/api/answers", body, Origin=f"http://127.0.0.1:{client.port}").status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 4000, 400),
        (b"\xff\xfe", 400),
        ([], 400),
        ({"item": "x"}, 400),
        ({"item": ["x"], "question": "category", "answer": "yes", "seconds": 1}, 404),
        ({"item": "nobody", "question": "category", "answer": "yes", "seconds": 1}, 404),
        (b" " * (MAX_BODY + 1), 413),
    ],
)
def test_a_strange_body_is_refused(client: Client, body: Any, status: int) -> None:
    assert client("/api/answers", body).status == status


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"question": "nonsense"}, 400),
        ({"question": 3}, 400),
        ({"question": {}}, 400),
        ({"answer": "maybe"}, 400),
        ({"answer": ["yes"]}, 400),
        ({"seconds": "1"}, 400),
        ({"seconds": True}, 400),
        ({"seconds": math.inf}, 400),
        ({"extra": 1}, 400),
        ({"seconds": -5}, 200),
    ],
)
def test_every_field_of_an_answer_is_checked(client: Client, change: dict[str, Any], status: int) -> None:
    one = client.audit.sample.items[0]
    body = {
        "item": one.subject_id,
        "question": one.questions[0].name,
        "answer": "yes",
        "seconds": 1,
        **change,
    }
    assert client("/api/answers", body).status == status


def test_a_body_needs_an_honest_length(client: Client) -> None:
    for length in ("-1", "x", "", "1e3"):
        assert client("/api/answers", b"{}", Content_Length=length).status == 411


def test_the_page_loads_from_no_other_machine(client: Client) -> None:
    reply = client("/")
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert b"http" not in reply.body
    assert {
        client(path).status for path in ("/audit.js", "/audit.css", "/style.css", "/dom.js", "/labels.js")
    } == {200}


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-7", (93, 100)),
        ("bytes=-700", (0, 100)),
        ("bytes=100-", (0, 0)),
        ("bytes=-0", (0, 0)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=٣-", None),
    ],
)
def test_ranges(header: str | None, wanted: Any) -> None:
    assert parse_byte_range(header, 100) == wanted


@given(st.integers(1, 500), st.integers(0, 600), st.one_of(st.none(), st.integers(0, 600)))
def test_a_range_is_the_slice_it_names(size: int, start: int, last: int | None) -> None:
    data = bytes(n % 251 for n in range(size))
    found = parse_byte_range(f"bytes={start}-{'' if last is None else last}", size)
    if last is not None and last < start:
        assert found is None
    else:
        assert found is not None
        assert data[found[0] : found[1]] == data[start : None if last is None else last + 1]


def test_a_clip_is_served_in_parts(client: Client) -> None:
    one = client.audit.sample.items[0]
    whole = client(f"/clips/{one.subject_id}")
    assert (whole.status, whole.headers["Accept-Ranges"]) == (200, "bytes")
    part = client(f"/clips/{one.subject_id}", Range="bytes=100-299")
    assert (part.status, part.body) == (206, whole.body[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(whole.body)}"
    assert client(f"/clips/{one.subject_id}", Range=f"bytes={len(whole.body)}-").status == 416
    head = client(f"/clips/{one.subject_id}", method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))


def test_a_missing_clip_fails_only_its_own_request(client: Client) -> None:
    one = client.audit.sample.items[0]
    shutil.rmtree(Path(client.audit.storage.uri) / "clips")
    assert client(f"/clips/{one.subject_id}").status == 404
    assert client(f"/api/items/{one.subject_id}").status == 200


def test_an_audit_goes_on_where_it_stopped(client: Client, dataset: Storage) -> None:
    one = first(client, lambda i: not i.generated)
    for question in one.questions:
        client.answer(one.subject_id, question.name)
    again = open_audit(dataset, n=30, seed=0, judge="ana")
    assert {each["id"] for each in again.get_state()["items"] if each["done"]} == {one.subject_id}
    assert not any(
        each["done"] for each in open_audit(dataset, n=30, seed=0, judge="bo").get_state()["items"]
    )


# ---- the command -------------------------------------------------------------------------------------------


def test_the_command_prints_the_table(dataset: Storage) -> None:
    audit = open_audit(dataset, n=30, seed=0, judge="ana")
    for each in audit.sample.items:
        for question in each.all_questions:
            audit.judgements.record_answer(each.subject_id, question.name, "yes" if each.kept else "no", 2)
    result = CliRunner().invoke(main, ["--dataset", dataset.uri, "--n", "30", "--summary"])
    assert result.exit_code == 0, result.output
    lines = {" ".join(line.split()[:2]): line.split() for line in result.stdout.splitlines() if line.strip()}
    assert lines["right category"][2:6] == ["15", "15", "100.0", "%"]
    assert lines["correct decisions"][3:5] == ["100.0", "%"]
    assert "Kaleido A.1" in result.stdout


def test_the_command_without_an_answer_exits_with_1(dataset: Storage) -> None:
    result = CliRunner().invoke(main, ["--dataset", dataset.uri, "--summary"])
    assert result.exit_code == 1
    assert result.stdout.startswith("0 of ")


def test_a_port_in_use_is_one_line(dataset: Storage, client: Client) -> None:
    result = CliRunner().invoke(
        main, ["--dataset", dataset.uri, "--n", "30", "--port", str(client.port), "--no-browser"]
    )
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"port {client.port} is taken" in result.stderr


def test_ctrl_c_ends_with_the_figures(dataset: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    result = CliRunner().invoke(
        main, ["--dataset", dataset.uri, "--n", "30", "--no-browser", "--judge", "ana"]
    )
    assert result.exit_code == 0, result.output
    assert "http://127.0.0.1:" in result.stdout
    assert "0 of 30 drawn subjects judged" in result.stdout


# ---- S3 ----------------------------------------------------------------------------------------------------


def test_a_dataset_on_s3_is_judged_in_one_small_file_per_judge(s3: S3, fake: Fake) -> None:
    place = Storage.from_uri(s3.uri)
    for path in sorted(each for each in fake.root.rglob("*") if each.is_file()):
        place.put_file(path, path.relative_to(fake.root).as_posix())
    ana = open_audit(place, n=20, seed=0, judge="ana")
    one = ana.sample.items[0]
    for question in one.questions:
        ana.record_answer(one.subject_id, question.name, "yes", 1)
    bo = open_audit(place, n=20, seed=0, judge="Bo/../x")
    bo.record_answer(one.subject_id, one.questions[0].name, "no", 1)
    names = place.list_paths("audit")
    assert names[0] == "audit/0-20.json"
    assert len(names) == 3
    assert all(name.startswith("audit/0-20/") and name.count("/") == 2 for name in names[1:])
    again = open_audit(place, n=20, seed=0, judge="ana")
    assert again.judgements.list_judges() == ["Bo/../x", "ana"]
    assert set(again.judgements.get_subject_answers(one.subject_id)) == {q.name for q in one.questions}
    again.record_answer(one.subject_id, one.questions[0].name, "no", 1)
    assert len(place.read_bytes("audit/0-20/ana.jsonl").splitlines()) == len(one.questions) + 1
    assert again.get_picture(one.subject_id, "frame")[1] == "image/jpeg" or one.questions == (PRESENT,)
    assert place.is_file(again.get_clip_path(one.subject_id))
