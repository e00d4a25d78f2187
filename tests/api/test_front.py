"""The first page: JSON for programs, a page for browsers."""

from __future__ import annotations

import pytest

from app.api.front import dashboard_url, page
from app.settings import Settings
from tests.conftest import Running

_BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_programs_get_json_and_browsers_a_page_with_a_link_to_the_dashboard(sluice: Running) -> None:
    for headers in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        assert (await sluice.client.get("/", headers=headers)).json()["name"] == "sluice"
    answer = await sluice.client.get("/", headers=_BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    assert 'href="http://127.0.0.1:8001/"' in answer.text
    assert f"{sluice.url}" in answer.text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8001/"),
        ("[::1]:8000", "http://[::1]:8001/"),
        ("sluice.example", "http://sluice.example:8001/"),
        ("[", "http://127.0.0.1:8001/"),
        ("", "http://127.0.0.1:8001/"),
    ],
)
def test_the_dashboard_is_on_the_host_that_the_browser_reached(host: str, url: str) -> None:
    assert dashboard_url(Settings(), host) == url


def test_an_address_that_was_set_is_the_one() -> None:
    assert dashboard_url(Settings(dashboard_url="https://ops.example/"), "x") == "https://ops.example/"


def test_the_callers_host_cannot_write_html() -> None:
    shown = page(Settings(), "http", 'x"><script>alert(1)</script>')
    assert "<script>" not in shown
