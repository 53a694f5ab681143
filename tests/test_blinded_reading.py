"""The blinded reading of report.html in a browser: what is shown, kept, exported, taken back."""

import base64
import json
import re
from pathlib import Path

import browsing
import numpy as np
import pytest
from browser_fixtures import browser, invented, visit
from explorer_reports import REPORTS, page, payload, pictured
from reader_agreement import alpha_by_hand, nominal, ordinal

from radquant.reporting import inputs
from radquant.reporting.readers import readers_record
from radquant.reporting.readers_comparison import Settings
from radquant.reporting.readers_study import read_study
from radquant.reporting.reading import ERRORS, HARM, order, run_id

__all__ = ["browser", "invented", "visit"]

SYSTEMS = ["original", "w4a16", "w4a8", "w4a4"]
# What is not stored is asked for before the page is closed, and a test would wait.
QUIET = "addEventListener('beforeunload', (e) => e.stopImmediatePropagation(), true)"
KINDS, HARMS = list(ERRORS), list(HARM)


def invented_ratings(seed):
    """One rating for each report and system; equal texts of a report get equal ones."""
    rng = np.random.default_rng(seed)
    ratings = {}
    for name, (_, reference, *outputs) in REPORTS.items():
        by_text = {}
        for system, text in zip([*SYSTEMS, "reference"], [*outputs, reference], strict=True):
            drawn = {
                "acceptability": int(rng.integers(1, 6)),
                "harm": HARMS[rng.integers(4)],
                "errors": [kind for kind in KINDS if rng.random() < 0.3],
                "comment": str(rng.choice(["", 'a "word" of mine, <b>'])),
            }
            ratings[name, system] = by_text.setdefault(text, drawn)
    return ratings


def pairs(written):
    return {(row["report"], row["system"]): row for row in written["ratings"]}


def test_a_reading_is_exported_as_it_was_entered(visit, invented, invented_run):
    opened = visit(invented[0])
    ratings = invented_ratings(1)
    written = browsing.fill_reading(opened.page, ratings, "Dr. Åse Ø.", reference="blinded")
    head = {key: value for key, value in written.items() if key != "ratings"}
    assert head.pop("created") <= head.pop("finished")
    assert 0 <= head.pop("seed") < 2**32
    assert head == {
        **{"format": 1, "run": run_id(invented_run), "reader": "Dr. Åse Ø.", "count": 12},
        **{"reference": "blinded", "systems": [*SYSTEMS, "reference"]},
    }
    found = pairs(written)
    assert list(found) == list(ratings)
    for key, row in found.items():
        assert {name: row[name] for name in ratings[key]} == ratings[key]
        assert 0 <= row["seconds"] < 60
    assert "hand it in" in opened.page.text_content("#reading-progress")


def test_nobody_can_tell_who_wrote_a_text(visit, invented):
    """No name of a system and no trace of its place is in the document while somebody reads."""
    file, payload = invented
    opened = visit(file, "#explorer?precision=w4a8")
    opened.go("#reading")
    opened.page.fill("#reader", "A")
    opened.page.click("#begin button")
    orders, shapes = [], set()
    texts = [entry["text"] for entry in payload["texts"]]
    reports = {report["id"]: report for report in payload["reports"]}
    many = 0
    for last in (False,) * 36 + (True,):
        # The page's own script has no name either: it is the same for all runs.
        whole = opened.page.content()
        for name in payload["systems"][1:]:
            assert name not in whole
        assert "original" not in opened.page.locator("#reading").evaluate("x => x.outerHTML")
        assert "precision=" not in opened.page.url
        report, text = opened.page.evaluate(browsing.SEEN)
        outputs = [texts[output["text"]] for output in reports[report]["outputs"]]
        orders.append((report, outputs.index(text)))
        marks = opened.page.eval_on_selector_all(
            "#reading *", "all => all.map(x => [...x.attributes].map(a => a.name + a.value)).flat()"
        )
        shapes.add(tuple(sorted(set(marks))))
        assert re.search(r"text [A-D] of", opened.page.text_content("#reading-place"))
        assert (
            opened.page.locator("#reading :is(ins, del, .entity, .flag:not([hidden]))").count() == 0
        )
        assert opened.page.locator("#reading-after").is_disabled() is last
        if not last:
            opened.page.keyboard.press("ArrowRight")
        many += 1
    assert many == sum(len(set(outputs)) for _, _, *outputs in REPORTS.values())
    # Only the first and the last text may look otherwise: their buttons are disabled.
    assert len(shapes) <= 3
    # Neither reports nor systems come in the order of the run.
    names = list(dict.fromkeys(report for report, _ in orders))
    assert set(names) == set(REPORTS)
    assert names != list(REPORTS)
    firsts = [next(at for report, at in orders if report == name) for name in names]
    assert len(set(firsts)) > 1
    opened.page.click("#reading-leave")
    assert "w4a8" not in opened.page.content()
    opened.page.get_by_role("link", name="Back to the report").click()
    assert opened.page.locator("#verdict").is_visible()
    opened.page.get_by_role("link", name="Explorer").click()
    assert len(opened.ids()) == 12


