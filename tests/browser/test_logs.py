"""The request log in a real browser: live tail and exports."""

import gzip
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from codexflow.lib.ids import new_id
from tests.browser.calls import call
from tests.support.browser import DESKTOP, PHONE, Visitor, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser
_EXPORT = re.compile(r"/logs/exports/[0-9a-f-]{36}/$")


def watching(person: Visitor, site: Site, query: str = "") -> Page:
    """Open the log and turn the live tail on."""
    known = site.quickstart
    person.sign_in(known.admin_email, known.admin_password)
    page = person.go(f"/o/{SLUG}/logs/{query}")
    page.get_by_role("button", name="Live").click()
    page.locator("#live-state", has_text="Live").wait_for()
    return page


def row(page: Page, request_id: str) -> Any:
    return page.locator(f"tr[data-id='{request_id}']")


@pytest.mark.both_browsers("nightly")
def test_new_requests_appear_and_are_held_back_under_the_mouse(site: Site, browser: Browser) -> None:
    key = site.quickstart.api_key
    call(site.url, key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = watching(person, site)
        page.locator("[data-search]").focus()
        first = call(site.url, key, model="cfx-review")
        row(page, first).wait_for()
        assert "review" in row(page, first).inner_text()
        assert page.evaluate("document.activeElement.name") == "q"

        # Under the mouse the table does not change; new rows are counted, and shown on click.
        page.locator("#results").hover()
        second = call(site.url, key)
        page.get_by_role("button", name="1 new request").wait_for()
        page.locator("#live-state", has_text="Paused").wait_for()
        assert row(page, second).count() == 0
        page.get_by_role("button", name="1 new request").click()
        row(page, second).wait_for()
        assert page.locator("#live-new").is_hidden()

        # A row from the live tail opens like any other.
        row(page, second).get_by_role("link").click()
        page.locator("#drawer").get_by_text("Why this stage").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Live").click()
        assert page.locator("#live").get_attribute("aria-pressed") == "false"
        assert "live=" not in page.url
        assert person.errors == []


@pytest.mark.both_browsers("nightly")
def test_a_row_opens_wherever_it_is_clicked_and_j_and_k_go_through_the_log(site: Site, browser: Browser) -> None:
    known = site.quickstart
    older, newer = call(site.url, known.api_key), call(site.url, known.api_key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/")
        row(page, newer).locator("td").nth(3).click()
        shown = page.locator("#drawer [data-request]")
        shown.wait_for()
        assert shown.get_attribute("data-request") == newer
        page.keyboard.press("j")
        page.locator(f"#drawer [data-request='{older}']").wait_for()
        page.keyboard.press("k")
        page.locator(f"#drawer [data-request='{newer}']").wait_for()
        page.keyboard.press("Escape")
        focused = "id => document.activeElement.closest('tr')?.dataset.id === id"
        page.wait_for_function(focused, arg=newer)
        page.keyboard.press("ArrowDown")
        page.wait_for_function(focused, arg=older)
        page.keyboard.press("g")
        page.keyboard.press("k")
        page.wait_for_url("**/keys/")
        assert person.errors == []


@pytest.mark.both_browsers("nightly")
def test_back_closes_the_drawer_and_forward_opens_it(site: Site, browser: Browser) -> None:
    known = site.quickstart
    older, newer = call(site.url, known.api_key), call(site.url, known.api_key)
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        person.go(f"/o/{SLUG}/keys/")
        page = person.go(f"/o/{SLUG}/logs/?range=24h")
        shown, table = page.url, page.locator("#results").element_handle()
        drawer = page.locator("#drawer")
        row(page, newer).locator("td").nth(1).click()
        page.locator(f"#drawer [data-request='{newer}']").wait_for()
        page.keyboard.press("j")
        page.locator(f"#drawer [data-request='{older}']").wait_for()
        assert page.url == f"{shown}&request={older}"
        page.go_back()
        drawer.wait_for(state="hidden")
        assert page.url == shown
        page.go_forward()
        page.locator(f"#drawer [data-request='{older}']").wait_for()
        page.keyboard.press("Escape")
        drawer.wait_for(state="hidden")
        page.wait_for_url(shown)
        # A shared address opens the drawer over the same filters; closing it adds no step.
        assert table.evaluate("table => table.isConnected"), "the page below was left alone"
        page = person.go(f"/o/{SLUG}/logs/?range=24h&request={newer}")
        page.locator(f"#drawer [data-request='{newer}']").wait_for()
        assert page.locator("select[name=range]").input_value() == "24h"
        page.keyboard.press("Escape")
        page.wait_for_url(shown)
        page.go_back()
        page.wait_for_url(shown)
        page.go_back()
        page.wait_for_url("**/keys/")
        assert person.errors == []


def test_on_a_phone_model_names_are_not_cut(site: Site, browser: Browser) -> None:
    known = site.quickstart
    mine = call(site.url, known.api_key)  # served by claude-sonnet-5.5, the longest name
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/?id={mine}")
        row(page, mine).wait_for()
        cut = "(cell) => cell.scrollWidth > cell.clientWidth && getComputedStyle(cell).overflowX === 'hidden'"
        assert not any(row(page, mine).locator("td").nth(n).evaluate(cut) for n in range(9))
        assert page.locator("#results .scroller").evaluate("(box) => box.scrollWidth - box.clientWidth") == 0


def test_the_server_filters_and_a_reload_keeps_the_tail_on(site: Site, browser: Browser) -> None:
    key = site.quickstart.api_key
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = watching(person, site, "?id=0000")
        page.get_by_text("No request matches these filters").wait_for()
        page.fill("[data-search]", "")
        page.select_option("select[name=stage]", "plan")
        page.wait_for_url("**stage=plan**")
        assert "live=1" in page.url
        with page.expect_websocket() as opened:
            page.reload()
        page.locator("#live-state", has_text="Live").wait_for()
        other = call(site.url, key, model="cfx-code")
        wanted = call(site.url, key, model="cfx-plan")
        row(page, wanted).wait_for()
        assert row(page, other).count() == 0
        # The choice of planned requests is a term of the search for the tail.
        with opened.value.expect_event("framesent", lambda frame: "planned:yes" in str(frame)):
            page.select_option("select[name=planned]", "1")
        assert person.errors == []


def test_a_search_that_cannot_be_read_is_reported_at_the_bar(site: Site, browser: Browser) -> None:
    call(site.url, site.quickstart.api_key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        known = site.quickstart
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/")
        field, problem = page.locator("[data-search]"), page.get_by_text("There is no field “order”. Fields: status")
        field.fill("order:17")
        field.press("Enter")
        problem.wait_for()
        expect(field).to_have_attribute("aria-invalid", "true")
        assert field.input_value() == "order:17"
        assert person.axe() == []
        field.fill("0")
        field.press("Enter")
        problem.wait_for(state="detached")
        expect(field).to_have_attribute("aria-invalid", "false")
        assert person.errors == []


@pytest.mark.both_browsers("nightly")
def test_the_bar_suggests_fields_and_values_with_their_numbers(site: Site, browser: Browser) -> None:
    known = site.quickstart
    mine, other = call(site.url, known.api_key, model="cfx-review"), call(site.url, known.api_key, model="cfx-plan")
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/")
        row(page, other).wait_for()
        page.keyboard.press("/")
        page.keyboard.type("sta")
        options = page.locator("#search-options")
        options.get_by_role("option", name="stage:").wait_for()
        expect(page.locator("#search")).to_have_attribute("aria-expanded", "true")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#search")).to_have_value("stage:")
        page.keyboard.type("rev")
        review = options.get_by_role("option", name="review")
        review.wait_for()
        assert re.search(r"\d", review.inner_text()), "with the number of requests"
        assert person.axe() == []
        review.click()
        expect(page.locator("#search")).to_have_value("stage:review ")
        page.wait_for_url("**q=stage%3Areview**")
        row(page, other).wait_for(state="detached")
        row(page, mine).wait_for()
        expect(page.locator("#search")).to_be_focused()
        # Escape closes the list and leaves the text.
        page.keyboard.type("model:")
        options.get_by_role("option").first.wait_for()
        page.keyboard.press("Escape")
        expect(options).to_be_hidden()
        expect(page.locator("#search")).to_have_value("stage:review model:")
        assert person.errors == []


@pytest.mark.both_browsers("nightly")
def test_a_bar_opens_its_requests_and_filters_are_saved_as_a_view(site: Site, browser: Browser) -> None:
    known = site.quickstart
    mine = call(site.url, known.api_key, model="cfx-review")
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/?range=24h&q=stage%3Areview")
        row(page, mine).wait_for()
        # All bars are one stop of the Tab key; the last one first.
        bars = page.locator("#timeline a")
        assert page.locator("#timeline a[tabindex='0']").count() == 1
        label = bars.last.get_attribute("aria-label") or ""
        bars.last.focus()
        page.keyboard.press("Home")
        expect(bars.first).to_be_focused()
        page.keyboard.press("End")
        expect(bars.last).to_be_focused()
        page.keyboard.press("Enter")
        page.wait_for_url("**since=20**")
        person.settle()
        row(page, mine).wait_for()
        shown = re.search(r": (\d+) succeeded, (\d+) failed", label)
        assert shown, label
        assert page.locator("#results tr[data-id]").count() == min(50, int(shown[1]) + int(shown[2]))
        page.go_back()
        page.wait_for_url("**range=24h**")

        page.get_by_role("link", name="Save view").click()
        page.get_by_label("Name").fill("Reviews")
        assert person.axe() == []
        page.locator("#view-form").get_by_role("button", name="Save").click()
        view = page.get_by_role("navigation", name="Saved views").get_by_role("link", name="Reviews", exact=True)
        expect(view).to_have_attribute("aria-current", "true")
        page.fill("#search", "stage:plan")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=stage%3Aplan**")
        expect(view).not_to_have_attribute("aria-current", "true")
        view.click()
        page.wait_for_url("**q=stage%3Areview**")
        page.get_by_role("link", name="Change the view Reviews").click()
        page.locator("#view-form").get_by_role("button", name="Delete").click()
        page.wait_for_url("**q=stage%3Areview**")
        expect(view).to_have_count(0)
        assert person.errors == []


def test_it_reconnects_and_misses_no_request(site: Site, browser: Browser) -> None:
    key = site.quickstart.api_key
    call(site.url, key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        sockets: list[WebSocketRoute] = []

        def pass_on(socket: WebSocketRoute) -> None:
            sockets.append(socket)
            socket.connect_to_server()

        person.page.route_web_socket("**/ws/**", pass_on)
        page = watching(person, site)
        missed = call(site.url, key)
        row(page, missed).wait_for()
        sockets[0].close(code=1012)
        page.get_by_text("Connection lost").wait_for()
        missed = call(site.url, key)
        row(page, missed).wait_for()
        assert len(sockets) == 2
        page.locator("#live-state", has_text="Live").wait_for()


def test_the_table_keeps_at_most_two_hundred_rows(site: Site, browser: Browser) -> None:
    call(site.url, site.quickstart.api_key)
    with visitor(browser, site.url, size=DESKTOP) as person:

        def flood(socket: WebSocketRoute) -> None:
            def respond(_: Any) -> None:
                socket.send(json.dumps({"type": "ready", "filter": {}, "rows_per_s": 20, "heartbeat_s": 30}))
                for _batch in range(15):
                    socket.send(json.dumps({"type": "rows", "rows": [a_row() for _ in range(20)], "skipped": 3}))

            socket.on_message(respond)

        person.page.route_web_socket("**/ws/**", flood)
        known = site.quickstart
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/")
        page.get_by_role("button", name="Live").click()
        page.get_by_text("3 not shown").wait_for()
        expect(page.locator("#results tr[data-id]")).to_have_count(200)
        # Names are shown as text, never as HTML.
        assert page.locator("#results b").count() == 0
        assert person.errors == []


def a_row() -> dict[str, Any]:
    tokens = {"prompt": 12345, "cached": 0, "completion": 1, "reasoning": 0, "total": 12346, "is_estimated": False}
    return {
        "id": str(new_id()), "started_at": "2026-11-21T09:00:00Z", "key_id": None, "user_id": 1, "stage": "code",
        "model": "<b>gpt</b>", "status": 200, "error_code": "", "latency_ms": 1234, "tokens": tokens,
        "cost": {"nanos": 1_234_567, "usd": "0.001234567", "held_nanos": 0},
    }  # fmt: skip


def test_requests_are_exported_to_a_file(site: Site, browser: Browser) -> None:
    known = site.quickstart
    made = {call(site.url, known.api_key, model="cfx-review") for _ in range(3)}
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/")
        page.wait_for_function(
            "id => !!document.querySelector(`tr[data-id='${id}']`) || location.reload()", arg=max(made)
        )
        page.select_option("select[name=stage]", "review")
        page.wait_for_url("**stage=review**")
        page.get_by_role("link", name="Export").click()
        page.locator("[data-estimate]").wait_for()
        assert "about" in page.locator("[data-estimate]").inner_text()
        page.get_by_text("JSON Lines").click()
        page.locator("#dialog").get_by_role("button", name="Export").click()
        page.locator("#export-progress").wait_for()
        page.locator("#export-progress").get_by_text("Ready").wait_for(timeout=60_000)
        with page.expect_download() as download:
            page.locator("#export-progress").get_by_role("link", name="Download").click()
        lines = gzip.decompress(download.value.path().read_bytes()).decode().splitlines()
        exported = [json.loads(line) for line in lines]
        assert made <= {line["id"] for line in exported}
        assert {line["stage"] for line in exported} == {"review"}
        page.get_by_role("link", name="All exports").click()
        page.get_by_role("link", name="Download").first.wait_for()
        assert person.errors == []


def test_polling_an_export_survives_a_failing_server_and_keeps_the_focus(site: Site, browser: Browser) -> None:
    known = site.quickstart
    shown = ""

    def respond(route: Route) -> None:
        if shown:
            route.fulfill(content_type="text/html", body=shown)
        else:
            route.fulfill(status=502, content_type="text/html", body="<html><body>Bad gateway</body></html>")

    def looked(page: Page, times: int) -> None:
        for _ in range(times):
            with page.expect_response(_EXPORT):
                pass

    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/exports/new/")
        page.route(_EXPORT, respond)
        page.get_by_role("button", name="Export", exact=True).click()
        cancel = page.get_by_role("button", name="Cancel the export")
        cancel.wait_for()
        looked(page, 3)
        assert "Bad gateway" not in page.locator("body").inner_text()
        assert page.locator(".toast-item").count() == 0
        cancel.focus()
        shown = page.locator("#export-progress").evaluate("element => element.outerHTML")
        looked(page, 3)
        expect(cancel).to_be_focused()
        assert all("502" in each for each in person.errors)


# What the page has in place of the list once it is long.
LONG_LIST = """select => {
  const label = select.closest("label");
  const options = [["k-1", "staging (cfx_a…)"], ["k-2", "staging (cfx_b…)"], ["k-3", "Prod"]];
  label.insertAdjacentHTML("afterend", '<input name="key" type="hidden"><datalist id="choices-key"></datalist>');
  for (const [value, text] of options) {
    const option = new Option(text, text);
    option.dataset.value = value;
    document.getElementById("choices-key").append(option);
  }
  select.outerHTML = '<input class="input" list="choices-key" data-chooses="key">';
}"""


def test_a_long_list_of_keys_is_searched_by_typing(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/logs/")
        page.locator("select[name=key]").evaluate(LONG_LIST)
        field = page.locator("[data-chooses=key]")
        for typed, shown, value in (
            ("pro", "Prod", "k-3"),
            ("STAGING (cfx_b…)", "staging (cfx_b…)", "k-2"),
            ("", "", ""),
        ):
            with page.expect_request(lambda request: "/logs/?" in request.url) as sent:
                field.fill(typed)
                field.press("Tab")
            assert parse_qs(urlsplit(sent.value.url).query, keep_blank_values=True)["key"] == [value]
            assert field.input_value() == shown
        # Two are alike: none is chosen.
        field.fill("staging")
        field.press("Tab")
        assert field.input_value() == page.locator("[name=key]").input_value() == ""
        assert person.errors == []
