"""The browser in which report.html is tested and photographed: a Chromium that is installed."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# What a reader sees: the report's id and the text to be rated.
SEEN = """() => [document.querySelector("#reading-given header bdi").textContent,
               document.querySelector("#reading-text .text").textContent]"""
# Click on the chips of a rating, write its comment, and go on.
RATE = """(rating) => {
    const form = document.querySelector("#rating");
    for (const [name, wanted] of [["acceptability", [String(rating.acceptability)]],
                                  ["harm", [rating.harm]], ["errors", rating.errors ?? []]])
        for (const box of form.querySelectorAll(`[name=${name}]`)) {
            const on = wanted.includes(box.value);
            if (on !== box.checked && (on || box.type === "checkbox")) box.click();
        }
    const comment = document.querySelector("#comment");
    comment.value = rating.comment ?? "";
    comment.dispatchEvent(new Event("input", {bubbles: true}));
    const last = document.querySelector("#reading-after").disabled;
    form.requestSubmit();
    return last;
}"""


def find_program() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser(program: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield chromium
        chromium.close()


def fill_reading(
    page: Any,
    ratings: Mapping[tuple[str, str], Mapping[str, Any]],
    reader: str = "Reader 1",
    count: int | None = None,
    reference: str = "hidden",
) -> dict[str, Any]:
    """Rate every text of the report.html that is open in `page`, blind, and return the export.

    ratings: by report and system: acceptability and harm, and errors and comment if there are any.
    Where systems wrote the same text, the rating of the first of them that has one is entered.
    `reference` is how the radiologist's text is used; "blinded" makes it a system, 'reference'.
    """
    page.goto(page.url.partition("#")[0])
    payload = json.loads(page.text_content("#payload"))
    wanted = by_text(payload, ratings)
    page.goto(page.url + "#reading")
    page.fill("#reader", reader)
    page.fill("#reading-count", str(count or len(payload["reports"])))
    page.select_option("#reading-reference", reference)
    page.click("#begin button")
    last = False
    while not last:
        last = page.evaluate(RATE, dict(wanted[tuple(page.evaluate(SEEN))]))
    return export(page)


def by_text(payload: Mapping[str, Any], ratings: Mapping[tuple[str, str], Any]) -> dict[Any, Any]:
    """Return `ratings` by report and text, those of the first systems where texts are the same."""
    texts = [entry["text"] for entry in payload["texts"]]
    found: dict[Any, Any] = {}
    for report in payload["reports"]:
        written = {
            name: output["text"]
            for name, output in zip(payload["systems"], report["outputs"], strict=True)
        }
        for name, number in (written | {"reference": report["reference"]}).items():
            if (report["id"], name) in ratings:
                found.setdefault((report["id"], texts[number]), ratings[report["id"], name])
    return found


def export(page: Any) -> dict[str, Any]:
    """Return what the reader at the desk exports."""
    with page.expect_download() as download:
        page.click("#reading-export")
    written: dict[str, Any] = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    return written