def test_readers_get_the_same_reports_in_orders_of_their_own(
    visit, invented, invented_run, tmp_path
):
    opened = visit(invented[0])
    found, files = {}, []
    for reader, seed in (("A", 2), ("B", 3)):
        written = browsing.fill_reading(opened.page, invented_ratings(seed), reader, count=4)
        files.append(tmp_path / f"{reader}.json")
        files[-1].write_text(json.dumps(written))
        found[reader] = ({report for report, _ in pairs(written)}, written["seed"])
    ids = list(REPORTS)
    first = {ids[place] for place in order(run_id(invented_run), ids)[:4]}
    assert found["A"][0] == found["B"][0] == first
    assert found["A"][1] != found["B"][1]
    # scripts/readers.py gives the agreement that the definition gives, each text counted once.
    study = read_study(invented_run.folder, invented_run.config)
    record = readers_record(study, files, Settings(100, 0.95, 7))
    rated = [invented_ratings(seed) for seed in (2, 3)]
    texts = {(name, text): system for name in first for system, text in study.texts[name].items()}
    units = [(name, system) for (name, _), system in texts.items() if system != "reference"]
    for key, value, distance in (
        ("acceptability", lambda rating: rating["acceptability"], ordinal),
        ("harm", lambda rating: HARMS.index(rating["harm"]), ordinal),
        *(
            (kind, lambda rating, kind=kind: int(kind in rating["errors"]), nominal)
            for kind in KINDS
        ),
    ):
        scale = [[value(each[unit]) for each in rated] for unit in units]
        expected = alpha_by_hand(scale, distance)
        assert record["agreement"]["alpha"][key]["value"] == pytest.approx(expected)


