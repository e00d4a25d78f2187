"""The dashboard as an operator uses it: a real browser, the real process, a real gateway under load."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import Browser, Page, ViewportSize, expect

from app.dashboard.render import usd
from tests.dashboard.axe import axe_source, violations
from tests.dashboard.past import NEWEST, REFERENCE, SET_BACK
from tests.dashboard.stage import CALLER_KEY, KEY, SLOW, Stage, browser, chromium, stage, until

pytestmark = [
    pytest.mark.skipif(find_spec("nicegui") is None, reason="the extra 'dashboard' is not installed"),
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
    context.request.post("/login", form={"key": KEY}, max_redirects=0)
    yield page
    context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith((on.url, on.url.replace("http", "ws"), "data:", "blob:"))] == []
    assert len(asked) > 20


_LOOKED_AT: set[str] = set()


def looks_at(path: str, *, dark: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Where a test has left its page, it is to be one for everybody: no serious finding of axe-core, and at a phone's
    width nothing that goes over the edge; ``dark`` of those that between them have every colour.
    """
    _LOOKED_AT.add(path)

    def looking(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def both(op: Page, **fixtures: Any) -> None:
            test(op=op, **fixtures)
            assert urlsplit(op.url).path.startswith(path)
            expect(op.locator(".skeleton")).to_have_count(0)
            found = violations(op, axe_source())
            if dark:
                op.emulate_media(color_scheme="dark")
                found += violations(op, axe_source(), "color-contrast")
                op.emulate_media(color_scheme="light")
            op.set_viewport_size(_NARROW)
            width = op.evaluate("document.documentElement.scrollWidth")
            op.set_viewport_size(_WIDE)
            assert (found, width) == ([], _NARROW["width"])

        return both

    return looking


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


@looks_at("/", dark=True)
def test_overview_shows_what_goes_on(op: Page) -> None:
    op.goto("/")
    links = op.get_by_role("navigation", name="Pages").get_by_role("link")
    assert {link.get_attribute("href") for link in links.all()} == _LOOKED_AT
    expect(op.locator('.chart svg path[fill^="var(--series"]').filter(visible=True).first).to_be_visible()
    expect(op.locator(".chart")).to_contain_text("groq/llama-3.1-8b-instant")
    op.get_by_role("button", name="Tier").click()
    expect(op.locator(".chart")).to_contain_text("medium")
    op.locator("summary", has_text="As a table").click()
    expect(op.get_by_role("columnheader", name="medium")).to_be_visible()
    op.locator("summary", has_text="As a table").click()
    op.get_by_role("button", name="24 h").click()
    expect(op.get_by_role("button", name="24 h")).to_have_attribute("aria-pressed", "true")
    op.get_by_role("button", name="1 h").click()
    expect(op.get_by_role("table", name="Newest calls").locator("tbody tr")).to_have_count(8)
    expect(op.locator(".card", has=op.get_by_role("heading", name="Lanes"))).to_contain_text("closed")


def test_a_calls_stages_verdict_attempts_and_faults(op: Page) -> None:
    op.goto(f"/calls/{NEWEST}")
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


@looks_at("/calls", dark=True)
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


@looks_at("/lanes")
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


@looks_at("/roles", dark=True)
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


@looks_at("/playground")
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


@looks_at("/models")
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


@looks_at("/money")
def test_money_by_day_task_and_tenant_with_its_interval(op: Page, on: Stage) -> None:
    op.goto("/money")
    figures = op.locator(".figures")
    expect(figures).to_contain_text("95 %: $")
    expect(figures).to_contain_text("of it for parity")
    expect(op.get_by_text("shadow samples show")).to_be_visible()
    op.locator("summary", has_text="As a table").click()
    table = op.get_by_role("table", name="Cost and baseline")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    expect(table.get_by_role("rowheader", name=today)).to_be_visible()
    for by, names in (("Task", {"none", "map", "translation"}), ("Tenant", {"web-shop", "support"})):
        op.get_by_role("button", name=by).click()
        for name in names:
            expect(table.get_by_role("rowheader", name=name, exact=True)).to_be_visible()
    rows = on.api.get("/v1/savings", params={"by": "tenant", "days": 30}).json()["by"]
    (shop,) = (each for each in rows if each["name"] == "web-shop")
    cells = table.get_by_role("row", name="web-shop").get_by_role("cell")
    expect(cells).to_have_text([usd(shop[name]) for name in ("cost_usd", "baseline_usd", "saved_usd")])
    op.get_by_role("button", name="7 days").click()
    expect(op.get_by_role("button", name="7 days")).to_have_attribute("aria-pressed", "true")
    expect(op.locator('.chart svg path[fill="var(--series-8)"]').first).to_be_visible()


@looks_at("/keys")
def test_a_key_is_made_spends_its_budget_is_rotated_and_revoked(op: Page, on: Stage) -> None:
    def call(key: str) -> int:
        body = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
        return on.api.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}).status_code

    op.goto("/keys")
    expect(op.get_by_text("No key yet")).to_be_visible()
    op.get_by_label("Name").fill("web shop")
    op.get_by_label("Calls a minute").fill("many")
    op.get_by_role("button", name="Make the key").click()
    expect(op.locator(".toast.bad")).to_contain_text("Calls a minute: 'many' is no whole number")
    for label, text in (("Name", "web shop"), ("Budget a day, USD", "0.0001"), ("Calls a minute", "600")):
        op.get_by_label(label).fill(text)
    op.get_by_role("button", name="Make the key").click()
    key = op.locator("#made-key").inner_text()
    assert call(key) == 200
    until(lambda: call(key) == 429)
    row = op.get_by_role("row", name="web shop")
    expect(row).to_contain_text("of $0.0001")
    expect(row).to_contain_text("600 calls/min")
    expect(row.get_by_label("100 % used")).to_be_visible()
    row.get_by_role("button", name="Rotate web shop").click()
    expect(op.locator("#made-key")).not_to_have_text(key)
    fresh = op.locator("#made-key").inner_text()
    assert (call(fresh), call(key)) == (429, 429), "both are good, and share what is spent"
    op.get_by_role("button", name="I have it").click()
    expect(op.locator("#made-key")).to_have_count(0)
    row.get_by_role("button", name="Revoke web shop").click()
    row.get_by_role("button", name="Keep").click()
    row.get_by_role("button", name="Revoke web shop").click()
    row.get_by_role("button", name="Revoke web shop for good").click()
    expect(row.locator(".chip")).to_have_text("revoked")
    assert call(fresh) == 401
    assert call(CALLER_KEY) == 200


