"""The playground in a real browser: stream, stop, cost and code, without a key."""

import json
import re

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.support.browser import DESKTOP, PHONE, Visitor, visitor
from tests.support.pictures import SLUG, set_language
from tests.support.site import Site

pytestmark = pytest.mark.browser


def opened(person: Visitor, site: Site) -> Page:
    known = site.quickstart
    person.sign_in(known.admin_email, known.admin_password)
    return person.go(f"/o/{SLUG}/playground/")


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")


def test_a_conversation_with_its_cost(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        sent: list[Request] = []
        person.page.on("request", lambda request: sent.append(request))
        page = opened(person, site)
        page.get_by_label("Stage").select_option("review")
        ask(page, "Is this right?")
        turn = page.locator(".turn-model").first
        turn.locator("[data-cost]").wait_for()
        assert int(turn.locator("[data-cost]").get_attribute("data-cost") or "0") > 0
        facts = turn.inner_text()
        for text in ("review", "first token after", "ms in total", "tokens in"):
            assert text in facts
        assert page.get_by_label("Your message").evaluate("element => element === document.activeElement")

        # The second question is sent with the first.
        page.get_by_label("Stage").select_option("direct")
        page.get_by_label("Model", exact=True).select_option("gpt-6.1-sol")
        ask(page, "And this?")
        page.locator(".turn-model").nth(1).locator("[data-cost]").wait_for()
        assert "gpt-6.1-sol" in page.locator(".turn-model").nth(1).inner_text()
        calls = [each for each in sent if each.url.endswith("/playground/chat")]
        assert [message["role"] for message in json.loads(calls[1].post_data or "")["messages"]] == [
            "user",
            "assistant",
            "user",
        ]
        for each in sent:
            assert "cfx_" not in str(each.all_headers()) + (each.post_data or "")

        page.get_by_label("Your message").fill("And then?")
        page.get_by_role("button", name="View code").click()
        page.get_by_role("tab", name="Python").click()
        code = page.locator("#panel-python").inner_text()
        for text in ('model="gpt-6.1-sol"', "Is this right?", "And this?", "And then?", '"assistant"', "X-CFX-Stage"):
            assert text in code
        page.keyboard.press("Escape")
        turn.get_by_role("link", name="Request").click()
        page.locator("#drawer dd", has_text="Playground").wait_for()
        assert person.errors == []


LONG = "Write a handbook.\n1. Setup\n2. Use\n3. Operation"


def test_a_plan_is_quoted_written_in_parts_and_gone_on_with(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = opened(person, site)
        page.get_by_label("Stage").select_option("plan")
        page.get_by_label("Max tokens").fill("18000")
        page.get_by_label("Your message").fill(LONG)
        page.get_by_role("button", name="Quote a plan").click()
        quote = page.locator(".turn-model").first
        quote.locator("[data-quote]").wait_for()
        told = quote.inner_text()
        for text in (
            "Part A",
            "Part B",
            "Part C",
            "6,000 tokens",
            "In parts: about $",
            "One call: up to 16,384 tokens",
        ):
            assert text in told
        # With a cap that bears about one part.
        page.get_by_label("Cost cap of a request (USD)").fill("0.2")
        quote.get_by_role("button", name="Write it in parts").click()
        partial = page.locator(".turn-model").nth(1)
        partial.get_by_text("Missing: ").wait_for()
        partial.locator("[data-cost]").wait_for()
        assert int(partial.locator("[data-cost]").get_attribute("data-cost") or "0") <= 200_000_000
        page.get_by_label("Cost cap of a request (USD)").fill("")
        partial.get_by_role("button", name="Write what is missing").click()
        whole = page.locator(".turn-model").nth(2)
        whole.locator("[data-cost]").wait_for()
        assert [whole.get_by_role("heading", name=f"Part {letter}").count() > 0 for letter in "ABC"] == [True] * 3
        whole.get_by_role("link", name="Request").click()
        page.locator("#drawer").get_by_text("Parts of the answer").first.wait_for()
        assert person.errors == []


def test_a_quote_has_the_numbers_of_the_language(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        opened(person, site)
        set_language(person, "tr")
        try:
            page = person.go(f"/o/{SLUG}/playground/")
            page.fill("#play-prompt", "Write a long book about tests")
            page.click("#play-quote")
            page.locator("[data-quote]").wait_for()
            amounts = re.findall(r"\$[\d.,]+", page.locator(".turn-model").inner_text())
            assert amounts
            assert all(re.fullmatch(r"\$\d+,\d{2,9}", each.rstrip(",.")) for each in amounts), amounts
        finally:
            set_language(person, "en")


def test_the_page_follows_a_long_answer_unless_its_reader_has_scrolled_up(site: Site, browser: Browser) -> None:
    end = "() => innerHeight + scrollY >= document.documentElement.scrollHeight - 5"
    with visitor(browser, site.url, size=PHONE) as person:
        page = opened(person, site)
        ask(page, "[[fault:chunks n=900 gap_ms=1]] Tell me a long story")
        page.locator(".turn-model [data-cost]").wait_for()
        assert page.locator(".turn-model").bounding_box()["height"] > PHONE["height"]  # type: ignore[index]
        page.wait_for_function(end)
        page.evaluate("scrollTo({ top: 0 })")
        ask(page, "[[fault:chunks n=900 gap_ms=10]] And another one")
        page.locator(".turn-model").nth(1).locator(".turn-text:not(.text-muted)").wait_for()
        page.wait_for_function(end)  # a new question leads to its answer
        page.evaluate("scrollTo({ top: 0 })")
        page.locator(".turn-model").nth(1).locator("[data-cost]").wait_for()
        assert page.evaluate("scrollY") == 0
        assert person.errors == []


def test_stop_ends_the_stream_and_its_output_is_charged(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=PHONE) as person:
        page = opened(person, site)
        ask(page, "[[fault:chunks n=600 gap_ms=100]] Tell me a long story")
        page.locator(".turn-model .turn-text:not(.text-muted)").wait_for()
        page.get_by_role("button", name="Stop").click()
        turn = page.locator(".turn-model").first
        turn.get_by_text("Stopped").wait_for()
        turn.locator("[data-cost]").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        assert person.errors == []


def test_a_refusal_is_explained(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = opened(person, site)
        ask(page, "[[fault:400]]")
        page.locator(".turn-model [role=alert]").wait_for()
        assert "upstream_refused" in page.locator(".turn-model [role=alert]").inner_text()
        assert "The provider's message" in page.locator(".turn-model [role=alert]").inner_text()
        page.locator(".turn-model").get_by_role("link", name="Request").wait_for()
        assert page.get_by_label("Your message").input_value() == "[[fault:400]]", "what was written is lost"
        # The browser itself logs the failed response.
        assert all("400" in each for each in person.errors)


def test_a_signed_out_user_is_told_and_keeps_the_text(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=PHONE) as person:
        page = opened(person, site)
        row = page.locator("#play-send").locator("xpath=../..")
        assert len({round(button.bounding_box()["y"]) for button in row.get_by_role("button").all()}) == 1  # type: ignore[index]
        person.context.clear_cookies(name="sessionid")
        ask(page, "Is anybody there?")
        page.get_by_text("Your session has ended").wait_for()
        assert page.get_by_label("Your message").input_value() == "Is anybody there?"


MARKDOWN = """# Title

A **bold** and *italic* word, `code`, [a link](https://example.com/) and [no link](javascript:alert(1)).

1. one
2. two
   - inner

| a | b |
|---|--:|
| 1 | <img src=x onerror=alert(1)> |

```python
print("hi")
```
"""
SHAPE = """text => {
  const box = document.createElement("div");
  const view = window.cfxMarkdown.view(box);
  const kept = [];
  for (let n = 1; n <= text.length; n += 1) {
    view.show(text.slice(0, n));
    if (box.children.length > 1) kept.push(box.firstElementChild);
  }
  const whole = document.createElement("div");
  window.cfxMarkdown.view(whole).show(text);
  return { grown: box.innerHTML, whole: whole.innerHTML, isFirstKept: new Set(kept).size === 1 };
}"""


HOSTILE = ("`" * 3000, "**a " * 5000, "[" * 5000, "> " * 500 + "x", "- " * 500 + "x", "|" * 4000, "_a" * 5000)


def users_words(call: Request) -> list[str]:
    messages = json.loads(call.post_data or "")["messages"]
    return [each["content"] for each in messages if each["role"] == "user"]


def test_answers_are_markdown_whose_last_block_alone_is_drawn_again(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = opened(person, site)
        found = page.evaluate(SHAPE, MARKDOWN)
        assert found["grown"] == found["whole"]
        assert found["isFirstKept"]
        whole = found["whole"]
        for part in (
            "<h3>Title</h3>", "<strong>bold</strong>", "<em>italic</em>", "<code>code</code>", 'href="https://example.com/"',
            "noopener", "<ol", "<ul", "<table>", "data-copy=", "&lt;img src=x",
        ):  # fmt: skip
            assert part in whole, part
        assert "<img" not in whole
        assert 'href="javascript' not in whole
        for hostile in (
            "`" * 3000,
            "**a " * 5000,
            "[" * 5000,
            "> " * 500 + "x",
            "- " * 500 + "x",
            "|" * 4000,
            "_a" * 5000,
        ):
            page.evaluate(SHAPE.replace("n += 1", "n += 4000"), hostile)
        assert person.errors == []


def test_the_conversation_outlives_a_reload_and_is_cleared(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=PHONE) as person:
        page = opened(person, site)
        ask(page, "Remember me")
        page.locator(".turn-model [data-cost]").wait_for()
        told = page.locator(".turn-model").inner_text()
        assert page.locator("#play-said").inner_text().startswith("Answer: ")
        page.get_by_role("link", name="Request").click()
        page.wait_for_url("**/logs/?request=*")
        page.go_back()
        page.locator(".turn-model [data-cost]").wait_for()
        person.go(f"/o/{SLUG}/playground/")
        page.locator(".turn-user", has_text="Remember me").wait_for()
        assert page.locator(".turn-model").inner_text() == told
        kept = page.evaluate("JSON.stringify({ ...sessionStorage, ...localStorage })")
        assert "cfx_" not in kept
        assert person.axe() == []
        page.get_by_role("button", name="Clear").click()
        page.reload()
        page.get_by_text("Ask something.").wait_for()
        assert page.locator(".turn").count() == 0
        assert person.errors == []


def test_a_question_is_edited_and_an_answer_is_retried(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = opened(person, site)
        sent: list[Request] = []
        page.on("request", lambda request: sent.append(request) if request.url.endswith("/playground/chat") else None)
        for text in ("First", "Second"):
            ask(page, text)
            page.locator(".turn-user", has_text=text).wait_for()
            page.get_by_role("button", name="Try again").wait_for()
        page.get_by_role("button", name="Try again").click()
        page.locator(".turn-model").nth(1).locator("[data-cost]").wait_for()
        assert page.locator(".turn-model").count() == 2
        page.locator(".turn-user").first.get_by_role("button", name="Edit").click()
        field = page.locator(".turn-user textarea")
        field.fill("Changed")
        field.press("Enter")
        page.locator(".turn-user", has_text="Changed").wait_for()
        page.locator(".turn-model [data-cost]").first.wait_for()
        assert page.locator(".turn").count() == 2
        said = [
            [each["content"] for each in json.loads(call.post_data or "")["messages"] if each["role"] == "user"]
            for call in sent
        ]
        assert said == [["First"], ["First", "Second"], ["First", "Second"], ["Changed"]]
        assert person.errors == []


def test_two_models_answer_side_by_side(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = opened(person, site)
        page.get_by_label("Stage").select_option("plan")
        page.get_by_label("Compare with").select_option("gpt-6.1-sol")
        ask(page, "Compare")
        for lane in (0, 1):
            answer = page.locator(".turn-model").nth(lane)
            answer.locator("[data-cost]").wait_for()
            for text in ("first token after", "ms in total"):
                assert text in answer.inner_text()
            assert answer.get_by_role("link", name="Request").count() == 1
        boxes = [page.locator(".turn-model").nth(lane).bounding_box() for lane in (0, 1)]
        assert boxes[0]["y"] == boxes[1]["y"]  # type: ignore[index]
        page.get_by_role("button", name="Continue with gpt-6.1-sol").click()
        assert page.locator(".turn-model").count() == 1
        assert page.get_by_label("Model", exact=True).input_value() == "gpt-6.1-sol"
        assert page.get_by_label("Compare with").input_value() == ""
        assert person.errors == []


def test_presets_are_kept_in_the_browser(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=PHONE) as person:
        page = opened(person, site)
        page.get_by_label("Stage").select_option("review")
        page.get_by_label("System message").fill("Be strict")
        page.get_by_label("Name of the preset").fill("Strict")
        page.get_by_label("Name of the preset").press("Enter")
        page.get_by_label("System message").fill("Be kind")
        page.reload()
        page.get_by_label("Preset", exact=True).select_option("Strict")
        assert page.get_by_label("System message").input_value() == "Be strict"
        assert page.get_by_label("Stage").input_value() == "review"
        page.get_by_role("button", name="Delete the preset").click()
        assert page.get_by_label("Preset", exact=True).locator("option").count() == 1
        assert person.errors == []


def test_a_call_that_was_refused_leads_to_its_record(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = opened(person, site)
        page.get_by_label("Cost cap of a request (USD)").fill("0.000000001")
        ask(page, "Too dear")
        alert = page.locator(".turn-model [role=alert]")
        alert.wait_for()
        assert "max_cost_exceeded" in alert.inner_text()
        assert "raise x-max-cost" in alert.inner_text()
        alert.get_by_role("link", name="Refused calls").click()
        page.wait_for_url("**/logs/refused/?range=24h&code=max_cost_exceeded")
