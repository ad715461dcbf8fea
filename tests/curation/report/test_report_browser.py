"""The report as a reader meets it: opened from disk in headless Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from curation.report import build_report
from tests.curation.dataset.fake_dataset import CHINESE, NASTY, Fake, write_dataset

pytestmark = pytest.mark.browser

CLIPS, PER_PAGE = 60, 24


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    made = write_dataset(tmp_path_factory.mktemp("browser") / "street walk #1", clips=CLIPS)
    build_report(made.root, clips_per_page=PER_PAGE)
    return made


class Page:
    """The report in a window of a given size."""

    def __init__(
        self, browser: Any, root: Path, size: tuple[int, int] = (1440, 900), state: str = ""
    ) -> None:
        self.browser, self.root = browser, root
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500},
        )
        browser.get("about:blank")  # otherwise a change of only the hash would not load the page again
        browser.get_log("browser")
        browser.get((root / "report/index.html").as_uri() + (f"#{state}" if state else ""))
        self.wait_until_ready()

    def js(self, code: str, *given: Any) -> Any:
        return self.browser.execute_script(code, *given)

    def until(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 20, poll_frequency=0.05).until(lambda _: condition())

    def wait_until_ready(self) -> None:
        """Wait until the gallery shows the requested page."""
        self.js("return new Promise((done) => setTimeout(done, 220))")  # typing is waited for, too
        self.until(
            lambda: self.js("return document.querySelector('.cards')?.getAttribute('aria-busy') === 'false'")
        )

    def click(self, selector: str) -> None:
        """A real click: entries of the history that no hand made are skipped by the back button."""
        found = self.browser.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        found.click()
        self.wait_until_ready()

    def press(self, key: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(key).perform()
        self.wait_until_ready()

    def choose(self, facet: str, option: str) -> None:
        """Open a filter's list and choose from it, as a reader would."""
        self.click(f"[data-facet={facet}] .pick")
        self.click(f'[data-facet={facet}] [data-option="{option}"]')

    def cards(self) -> list[str]:
        found: list[str] = self.js(
            "return [...document.querySelectorAll('.card')].map((c) => c.dataset.clip)"
        )
        return found

    def total(self) -> int:
        """The number of clips that the gallery shows."""
        return int(self.js("return document.querySelector('.summary').dataset.total"))

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture
def page(browser: Any, fake: Fake) -> Page:
    return Page(browser, fake.root)


def test_opens_from_disk_without_a_complaint(page: Page, fake: Fake) -> None:
    assert page.js("return location.protocol") == "file:"
    assert page.js("return document.querySelector('h1').textContent") == fake.root.name
    assert page.cards() == [row["clip_id"] for row in fake.rows[:PER_PAGE]]
    assert page.errors() == []