@looks_at("/parity")
def test_parity_shows_its_tests_and_a_role_that_was_set_back_is_armed_again(op: Page, on: Stage) -> None:
    def in_force() -> list[str]:
        roles = on.api.get("/admin/roles").json()["roles"]
        return next(list(each["in_force"]) for each in roles if each["role"] == "accurate")

    assert in_force() == [REFERENCE]
    op.goto("/roles")
    expect(op.get_by_role("row", name="accurate")).to_contain_text("Parity has set it back")
    op.get_by_role("link", name="armed again").click()
    learning, certified, breached = (
        op.locator(".card", has=op.get_by_role("heading", name=name, exact=True))
        for name in ("analysis · task map", "fast", "accurate")
    )
    expect(learning).to_contain_text("140 of at most 20,000")
    expect(certified.locator(".chip")).to_have_text("certified")
    expect(certified).to_contain_text("+0.26 points")
    expect(certified).to_contain_text("the other way round in")
    expect(breached.locator(".chip")).to_have_text(["breached", "set back"])
    expect(op.get_by_role("button", name="Arm")).to_have_count(1)
    expect(op.get_by_text("$0.3140 of $1.00")).to_be_visible()
    breached.get_by_role("button", name="Arm accurate again").click()
    expect(op.locator(".toast")).to_contain_text(f"{SET_BACK} is in use again")
    expect(breached).to_have_count(0)
    expect(op.get_by_role("table", name="Decisions").locator("tbody tr").first).to_contain_text("rearmed")
    until(lambda: in_force() == [SET_BACK])


def test_the_keyboard_reaches_the_content_and_the_menu_of_a_phone(op: Page) -> None:
    op.set_viewport_size(_NARROW)
    op.goto("/lanes")
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
