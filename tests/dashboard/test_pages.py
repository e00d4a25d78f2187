"""The dashboard as an operator uses it: a real browser, the real process, a real gateway under load."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("nicegui", reason="the extra 'dashboard' is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import Browser, Page, ViewportSize, expect

from app.dashboard.shell import PAGES
from tests.dashboard.axe import axe_source, violations
from tests.dashboard.stage import KEY, PAST, SLOW, Stage, browser, chromium, stage, until

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="chromium is not installed"),
    pytest.mark.timeout(300),
]
expect.set_options(timeout=20_000)
_WIDE: ViewportSize = {"width": 1440, "height": 900}
_NARROW: ViewportSize = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("dashboard")) as found:
        yield found


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def op(on: Stage, chrome: Browser) -> Iterator[Page]:
    """A page whose session has begun; nothing that it asks for may be elsewhere, nothing may go wrong in it."""
    context = chrome.new_context(viewport=_WIDE, base_url=on.url, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(15_000)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto("/login")
    page.get_by_label("ADMIN_KEY").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{on.url}/")
    yield page
    context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith((on.url, on.url.replace("http", "ws"), "data:", "blob:"))] == []
    assert len(asked) > 20


def test_it_asks_for_the_key_first(on: Stage, chrome: Browser) -> None:
    context = chrome.new_context(viewport=_NARROW, base_url=on.url)
    page = context.new_page()
    page.goto("/calls")
    expect(page).to_have_url(re.compile(r"/login\?next=/calls"))
    page.get_by_label("ADMIN_KEY").fill("guess")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not the ADMIN_KEY")
    page.get_by_label("ADMIN_KEY").fill(KEY)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{on.url}/calls")
    expect(page.get_by_role("heading", name="Calls", level=1)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= _NARROW["width"]
    page.locator("header summary").click()
    page.get_by_role("link", name="Log out").click()
    expect(page).to_have_url(f"{on.url}/login")
    context.close()


def test_overview_shows_what_goes_on(op: Page) -> None:
    op.goto("/")
    expect(op.locator('.chart svg path[fill^="var(--series"]').filter(visible=True).first).to_be_visible()
    expect(op.locator(".chart")).to_contain_text("groq/llama-3.1-8b-instant")
    op.get_by_role("button", name="Tier").click()
    expect(op.locator(".chart")).to_contain_text("medium")
    op.locator("summary", has_text="As a table").click()
    expect(op.get_by_role("columnheader", name="medium")).to_be_visible()
    op.get_by_role("button", name="24 h").click()
    expect(op.get_by_role("button", name="24 h")).to_have_attribute("aria-pressed", "true")
    expect(op.get_by_role("table", name="Newest calls").locator("tbody tr")).to_have_count(8)
    expect(op.locator(".card", has=op.get_by_role("heading", name="Lanes"))).to_contain_text("closed")


def test_a_calls_stages_verdict_attempts_and_faults(op: Page) -> None:
    op.goto(f"/calls/{PAST}")
    one = op.get_by_label("The chosen call")
    for told in (
        "code, complexity",
        "no code block",
        "too short",
        "polished: yes",
        "streamed",
        "saved $",
        "asks for code",
    ):
        expect(one).to_contain_text(told)
    rows = one.get_by_role("table", name="Stages of the call in order").locator("tbody tr")
    expect(rows.get_by_role("rowheader")).to_have_text(
        ["receive", "parse", "classify", "plan", "queue", "connect", "first token", "stream", "check", "respond"]
    )
    expect(one.get_by_role("table", name="Attempts in order").locator("tbody tr")).to_have_count(2)
    one.get_by_role("button", name="Close").click()
    expect(one).to_be_hidden()
    expect(op).to_have_url(re.compile("/calls$"))


def test_calls_are_filtered_and_paged(op: Page) -> None:
    op.goto("/calls")
    table = op.get_by_role("table", name="Calls, newest first")
    op.get_by_label("Target").fill("openai/gpt-5.1")
    op.get_by_role("button", name="Filter").click()
    expect(table.locator("tbody tr", has_text="groq/")).to_have_count(0)
    expect(table.locator("tbody tr").first).to_contain_text("gpt-5.1")
    op.get_by_label("Target").fill("")
    op.get_by_role("button", name="Filter").click()
    op.get_by_role("button", name="Older").click()
    expect(op.get_by_role("button", name="Newer")).to_be_visible()
    row = table.get_by_role("link").first
    name = row.get_attribute("data-id")
    row.click()
    expect(op).to_have_url(re.compile(f"/calls/{name}$"))
    expect(op.get_by_label("The chosen call")).to_contain_text("Stages")


def test_a_breaker_is_forced_open_and_closed(op: Page, on: Stage) -> None:
    target = "groq/llama-3.1-8b-instant"
    until(lambda: target in on.api.get("/admin/breakers").json()["lanes"])
    op.goto("/lanes")
    row = op.get_by_role("row", name=target)
    for button, shown, forced in (
        ("Open", "forced open", "open"),
        ("Close", "forced closed", "closed"),
        ("Auto", "closed", None),
    ):
        row.get_by_role("button", name=button).click()
        expect(row.locator(".chip")).to_have_text(shown)
        expect(row.get_by_role("button", name=button)).to_have_attribute("aria-pressed", "true")
        assert on.api.get("/admin/breakers").json()["lanes"][target]["forced"] == forced
        if forced == "open":
            expect(op.get_by_role("status").first).to_contain_text("Sluice is degraded")


def _serves(on: Stage) -> str:
    roles = on.api.get("/admin/roles").json()["roles"]
    return str(next(each["serves"] for each in roles if each["role"] == "analysis"))


def test_a_role_is_switched_and_switched_back(op: Page, on: Stage) -> None:
    op.goto("/roles")
    before = _serves(on)
    op.get_by_label("Chain of analysis").fill("openai/gpt-5.1")
    op.get_by_role("button", name="Switch analysis").click()
    expect(op.locator(".toast")).to_contain_text("MODEL_ANALYSIS=openai/gpt-5.1")
    assert _serves(on) == "openai/gpt-5.1"
    op.get_by_label("Chain of analysis").fill("nobody/x")
    op.keyboard.press("Enter")
    expect(op.locator(".toast.bad")).to_contain_text("there is no backend 'nobody'")
    op.get_by_role("button", name="Undo").click()
    expect(op.get_by_role("button", name="Undo")).to_have_count(0)
    assert _serves(on) == before


def test_the_playground_previews_and_streams(op: Page) -> None:
    op.goto("/playground")
    op.get_by_label("What a caller would ask").fill("Write a python function that adds two numbers.")
    op.get_by_role("button", name="Preview route").click()
    route = op.get_by_label("Route", exact=True)
    expect(route).to_contain_text("code, complexity")
    expect(route).to_contain_text("groq/llama-3.3-70b-versatile")
    answer = op.get_by_label("Answer", exact=True)
    for _ in range(2):  # streamed, then plain
        op.get_by_role("button", name="Send").click()
        expect(answer.get_by_role("status")).to_contain_text("whole")
        expect(answer.get_by_label("Text of the answer")).to_contain_text("scripted")
        expect(answer).to_contain_text("groq/llama-3.3-70b-versatile")
        expect(answer.get_by_role("table", name="Stages of the call")).to_contain_text("classify")
        op.get_by_label("Stream the answer").uncheck()
    answer.get_by_role("link").click()  # the ledger has it within a second
    expect(op.get_by_label("The chosen call")).to_contain_text("Stages")


def test_the_playground_tells_what_went_wrong_and_can_be_stopped(op: Page) -> None:
    op.goto("/playground")
    op.get_by_label("What a caller would ask").fill("What is the time?")
    op.get_by_label("Model").evaluate("e => e.append(new Option('groq/m-pace:2000', 'groq/m-pace:2000', true, true))")
    op.get_by_role("button", name="Send").click()
    op.get_by_role("button", name="Stop").click()
    answer = op.get_by_label("Answer", exact=True)
    expect(answer.get_by_role("status")).to_contain_text("stopped")
    op.get_by_label("Model").evaluate("e => e.append(new Option('groq/m-400filter', 'groq/m-400filter', true, true))")
    op.get_by_role("button", name="Send").click()
    expect(answer.get_by_role("alert")).to_contain_text("content management policy")


def test_a_local_model_is_downloaded_with_a_bar_then_loaded_and_unloaded(op: Page, on: Stage) -> None:
    if on.hub is None:
        pytest.skip("the extra 'local' is not installed")
    op.goto("/models")
    form = op.locator("form", has=op.get_by_label("Hub id or folder"))
    form.get_by_role("textbox").fill(SLOW)
    form.get_by_role("button", name="Download").click()
    card = op.locator(".card", has=op.get_by_role("heading", name=SLOW))
    expect(card.get_by_role("progressbar")).to_be_visible()
    expect(card.locator(".chip")).to_have_text(re.compile(r"downloading \d+ %"))
    on.hub.go_on.set()
    expect(card.locator(".chip")).to_have_text("not loaded")
    card.get_by_role("button", name="Load").click()
    expect(card.locator(".chip")).to_have_text("ready")
    expect(op.get_by_label(re.compile("of the memory budget in use"))).to_be_visible()
    card.get_by_role("button", name="Unload").click()
    expect(card.locator(".chip")).to_have_text("not loaded")


_DARK = {"/", "/roles", f"/calls/{PAST}"}
"""Pages that between them have every colour."""


def test_axe_finds_nothing_serious_on_any_page_in_either_theme(op: Page) -> None:
    source = axe_source()
    found = {}
    for path in (*(path for _, path, _ in PAGES if path != "/calls"), f"/calls/{PAST}"):
        op.emulate_media(color_scheme="light")
        op.goto(path)
        expect(op.locator(".skeleton")).to_have_count(0)
        light = violations(op, source)
        op.emulate_media(color_scheme="dark")
        found[path] = light + (violations(op, source, "color-contrast") if path in _DARK else [])
    op.emulate_media(color_scheme="light")
    assert {path: told for path, told in found.items() if told} == {}


def test_every_page_fits_a_phone_and_the_keyboard_reaches_it(op: Page) -> None:
    op.set_viewport_size(_NARROW)
    for _, path, title in PAGES:
        op.goto(path)
        expect(op.get_by_role("heading", name=title, level=1)).to_be_visible()
        expect(op.locator(".skeleton")).to_have_count(0)
        assert op.evaluate("document.documentElement.scrollWidth") <= _NARROW["width"], path
    op.keyboard.press("Tab")
    expect(op.get_by_role("link", name="Skip to the content")).to_be_focused()
    op.keyboard.press("Tab")
    op.keyboard.press("Enter")
    expect(op.get_by_role("navigation", name="Pages, small screen")).to_be_visible()
    op.set_viewport_size(_WIDE)


def test_a_theme_that_is_chosen_stays(op: Page) -> None:
    ground: Callable[[], str] = lambda: str(op.evaluate("getComputedStyle(document.body).backgroundColor"))  # noqa: E731
    op.emulate_media(color_scheme="light")
    op.goto("/lanes")
    light = ground()
    op.get_by_role("button", name="Dark").click()
    assert ground() != light
    op.goto("/roles")
    expect(op.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    assert ground() != light
    op.get_by_role("button", name="Auto").click()
    assert ground() == light


def test_a_gateway_that_is_gone_is_told_and_what_was_known_stays(op: Page, on: Stage, tmp_path: Path) -> None:
    op.goto("/lanes")
    expect(op.get_by_role("table", name="Lanes with their breakers")).to_be_visible()
    on.gateway.kill()
    expect(op.get_by_role("status").first).to_contain_text("does not answer")
    expect(op.get_by_role("table", name="Lanes with their breakers")).to_be_visible()
    op.goto("/money")
    expect(op.get_by_text("does not answer").first).to_be_visible()  # failed, or of before and not up to date
