"""Sign-in providers in a real browser, which applies the content security policy to forms."""

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Request

from tests.support.browser import PHONE, visitor
from tests.support.site import Site

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("GitHub", "https://github.com/login/oauth/authorize"),
        ("Google", "https://accounts.google.com/o/oauth2/v2/auth"),
    ],
)
@pytest.mark.parametrize("page", ["login", "signup", "{name}/login"])
def test_a_button_leads_to_its_provider(site: Site, browser: Browser, name: str, beginning: str, page: str) -> None:
    with visitor(browser, site.url, size=PHONE) as person:

        def is_there(request: Request) -> bool:
            return request.url.startswith(f"{beginning}?")

        person.go(f"/accounts/{page.format(name=name.lower())}/")
        with person.page.expect_request(is_there) as asked:
            # The request fails: the browser reaches loopback only.
            person.page.get_by_role("button", name=f"Continue with {name}").click(no_wait_after=True)
        query = parse_qs(urlsplit(asked.value.url).query)
        assert query["redirect_uri"] == [f"{site.url}/accounts/{name.lower()}/login/callback/"]
        assert query["code_challenge_method"] == ["S256"]
        assert not [error for error in person.errors if "Content Security Policy" in error]
