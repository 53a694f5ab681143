"""report.html open in a browser, for the files whose tests import these fixtures.

Needs Chromium; without one such tests are skipped, except where CI=true says that there must be.
"""

import os
import re

import browsing
import pytest
from explorer_reports import page


@pytest.fixture(scope="module")
def browser():
    program = browsing.find_program()
    if program is None:
        message = f"no browser: none of {', '.join(browsing.NAMES)} is on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with browsing.browser(program) as chromium:
        yield chromium


class Opened:
    """A page that is open, and all that it said and asked for."""

    def __init__(self, browser, file, **options):
        options.setdefault("viewport", {"width": 1280, "height": 900})
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = file.as_uri()

    def go(self, fragment=""):
        self.page.goto(self.url + fragment)
        return self

    def ids(self):
        return self.page.eval_on_selector_all("#list bdi", "all => all.map(x => x.textContent)")

    def listed(self, count):
        """Wait until the list has `count` rows."""
        from playwright.sync_api import expect

        expect(self.page.locator("#list li")).to_have_count(count)

    def title(self):
        return self.page.text_content("#detail-title").removeprefix("Report ")

    def check(self, *names):
        for name in names:
            self.page.locator("#choices").get_by_label(re.compile(f"^{name}(,|$)")).check()

    def cards(self):
        """Return {title: text} of the cards, without the words that are struck out."""
        return dict(
            self.page.eval_on_selector_all(
                ".card",
                """cards => cards.map(card => {
                    const text = card.querySelector(".text").cloneNode(true);
                    for (const gone of text.querySelectorAll(".gone")) gone.remove();
                    return [card.querySelector("h3").textContent, text.textContent];
                })""",
            )
        )


@pytest.fixture
def visit(browser):
    opened = []

    def visit(file, fragment="", **options):
        opened.append(Opened(browser, file, **options).go(fragment))
        return opened[-1]

    yield visit
    for one in opened:
        one.context.close()
        assert one.said == []
        assert {url.partition("#")[0] for url in one.asked if url[:5] != "data:"} == {one.url}


@pytest.fixture(scope="module")
def invented(invented_parts, tmp_path_factory):
    """report.html of the invented reports, and its payload."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page(*invented_parts), encoding="utf-8")
    return file, invented_parts[2]