def test_the_page_loads_nothing_from_another_machine(page: Page) -> None:
    seen = page.js("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert all(name.startswith(("file:", "data:")) for name in seen)


def test_verdict_and_accounts_are_those_of_the_manifest(page: Page, fake: Fake) -> None:
    m = fake.manifest
    text = page.js("return document.querySelector('.verdict').textContent")
    assert (
        text
        == f"{m['videos']['in']} videos → {m['clips']['in']} clips → {m['subjects']['kept']} kept subjects"
    )
    assert page.js("return document.querySelectorAll('.accounts .good').length") == 2
    assert page.js("return document.querySelectorAll('.accounts .bad').length") == 0


def test_accounts_that_do_not_add_up_are_red(browser: Any, tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "set", clips=4)
    made.manifest["videos"]["in"] += 3
    (made.root / "manifest.json").write_text(json.dumps(made.manifest), encoding="utf-8")
    build_report(made.root)
    page = Page(browser, made.root)
    assert "3 unaccounted for" in page.js("return document.querySelector('.accounts .bad').textContent")


def test_funnel_shows_the_manifests_numbers(page: Page, fake: Fake) -> None:
    shown = page.js(
        "return [...document.querySelectorAll('.stage')].map((s) => [s.dataset.stage,"
        " Number((s.querySelector('[data-in]') || s.querySelector('[data-out]')).dataset.in"
        " ?? s.querySelector('[data-out]').dataset.out), Number(s.querySelector('[data-out]').dataset.out)])"
    )
    assert shown == [[s["stage"], s["in"], s["out"]] for s in fake.manifest["funnel"]]


def test_the_funnel_shows_its_reasons_on_hover(page: Page) -> None:
    page.js(
        "document.querySelector('[data-stage=filter] .strip')"
        ".dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))"
    )
    assert page.js("return document.querySelector('#tip').hidden") is False
    assert "too dark" in page.js("return document.querySelector('#tip').textContent")


def test_a_reason_in_the_funnel_leads_to_its_clips(page: Page, fake: Fake) -> None:
    page.click('.losses button[title$="sharpness_min"]')
    assert page.total() == fake.with_reason("sharpness_min") > 0


def test_every_measured_score_has_a_histogram_with_its_thresholds(page: Page) -> None:
    scores = page.js("return [...document.querySelectorAll('[data-score]')].map((f) => f.dataset.score)")
    assert {"area_share", "sharpness", "brightness", "overlap_iou", "face_frontality"} <= set(scores)
    label = page.js("return document.querySelector('[data-score=sharpness] .limit-label').textContent")
    assert label == "min 40"
    assert page.js("return document.querySelectorAll('[data-score=area_share] .limit').length") == 2


@pytest.mark.parametrize("status", ["kept", "rejected", "failed"])
def test_verdict_filter(page: Page, fake: Fake, status: str) -> None:
    text = page.js(
        "return document.querySelector(`.segments [data-option=${arguments[0]}] .n`).textContent", status
    )
    page.click(f".segments [data-option={status}]")
    wanted = fake.count(status)
    assert page.total() == int(text) == wanted
    assert len(page.cards()) == min(wanted, PER_PAGE)
    assert set(page.js("return [...document.querySelectorAll('.card')].map((c) => c.dataset.status)")) == {
        status
    }


def test_category_filter_and_its_search(page: Page, fake: Fake) -> None:
    page.choose("category", "dog")
    assert page.total() == fake.with_category("dog") > 0
    first = page.js("return document.querySelector('.card .kind').textContent")
    assert first == "dog · animal"
    page.js("document.querySelector('[data-facet=category] .pick').click()")
    field = "const f = document.querySelector('[data-facet=category] input');"
    page.js(f"{field} f.value = 'boa'; f.dispatchEvent(new Event('input'))")
    options = page.js(
        "const found = document.querySelectorAll('[data-facet=category] [data-option]');"
        "return [...found].map((b) => b.dataset.option)"
    )
    assert options == ["boat"]


def test_group_filter_counts(page: Page, fake: Fake) -> None:
    page.choose("group", "animal")
    wanted = [r["clip_id"] for r in fake.rows if any(s["group"] == "animal" for s in r["subjects"])]
    assert page.total() == len(wanted)


@pytest.mark.parametrize("reason", ["sharpness_min", "no caption", "moov atom not found", "not found"])
def test_reason_filter(page: Page, fake: Fake, reason: str) -> None:
    page.choose("reason", reason)
    assert page.total() == fake.with_reason(reason) > 0


def test_category_and_reason_must_meet_in_one_subject(page: Page, fake: Fake) -> None:
    page.choose("reason", "sharpness_min")
    option = page.js(
        "document.querySelector('[data-facet=category] .pick').click();"
        "const b = document.querySelector('[data-facet=category] [data-option]');"
        "return [b.dataset.option, b.querySelector('.n').textContent]"
    )
    page.click(f'[data-facet=category] [data-option="{option[0]}"]')
    assert page.total() == int(option[1]) == fake.with_category(option[0], "sharpness_min")


@pytest.mark.parametrize(("query", "wanted"), [("RED Coat", None), (CHINESE[:4], 1), ("街 100%", None)])
def test_free_text(page: Page, fake: Fake, query: str, wanted: int | None) -> None:
    field = "const f = document.querySelector('.search'); f.focus();"
    page.js(f"{field} f.value = arguments[0]; f.dispatchEvent(new Event('input'))", query)
    page.wait_until_ready()
    words = query.lower().split()
    found = [
        r for r in fake.rows if all(w in f"{r['caption'] or ''} {r['source_path']}".lower() for w in words)
    ]
    assert page.total() == len(found) > 0
    assert wanted is None or len(found) == wanted


def test_nothing_matches(page: Page) -> None:
    page.js(
        "const f = document.querySelector('.search'); f.value = 'xyzzy'; f.dispatchEvent(new Event('input'))"
    )
    page.wait_until_ready()
    assert page.js("return document.querySelector('.empty').textContent") == "No clip matches.Clear filters"
    page.click(".empty button")
    assert page.total() == CLIPS


def test_pages(page: Page, fake: Fake) -> None:
    from selenium.webdriver.common.keys import Keys

    ids = [row["clip_id"] for row in fake.rows]
    page.click(".pager [aria-label='Next page']")
    assert page.cards() == ids[24:48]
    assert page.js("return location.hash") == "#page=2"
    page.press(Keys.ARROW_RIGHT)
    assert page.cards() == ids[48:]
    page.press(Keys.ARROW_RIGHT)
    assert page.cards() == ids[48:]
    page.press(Keys.ARROW_LEFT)
    assert page.cards() == ids[24:48]


def test_the_address_holds_the_state_and_back_restores_it(page: Page, browser: Any, fake: Fake) -> None:
    page.click(".segments [data-option=kept]")
    page.choose("category", "dog")
    both = page.cards()
    assert set(page.js("return location.hash").lstrip("#").split("&")) == {"verdict=kept", "category=dog"}
    browser.back()
    page.wait_until_ready()
    assert page.total() == fake.count("kept")
    browser.back()
    page.wait_until_ready()
    assert page.total() == CLIPS
    browser.forward()
    browser.forward()
    page.wait_until_ready()
    assert page.cards() == both
    assert Page(browser, fake.root, state="verdict=kept&category=dog").cards() == both


def test_an_address_with_nonsense_is_an_empty_or_a_first_page(browser: Any, fake: Fake) -> None:
    assert len(Page(browser, fake.root, state="page=-7").cards()) == PER_PAGE
    assert len(Page(browser, fake.root, state="page=999").cards()) == CLIPS % PER_PAGE
    assert Page(browser, fake.root, state=urlencode({"reason": NASTY})).cards() == []


def test_a_clip_plays(page: Page) -> None:
    page.click(".card .play")
    page.until(
        lambda: page.js(
            "const v = document.querySelector('video'); return v.readyState >= 2 && v.currentTime > 0.1"
        )
    )
    state = page.js(
        "const v = document.querySelector('video'); return [v.muted, v.loop, v.controls, v.preload]"
    )
    assert state == [True, True, True, "none"]


def test_a_clip_with_an_awkward_path_plays(browser: Any, fake: Fake) -> None:
    row = next(r for r in fake.rows if "#" in (r["clip_path"] or ""))
    page = Page(browser, fake.root, state=f"q={quote(row['caption'] or row['source_path'])}")
    page.js(
        "const card = [...document.querySelectorAll('.card')].find((c) => c.dataset.clip === arguments[0]);"
        "card.querySelector('.play').click()",
        row["clip_id"],
    )
    page.until(
        lambda: page.js("return [...document.querySelectorAll('video')].some((v) => v.currentTime > 0.1)")
    )


def test_a_missing_clip_shows_a_message(browser: Any, tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "set", clips=1)
    build_report(made.root)
    shutil.rmtree(made.root / "clips")
    page = Page(browser, made.root)
    page.click(".play")
    page.until(lambda: page.js("return document.querySelector('.player .over')"))


def test_lost_data_files_are_named(browser: Any, tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "set", clips=1)
    build_report(made.root)
    (made.root / "report/data/index.js").unlink()
    browser.get((made.root / "report/index.html").as_uri())
    page = Page.__new__(Page)
    page.browser = browser
    text = page.until(lambda: page.js("return document.querySelector('.cards .notice')?.textContent"))
    assert "data/index.js could not be loaded" in text


def test_captions_with_markup_are_shown_as_text(page: Page, fake: Fake) -> None:
    assert page.js("return document.title") == f"{fake.root.name} · Reprise report"
    assert page.js("return document.querySelectorAll('.caption script, .caption img').length") == 0
    captions = page.js("return [...document.querySelectorAll('.caption')].map((c) => c.textContent)")
    assert any(NASTY in text for text in captions)
    assert any(CHINESE in text for text in captions)


def test_matched_phrases_are_marked(page: Page) -> None:
    marks = page.js(
        "const caption = document.querySelector('.card .caption');"
        "return [...caption.querySelectorAll('mark')].map((m) => m.textContent)"
    )
    assert marks == ["A brown puppy", "a woman in a red coat", "quiet street"]


def test_a_rejected_subject_shows_the_number_that_failed(page: Page) -> None:
    failed = page.js("return document.querySelector('.card .fails').textContent")
    assert failed == "Sharpness18.0min 40"


def test_lightbox(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.click(".card .tile.segment button")
    assert page.js("return document.querySelector('#lightbox').open")
    assert "grabcut@1" in page.js("return document.querySelector('#lightbox dl').textContent")
    page.press(Keys.ARROW_RIGHT)
    assert "Inpaint" in page.js("return document.querySelector('#lightbox dl').textContent")
    assert page.js("return location.hash") == ""
    page.press(Keys.ESCAPE)
    assert not page.js("return document.querySelector('#lightbox').open")
    assert page.js("return document.activeElement.closest('.tile.segment') !== null")


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440])
def test_nothing_is_wider_than_the_window(browser: Any, fake: Fake, width: int) -> None:
    page = Page(browser, fake.root, size=(width, 844))
    assert page.js("return document.documentElement.scrollWidth") <= width
    page.js("document.querySelector('[data-facet=reason] .pick').click()")
    assert page.js("return document.documentElement.scrollWidth") <= width
    box = page.js(
        "const r = document.querySelector('[data-facet=reason] .panel').getBoundingClientRect();"
        "return [r.left, r.right]"
    )
    assert box[0] >= 0 and box[1] <= width