def test_a_reading_goes_on_where_it_was_left(visit, invented):
    opened = visit(invented[0], "#reading")
    press = opened.page.keyboard.press
    opened.page.fill("#reader", "A")
    opened.page.fill("#reading-count", "3")
    press("Enter")
    for key in ("2", "9", "Enter", "5"):  # the second text is not rated to its end
        press(key)
    opened.page.get_by_label("missed finding").check()
    opened.page.fill("#comment", "later 123")
    press("1")  # a letter of the comment
    second = opened.page.evaluate(browsing.SEEN)
    opened.page.reload()
    opened.page.get_by_role("button", name="Go on with the reading of A").click()
    assert opened.page.evaluate(browsing.SEEN) == second
    assert opened.page.input_value("#comment") == "later 1231"
    assert opened.page.locator("[name=acceptability]:checked").input_value() == "5"
    assert opened.page.locator("[name=errors]:checked").input_value() == "missed finding"
    assert opened.page.text_content("#reading-progress").startswith("1 of ")
    written = browsing.export(opened.page)
    assert {(row["acceptability"], row["harm"]) for row in written["ratings"]} == {(2, "severe")}
    assert written["finished"] is None
    # The same name goes on, with more reports; another use of the radiologist's text is refused.
    opened.page.click("#reading-leave")
    opened.page.fill("#reader", "A")
    opened.page.fill("#reading-count", "4")
    opened.page.select_option("#reading-reference", "shown")
    opened.page.click("#begin button")
    assert "delete the one here first" in opened.page.text_content("#reading-message")
    opened.page.select_option("#reading-reference", "hidden")
    opened.page.click("#begin button")
    assert "of 4," in opened.page.text_content("#reading-place")
    assert browsing.export(opened.page)["ratings"] == written["ratings"]
    # What another window changes is not overwritten by this one.
    other = opened.context.new_page()
    other.goto(opened.page.url)
    other.get_by_role("button", name="Go on with the reading of A").click()
    other.keyboard.press("8")
    opened.page.wait_for_selector("#reading-warning:not([hidden])")
    assert "in another window" in opened.page.text_content("#reading-warning")
    changed = opened.page.evaluate("({...localStorage})")
    opened.page.keyboard.press("7")
    assert opened.page.evaluate("({...localStorage})") == changed
    other.close()
    opened.page.click("#reading-leave")
    for name in ("Delete the reading of A", "Really delete the reading of A"):
        opened.page.get_by_role("button", name=name).click()
    assert opened.page.evaluate("localStorage.length") == 0


def choose(opened, written):
    text = written if isinstance(written, str) else json.dumps(written)
    file = {"name": "a.json", "mimeType": "application/json", "buffer": text.encode()}
    opened.page.set_input_files("#reading-file", [file])
    # A file is read after the event.
    opened.page.wait_for_function(
        "() => document.querySelector('#reading-message:not(:empty), #desk:not([hidden])')"
    )
    return opened.page.text_content("#reading-message")


def test_files_that_are_no_reading_of_this_run_are_refused(visit, invented):
    opened = visit(invented[0])
    written = browsing.fill_reading(opened.page, invented_ratings(3), count=2)
    opened.page.click("#reading-leave")
    before = opened.page.evaluate("({...localStorage})")
    rows = written["ratings"]

    def changed(**values):
        return written | {"ratings": [rows[0] | values, *rows[1:]]}

    bad = {
        "{": "is not JSON",
        "null": "no reading of format 1",
        json.dumps(written | {"format": 2}): "no reading of format 1",
        json.dumps(written | {"run": "fedcba9876543210"}): "of run fedcba9876543210",
        json.dumps(written | {"reader": " "}): '"reader" is no name',
        json.dumps(written | {"seed": 0.5}): '"seed" is no whole number',
        json.dumps(written | {"count": 13}): '"count" is no number from 1 to 12',
        json.dumps(written | {"systems": ["original"]}): '"systems" are not those',
        json.dumps(written | {"ratings": [*rows, rows[0]]}): "a second time",
        json.dumps(changed(acceptability=6)): 'in rating 1, "acceptability"',
        json.dumps(changed(harm="some")): 'in rating 1, "harm" is none of',
        json.dumps(changed(harm=None)): 'in rating 1, "harm" is none of',
        json.dumps(changed(errors=["typo"])): '"errors" does not hold',
        json.dumps(changed(comment=7)): '"comment" is no text',
        json.dumps(changed(seconds=-1)): '"seconds" is neither',
        json.dumps(changed(report="case-99")): "none of those to be read",
        json.dumps(changed(system="w2")): "the system is none",
    }
    for text, sentence in bad.items():
        said = choose(opened, text)
        assert said.startswith("a.json cannot be used: "), (text[:80], said)
        assert sentence in said
        assert said.endswith(".")
        opened.page.evaluate("document.querySelector('#reading-message').textContent = ''")
    assert opened.page.evaluate("({...localStorage})") == before


