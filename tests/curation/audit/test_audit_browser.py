"""The audit as a judge meets it: served on this machine, in headless Chromium."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from curation.audit import Audit, create_server, open_audit
from curation.audit.questions import PRESENT
from reprise.storage import Storage
from tests.curation.dataset.fake_dataset import Fake, write_dataset

pytestmark = pytest.mark.browser

DRAWN = 16


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    return write_dataset(tmp_path_factory.mktemp("audit") / "street walk #1", clips=30)


class Page:
    """An audit and a window that shows it."""

    def __init__(self, browser: Any, storage: Storage, judge: str = "ana") -> None:
        self.browser, self.storage, self.judge = browser, storage, judge
        self.audit: Audit = open_audit(storage, n=DRAWN, seed=0, judge=judge)
        self._server = create_server(self.audit)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        self.resize(1440, 900)
        browser.get("about:blank")
        browser.get_log("browser")
        self.load()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def load(self) -> None:
        self.browser.get(f"http://127.0.0.1:{self._server.server_port}/")
        self.wait_until_ready()

    def resize(self, width: int, height: int) -> None:
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )

    def js(self, code: str, *given: Any) -> Any:
        return self.browser.execute_script(code, *given)

    def until(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 20, poll_frequency=0.02).until(lambda _: condition())

    def wait_until_ready(self) -> None:
        """Wait until a question is shown or all are judged, and every answer is saved."""
        self.until(
            lambda: self.js(
                "return document.querySelector('main').ariaBusy === 'false' && !audit.busy"
                " && (audit.active !== null || audit.item.reveal !== null || !byId('figures').hidden)"
            )
        )

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()
            self.wait_until_ready()

    def click(self, selector: str) -> None:
        found = self.browser.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        found.click()
        self.wait_until_ready()

    @property
    def shown(self) -> str:
        return str(self.js("return audit.item.id"))

    @property
    def question_name(self) -> str | None:
        found: str | None = self.js("return audit.active")
        return found

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def judge_one(self, key: str = "1") -> str:
        """Give all answers about the shown subject; return its id."""
        subject = self.shown
        while self.shown == subject and self.question_name and self.js("return byId('figures').hidden"):
            self.press(key)
        return subject

    def kept_on_disk(self) -> dict[str, dict[str, str]]:
        """What a restart would know."""
        again = open_audit(self.storage, n=DRAWN, seed=0, judge=self.judge)
        return {subject: dict(given) for subject, given in again.judgements.get_answers().items() if given}

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture
def page(browser: Any, fake: Fake, tmp_path: Path) -> Iterator[Page]:
    shutil.copytree(fake.root, tmp_path / fake.root.name)
    made = Page(browser, Storage.from_uri(tmp_path / fake.root.name))
    yield made
    made.close()


def order(page: Page) -> list[str]:
    return [each.subject_id for each in page.audit.sample.items]


def go_to(page: Page, wanted: Callable[[Any], bool]) -> Any:
    """Show the first subject of a kind."""
    at, item = next((n, each) for n, each in enumerate(page.audit.sample.items) if wanted(each))
    page.js("return visitItem(arguments[0])", at)
    page.wait_until_ready()
    return item


def test_it_opens_with_the_first_subject_and_without_a_complaint(page: Page) -> None:
    assert page.shown == order(page)[0]
    assert page.js("return document.querySelectorAll('.checks button').length") == len(
        page.audit.sample.items[0].questions
    )
    assert page.text("#count") == f"0 of {DRAWN} judged"
    page.until(lambda: page.js("return [...document.images].every((i) => i.complete)"))
    assert page.js("return [...document.images].every((i) => i.naturalWidth > 0)")
    assert page.errors() == []


def test_the_page_loads_nothing_from_another_machine(page: Page) -> None:
    page.judge_one()
    seen = page.js("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert all(name.startswith(page.browser.current_url) for name in seen)


def test_keys_record_answers(page: Page) -> None:
    one = go_to(page, lambda i: len(i.questions) >= 3)
    page.press("1", "n", " ")
    names = [question.name for question in one.questions[:3]]
    assert page.kept_on_disk() == {one.subject_id: dict(zip(names, ("yes", "no", "unsure"), strict=True))}


def test_clicks_record_answers(page: Page) -> None:
    one = go_to(page, lambda i: len(i.questions) >= 3)
    for answer in ("no", "unsure", "yes"):
        page.click(f"[data-answer={answer}]")
    names = [question.name for question in one.questions[:3]]
    assert page.kept_on_disk() == {one.subject_id: dict(zip(names, ("no", "unsure", "yes"), strict=True))}


def test_fast_keys_lose_no_answer(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    one = go_to(page, lambda i: len(i.questions) >= 3 and not i.kept)
    ActionChains(page.browser).send_keys("121").perform()
    page.wait_until_ready()
    assert list(page.kept_on_disk()[one.subject_id].values())[:3] == ["yes", "no", "yes"]


def test_a_reload_goes_on_at_the_next_one(page: Page) -> None:
    done = [page.judge_one() for _ in range(3)]
    assert done == order(page)[:3]
    page.press("1")
    question_name = page.question_name
    page.load()
    assert (page.shown, page.question_name) == (order(page)[3], question_name)
    assert page.text("#count").startswith(f"3 of {DRAWN} judged")
    assert page.js("return byId('progress').getAttribute('aria-valuenow')") == "3"


def test_a_restart_goes_on_at_the_next_one(page: Page, browser: Any) -> None:
    done = [page.judge_one() for _ in range(2)]
    again = Page(browser, page.storage)
    assert again.shown == order(page)[2]
    assert set(page.kept_on_disk()) == set(done)
    again.close()


def test_the_verdict_is_shown_only_after_the_answers(page: Page) -> None:
    one = go_to(page, lambda i: i.reason == "sharpness_min")
    sources = page.js("return document.documentElement.outerHTML")
    assert not any(word in sources for word in ("Rejected", "Kept", "sharpness", "Blurred"))
    page.judge_one("1")
    assert "Rejected" in page.text(".last")
    assert "Blurred 18.0 < 40" in page.text(".last")
    assert "You disagree" in page.text(".last")
    page.click(".last")
    assert page.shown == one.subject_id
    assert page.text(".outcome .fails dt") == "Sharpness"


def test_generated_pictures_appear_once_the_subject_is_judged(page: Page) -> None:
    one = go_to(page, lambda i: i.kept and len(i.generated) >= 2)
    for _ in one.questions:
        assert page.js("return document.querySelectorAll('.versus').length") == 0
        page.press("1")
    assert page.question_name == one.reference_questions[0].name
    page.until(
        lambda: page.js("return [...document.querySelectorAll('.versus img')].every((i) => i.naturalWidth)")
    )
    page.press("2")
    assert page.question_name == one.reference_questions[1].name
    page.judge_one("1")
    assert "Kept" in page.text(".last")
    assert "You agree" in page.text(".last")
    assert page.kept_on_disk()[one.subject_id][one.reference_questions[0].name] == "no"


def test_undo_takes_the_last_answer_back(page: Page) -> None:
    one = go_to(page, lambda i: len(i.questions) >= 3)
    page.press("1", "2", "u")
    assert page.question_name == one.questions[1].name
    assert page.kept_on_disk() == {one.subject_id: {one.questions[0].name: "yes"}}
    page.click("[data-step=undo]")
    assert page.question_name == one.questions[0].name
    assert page.kept_on_disk() == {}


def test_undo_reaches_the_subject_before_and_an_earlier_sitting(page: Page) -> None:
    before = page.judge_one("1")
    assert page.shown != before
    page.load()
    page.press("u")
    assert page.shown == before
    assert page.question_name == page.audit.sample.by_id[before].all_questions[-1].name
    assert page.text("#count").startswith("0 of")
    page.press("2")
    assert page.shown == order(page)[1]
    assert list(page.kept_on_disk()[before].values())[-1] == "no"
    lines = (Path(page.storage.uri) / page.audit.judgements.path).read_text().splitlines()
    assert json.loads(lines[-1])["blind"] is False


def test_arrows_go_back_and_forward(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    ids = order(page)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.until(lambda: page.shown == ids[2])
    page.press(Keys.ARROW_LEFT)
    page.until(lambda: page.shown == ids[1])
    question_name = page.question_name
    page.press(Keys.ARROW_DOWN)
    assert page.question_name != question_name
    page.press(Keys.ARROW_UP)
    assert page.question_name == question_name
    assert page.kept_on_disk() == {}


def test_what_was_skipped_comes_back_at_the_end(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    ids = order(page)
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: page.shown == ids[1])
    for _ in ids[1:]:
        page.judge_one()
    assert page.shown == ids[0]


def test_an_answer_can_be_changed_later(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    one = page.judge_one("1")
    page.press(Keys.ARROW_LEFT)
    page.until(lambda: page.shown == one)
    question = page.audit.sample.by_id[one].questions[0].name
    page.click(f'[data-question="{question}"]')
    page.press("2")
    assert page.shown == one
    assert page.kept_on_disk()[one][question] == "no"


def test_the_mask_and_the_enlargement(page: Page) -> None:
    go_to(page, lambda i: any(q.name == "mask" for q in i.questions))
    visible = "return getComputedStyle(document.querySelector('.view .mask')).visibility"
    assert page.js(visible) == "visible"
    page.press("m")
    assert page.js(visible) == "hidden"
    assert page.js("return document.querySelector('.toggle').getAttribute('aria-pressed')") == "false"
    page.press("m", "z")
    assert page.js("return document.querySelector('.view').classList.contains('checkered')")
    page.click("[data-view=crop]")
    assert page.js("return document.querySelector('.view > img').src").endswith("/crop")
    page.click("[data-view=crop]")
    assert page.js("return document.querySelectorAll('.view > svg').length") == 1


def test_a_clip_plays_and_seeks(page: Page) -> None:
    page.until(lambda: page.js("const v = document.querySelector('video'); return v.currentTime > 0.05"))
    page.js("const v = document.querySelector('video'); v.pause(); v.currentTime = 1.5")
    page.until(
        lambda: page.js(
            "const v = document.querySelector('video');"
            "return !v.seeking && Math.abs(v.currentTime - 1.5) < 0.1"
        )
    )
    assert page.js("return document.querySelector('video').seekable.end(0)") > 1.9


def test_a_missing_clip_shows_a_message(page: Page) -> None:
    shutil.rmtree(Path(page.storage.uri) / "clips")
    page.load()
    page.until(lambda: "The clip is gone" in page.text(".gone"))


def test_a_subject_that_was_not_found_is_looked_for_in_the_clip(page: Page) -> None:
    one = go_to(page, lambda i: i.questions == (PRESENT,))
    assert page.js("return document.querySelectorAll('.view > video').length") == 1
    assert page.text("#ask-title") == "Is “quiet street” in this clip?"
    page.press("2")
    assert page.kept_on_disk() == {one.subject_id: {"present": "no"}}
    assert "You agree" in page.text(".last")


def test_captions_with_markup_are_shown_as_text(page: Page) -> None:
    for n in range(DRAWN):
        page.js("return visitItem(arguments[0])", n)
        page.until(lambda n=n: page.shown == order(page)[n])
        assert page.js("return document.querySelectorAll('.caption script, .caption img').length") == 0
        assert page.text("title").endswith(" · Audit")


def test_the_figures_are_those_of_the_answers(page: Page) -> None:
    keys = "1121131211"
    for n in range(DRAWN):
        page.judge_one(keys[n % len(keys)])
    page.until(lambda: page.text("#figures h1") == f"All {DRAWN} judged")
    rows = page.js(
        "return [...document.querySelectorAll('[data-row]')].map((r) => [r.dataset.row,"
        " ...[...r.cells].slice(1, 4).map((c) => c.textContent)])"
    )
    found = page.audit.build_summary()
    wanted = [
        [f"{r.of}/{r.name}", str(r.judged), str(r.agreed), f"{100 * r.accuracy:.1f} %" if r.judged else ""]
        for r in [*found.kept, *found.rejected, *found.generated]
        if r.accuracy is not None or not r.judged
    ]
    assert rows == wanted
    # And counted by hand, from the lines of the file.
    kept = {each.subject_id for each in page.audit.sample.items if each.kept}
    answers = [given["category"] for subject, given in page.kept_on_disk().items() if subject in kept]
    row = next(each for each in rows if each[0] == "kept/category")
    assert row[1:3] == [str(len([a for a in answers if a != "unsure"])), str(answers.count("yes"))]
    assert page.errors() == []


def test_figures_can_be_looked_at_in_between(page: Page) -> None:
    page.judge_one()
    shown = page.shown
    page.press("f")
    page.until(lambda: page.text("#figures h1") == "Figures so far")
    page.press("1")
    assert len(page.kept_on_disk()) == 1
    page.click(".back")
    page.until(lambda: page.js("return byId('figures').hidden"))
    assert page.shown == shown


def test_an_answer_that_was_not_saved_is_not_shown_as_saved(page: Page, browser: Any) -> None:
    question = page.question_name
    page.js("window.fetch = () => Promise.reject(new Error('gone'))")
    page.press("1")
    page.until(lambda: "The audit is not running any more" in page.text("#problem"))
    assert page.kept_on_disk() == {}
    page.load()
    assert page.question_name == question


@pytest.mark.parametrize("size", [(390, 844), (768, 1024), (1024, 768), (1440, 900)])
def test_no_window_scrolls_sideways(page: Page, size: tuple[int, int]) -> None:
    page.resize(*size)

    def fits() -> bool:
        return bool(page.js("return document.documentElement.scrollWidth <= innerWidth"))

    page.load()
    for _ in range(4):
        assert fits()
        page.judge_one()
    page.press("f")
    page.until(lambda: page.text("#figures h1"))
    assert fits()
    assert page.errors() == []


def test_on_a_phone_question_and_picture_are_seen_together(page: Page) -> None:
    page.resize(390, 844)
    page.load()
    inside = page.js(
        "const at = (s) => document.querySelector(s).getBoundingClientRect();"
        "return [at('.view').top >= 0, at('.answers').bottom <= innerHeight,"
        " at('.answers button').height >= 44]"
    )
    assert inside == [True, True, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page: Page, scheme: str) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page.judge_one("1")
    contrasts = page.js(CONTRASTS, [".hint", ".kind", ".checks button", ".answers button", ".last .ruling"])
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(contrasts) >= 4.5


def test_the_parts_have_names_for_those_who_do_not_see_them(page: Page) -> None:
    nameless = page.js(
        "return [...document.querySelectorAll('button, video, svg[role=img], img')].filter((e) =>"
        " !(e.getAttribute('aria-label') || e.textContent.trim() || e.alt || e.getAttribute('alt') === ''))"
        ".map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert page.js("return document.activeElement.id") == "ask"
    page.press("?")
    assert page.js("return byId('keys').open")


# Contrast of text with its background (WCAG 2.2, 1.4.3), for the first element of each selector.
CONTRASTS = """
const shade = (c) => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * shade(r) + 0.7152 * shade(g) + 0.0722 * shade(b);
const behind = (e) => {
  const c = rgb(getComputedStyle(e).backgroundColor);
  return c.length < 4 || c[3] === 1 || !e.parentElement ? c : behind(e.parentElement);
};
return arguments[0].map((selector) => {
  const e = document.querySelector(selector);
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
});
"""