def test_controls_and_pictures_have_names(page: Page) -> None:
    nameless = page.js(
        "return [...document.querySelectorAll('button, input, video, img, [role=img]')].filter((e) =>"
        " !(e.getAttribute('aria-label') || e.alt || e.textContent.trim()))"
        ".map((e) => e.outerHTML.slice(0, 90))"
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(browser: Any, fake: Fake, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page = Page(browser, fake.root)
    paper, card = (_color(page, name) for name in ("--paper", "--card"))
    for name in ("--ink", "--muted", "--accent", "--lost"):
        for ground in (paper, card):
            assert _contrast(_color(page, name), ground) >= 4.5, (scheme, name)
    for name, soft in (("--accent", "--accent-soft"), ("--lost", "--lost-soft"), ("--muted", "--soft")):
        assert _contrast(_color(page, name), _color(page, soft)) >= 4.5, (scheme, name, soft)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_dataset_without_clips_and_manifest_sections_still_opens(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"videos": {"in": 0}, "funnel": null}', encoding="utf-8")
    build_report(tmp_path)
    browser.get_log("browser")
    browser.get((tmp_path / "report/index.html").as_uri())
    text = browser.execute_script("return document.body.innerText")
    assert "The shards hold no clip." in text and "No subject was measured." in text
    assert browser.get_log("browser") == []


def _color(page: Page, name: str) -> tuple[int, int, int]:
    text = page.js("return getComputedStyle(document.documentElement).getPropertyValue(arguments[0])", name)
    digits = text.strip().lstrip("#")
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def _contrast(left: tuple[int, int, int], right: tuple[int, int, int]) -> float:
    """WCAG 2 contrast ratio, 1..21."""

    def luminance(color: tuple[int, int, int]) -> float:
        parts = [c / 255 for c in color]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(left), luminance(right)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