def test_a_file_overwrites_nothing_unasked(visit, invented):
    opened, other = visit(invented[0]), visit(invented[0], "#reading")
    written = browsing.fill_reading(opened.page, invented_ratings(4), count=2)
    # In another browser, the whole reading comes back from the file.
    assert choose(other, written) == ""
    assert browsing.export(other.page) == written
    # Where ratings differ, the reader is asked.
    row = written["ratings"][0]
    same = [x for x in written["ratings"] if x["report"] == row["report"]]
    texts = dict(zip(SYSTEMS, REPORTS[row["report"]][2:], strict=True))
    same = [x for x in same if texts[x["system"]] == texts[row["system"]]]
    better = row["acceptability"] % 5 + 1
    changed = written | {
        "ratings": [
            x | ({"acceptability": better} if x in same else {}) for x in written["ratings"]
        ]
    }
    opened.page.click("#reading-leave")
    assert choose(opened, changed).startswith("1 of the file's ratings differ")
    opened.page.click("#take-kept")
    assert browsing.export(opened.page) == written
    opened.page.click("#reading-leave")
    choose(opened, changed)
    opened.page.click("#take-file")
    assert browsing.export(opened.page)["ratings"] == changed["ratings"]


def test_without_storage_the_reader_is_warned(visit, invented):
    opened = visit(invented[0])
    opened.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }})"
    )
    opened.page.reload()
    written = browsing.fill_reading(opened.page, invented_ratings(5), count=1)
    assert len(written["ratings"]) == 4
    assert "export before you close it" in opened.page.text_content("#reading-warning")
    opened.page.evaluate(QUIET)


