"""report.html open in a browser, for the files whose tests import these fixtures.

Needs Chromium; without one such tests are skipped, except where CI=true says that there must be.
"""

import os
import re

import browsing
import pytest
from explorer_reports import made_payload, page

from radquant.reporting.explorer import marks
from radquant.scoring import lexicon
from radquant.scoring.changes import harm

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "end": "</script></p></article>",
    "comment": "<!-- no effusion",
    "image": "<img src=x onerror=alert(1)> & &amp; &lt;",
    "emoji": "\U0001f9e0\U0001f1e9\U0001f1ea no effusion, \U0001fac1 possible edema",
    "right to left": "אין תפליט פלאורלי. left effusion",
    "override": "\u202enoisuffe on",
    "lines": "No effusion.\u2028No edema.\u2029\r\n\tClear.",
    "long word": "x" * 5000,
    "long text": "effusion left no " * 500,
    "nothing": " ",
    "quotes": "\"'`${}\\u003cb> #%?&=+",
    "#explorer?report=a&kind=lost": "an id like an address",
    "null": "a\x00b\x1b[31m",
    "dots": "\u0130\u0130\u0130stanbul effusion <mark>effusion</mark>",
    "=1+1": "=HYPERLINK(\"x\");=1+1\n-2+3\t@SUM(A1)\r\n \uff1d1;  +cmd|' /C calc'!A0",
    "+quotes": '","=1+1",";=1+1;"\n"=1+1',
}


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


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    texts = []

    def add(text):
        texts.append({"text": text, "spans": marks(text, lexicon.annotate(text))})
        return len(texts) - 1

    def output(text):
        change = {"kind": "lost", "finding": text[:200], "before": text[:200], "after": ""}
        return {
            **{"text": add(text), "f1": 0.5, "harm": harm([change], [])},
            **{"changes": [change], "flags": [], "unsupported": [text[:200]]},
        }

    reports = [
        {"id": name, "reference": add(text), "outputs": [output("No effusion."), output(text)]}
        for name, text in HOSTILE.items()
    ]
    payload = made_payload(["original", "</script><b>w4"], reports, texts)
    file = tmp_path_factory.mktemp("hostile") / "report.html"
    file.write_text(page("# Title\n\n## Verdict\n\n**Words.**\n", {}, payload), encoding="utf-8")
    return file, payload
