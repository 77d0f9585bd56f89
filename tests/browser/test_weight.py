"""Size of style and scripts that a first visit loads."""

from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser

from tests.browser.pages import INSIDE, PUBLIC
from tests.support.browser import DESKTOP, visitor
from tests.support.site import Site

pytestmark = pytest.mark.browser
MOST_BYTES = 40 * 1024
WITH_CHARTS = {"overview"}
ASSETS = "[...document.querySelectorAll('link[rel=stylesheet], script[src]')].map(each => each.href || each.src)"


def weight_of(url: str) -> int:
    """Transferred bytes, compressed."""
    with urlopen(Request(url, headers={"Accept-Encoding": "br"})) as response:  # noqa: S310 - our own address
        assert response.headers["Content-Encoding"] == "br", url
        assert "immutable" in response.headers["Cache-Control"], url
        return len(response.read())


def test_style_and_scripts_of_pages_without_charts_are_small(site: Site, browser: Browser) -> None:
    known = site.quickstart
    weights: dict[str, int] = {}
    heavy = []
    with visitor(browser, site.url, size=DESKTOP) as person:
        addresses = [path for paths in PUBLIC.values() for path in paths]
        for path in addresses:
            heavy += too_heavy(person.go(path).evaluate(ASSETS), weights, path)
        person.sign_in(known.admin_email, known.admin_password)
        for path in (path for name, paths in INSIDE.items() if name not in WITH_CHARTS for path in paths):
            heavy += too_heavy(person.go(path).evaluate(ASSETS), weights, path)
    assert len(weights) >= 3
    assert not heavy, "\n".join(heavy)


def too_heavy(assets: list[str], weights: dict[str, int], path: str) -> list[str]:
    assert assets, path
    for url in assets:
        weights.setdefault(url, weight_of(url))
    total = sum(weights[url] for url in assets)
    return [f"{path}: {total} bytes in {len(assets)} files"] if total > MOST_BYTES else []