def zoom_by_keys(page, small: float) -> None:
    """The image that is enlarged and has the focus; its keys go to no other report."""
    image, address = page.locator("#given img").first, page.url

    def height() -> float:
        return image.bounding_box()["height"]

    large = height()
    for key in ("+", "+", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert height() == pytest.approx(2.25 * large, rel=0.2)
    assert page.eval_on_selector("#given button", "each => each.scrollTop") > 0
    for key in ("-", "-", "-"):
        page.keyboard.press(key)
    assert height() == large
    page.keyboard.press("Escape")
    assert height() == small
    page.keyboard.press("x")
    assert height() == large
    page.keyboard.press("Escape")
    assert page.url == address


def test_the_x_ray_is_shown_to_who_explores_and_who_reads(visit, invented_run, tmp_path):
    run, _ = pictured(invented_run, tmp_path)
    shown = payload(run)
    place = shown["order"][0]
    report = shown["reports"][place]
    held = [pair for pair in inputs.images(run) if pair[0] != shown["reports"][0]["images"][1]]
    file = tmp_path / "report.html"
    file.write_text(page("# T\n\n## Verdict\n\nx\n", {}, shown, images=held), encoding="utf-8")
    opened = visit(file, "#explorer?sort=order")
    loaded = "all => Promise.all(all.map(x => x.decode().then(() => x.naturalWidth)))"
    assert opened.page.eval_on_selector_all("#given img", loaded) == [819]  # of 1200 × 1500
    assert "1 image of this report not in this file" in opened.page.text_content("#given")
    about = opened.page.text_content("#about-images")
    assert about.startswith(f"{len(held)} of {len(held) + 1} images in this file")
    opened.go(f"#explorer?report={report['id']}")
    assert opened.page.locator("#given img").count() == len(report["images"])
    small = opened.page.locator("#given img").first.bounding_box()["height"]
    opened.page.locator("#given button").first.click()
    assert opened.page.locator("#given img").first.bounding_box()["height"] > small
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    zoom_by_keys(opened.page, small)
    assert "look at every image before you pass" in opened.page.inner_text("#explorer-images")
    alt = opened.page.get_attribute("#given img", "alt")
    assert alt == "X-ray, the image of this report"
    opened.go("#reading").page.fill("#reading-count", "1")
    with opened.page.expect_download() as download:
        opened.page.click("#save-copy")
    assert opened.page.inner_text("#copy-images").startswith("This file has copies of X-rays.")
    copied = re.findall(r'id="image-(\d+)"', Path(download.value.path()).read_text())
    assert list(map(int, copied)) == report["images"]  # those of the one report to be read
    written = browsing.fill_reading(opened.page, invented_ratings(6), count=1, reference="shown")
    assert {row["report"] for row in written["ratings"]} == {report["id"]}
    assert opened.page.eval_on_selector_all("#reading-given img", loaded)
    opened.page.evaluate("document.querySelectorAll('script[id^=image-]').forEach(x => x.remove())")
    opened.go(f"#explorer?report={shown['reports'][1]['id']}")
    given = opened.page.text_content("#given")
    assert "not in this file, as the configuration did not ask for it (report: {images" in given
    shown_text = opened.page.locator("#reading-given .text").all_text_contents()
    assert shown_text == [REPORTS[report["id"]][1]]  # the radiologist's; there is no other input


def encoded(opened, count, reference):
    """What a readers' copy says of its reports: {id: [inputs, reference, outputs]}."""
    opened.page.fill("#reading-count", str(count))
    opened.page.select_option("#reading-reference", reference)
    with opened.page.expect_download() as download:
        opened.page.click("#save-copy")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    (held,) = re.findall(r'<script type="text/plain" id="payload">([^<]*)</script>', text)
    payload = json.loads(base64.b64decode(held))
    assert payload["choices"] == {"count": count, "reference": reference}
    assert len(payload["reports"]) == count
    return reading_of(payload, count, reference)


def reading_of(payload, count, reference):
    texts = [entry["text"] for entry in payload["texts"]]
    drawn = [payload["reports"][place] for place in payload["order"][:count]]
    return [
        [
            report["id"],
            [texts[number] for number in report["inputs"]],
            None if reference == "hidden" else texts[report["reference"]],
            [texts[output["text"]] for output in report["outputs"]],
        ]
        for report in drawn
    ]


def test_the_readers_copy_names_nobody(visit, invented, tmp_path):
    file = invented[0]
    opened = visit(file, "#reading")
    # The copy has what is chosen: this one not the radiologist's text, and no other report.
    assert encoded(opened, 1, "hidden") == reading_of(invented[1], 1, "hidden")
    assert encoded(opened, 2, "blinded") == reading_of(invented[1], 2, "blinded")
    with opened.page.expect_download() as download:
        opened.page.click("#save-copy")
    copy = tmp_path / download.value.suggested_filename
    download.value.save_as(copy)
    text = copy.read_text(encoding="utf-8")
    for secret in ("w4a", "RadGraph", "Verdict", REPORTS["case-04"][0]):
        assert secret in file.read_text(encoding="utf-8")
        assert secret not in text
    reader = visit(copy)
    assert reader.page.locator("#reading-count").is_disabled()
    reader.page.fill("#reader", "A")
    reader.page.click("#begin button")
    for _ in range(10):
        for key in ("3", "6", "Enter"):
            reader.page.keyboard.press(key)
    written = browsing.export(reader.page)
    assert written["finished"]
    assert (written["count"], written["reference"]) == (2, "blinded")
    assert len(written["ratings"]) == 2 * 5
    reader.page.reload()
    assert reader.page.get_by_role("button", name="Go on with the reading of A").is_visible()
    assert choose(opened, written) == ""
    assert browsing.export(opened.page) == written


def test_seconds_are_those_in_which_the_text_was_in_view_until_it_was_rated(visit, invented):
    opened = visit(invented[0])
    clock, press = opened.page.clock, opened.page.keyboard.press
    clock.install(time=0)
    opened.go("#reading").page.fill("#reader", "A")
    clock.pause_at(1_000_000)
    opened.page.click("#begin button")
    for wait, *keys in [
        (5_000, "4"),
        (2_500, "6"),
        (60_000, "Enter"),  # not counted: nothing changed
        (1_000, "5", "7", "ArrowLeft"),
        (3_000, "3"),
        (9_000, "ArrowRight"),
    ]:
        clock.run_for(wait)
        for key in keys:
            press(key)
    rows = browsing.export(opened.page)["ratings"]
    # Systems with the same text have the same seconds.
    assert {row["seconds"] for row in rows} == {10.5, 1}
