"""``GET /`` for browsers: a page that says what this is and where to look."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app import __version__

if TYPE_CHECKING:
    from app.settings import Settings

_LINKS = (
    ("/health/ready", "Readiness", "what is usable, and what is wrong where something is not"),
    ("/v1/models", "Models", "what may stand in “model”"),
    ("/metrics", "Metrics", "for Prometheus"),
    ("/docs", "API", "every endpoint"),
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sluice</title><style>
:root {{ color-scheme: light dark }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; font: 16px/1.55 system-ui, sans-serif;
  background: light-dark(#f5f6f8, #0d1014); color: light-dark(#12181f, #e8ecf0) }}
main {{ width: min(560px, calc(100vw - 40px)); padding: 32px 0 }}
h1 {{ margin: 0 0 4px; font-size: 26px; letter-spacing: -.01em }}
p {{ margin: 0 0 20px; color: light-dark(#566270, #98a4b1) }}
code {{ font: 14px ui-monospace, monospace; color: light-dark(#12181f, #e8ecf0); overflow-wrap: anywhere }}
ul {{ list-style: none; margin: 0; padding: 0; border-top: 1px solid light-dark(#e2e6ea, #272e37) }}
li {{ border-bottom: 1px solid light-dark(#e2e6ea, #272e37) }}
a {{ display: block; padding: 12px 2px; color: light-dark(#0b6e78, #4cc4cf); font-weight: 600; text-decoration: none }}
a:hover {{ text-decoration: underline }}
a span {{ display: block; font-weight: 400; font-size: 14px; color: light-dark(#566270, #98a4b1) }}
</style></head><body><main>
<h1>Sluice</h1>
<p>Version {version}. Point OpenAI clients at <code>{base_url}</code>.</p>
<ul>{links}</ul>
</main></body></html>
"""


def wants_page(accept: str) -> bool:
    """Return whether a browser asks: programs that want anything get JSON."""
    return "text/html" in accept


def page(settings: Settings, scheme: str, host: str) -> str:
    """Return what there is, for people.

    Args:
        settings: those in force.
        scheme: the request's.
        host: the request's ``Host``, which is the caller's word.
    """
    links = ((dashboard_url(settings, host), "Dashboard", "start it with “sluice dashboard”"), *_LINKS)
    shown = "".join(
        f'<li><a href="{escape(url)}">{escape(name)}<span>{escape(told)}</span></a></li>' for url, name, told in links
    )
    return _PAGE.format(version=__version__, base_url=escape(f"{scheme}://{host}/v1"), links=shown)


def dashboard_url(settings: Settings, host: str) -> str:
    """Return where a browser that reached Sluice under this host finds the dashboard."""
    if settings.dashboard_url:
        return settings.dashboard_url
    try:
        name = urlsplit(f"//{host}").hostname or "127.0.0.1"
    except ValueError:
        name = "127.0.0.1"
    return f"http://{f'[{name}]' if ':' in name else name}:{settings.dashboard_port}/"
