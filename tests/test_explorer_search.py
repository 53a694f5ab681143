"""What the explorer of report.html finds, counts, orders and hands out, in a real browser."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from browser_fixtures import HOSTILE, browser, hostile, invented, visit
from explorer_expected import by_default, expected
from explorer_reports import CONFIG, REPORTS, made_payload, page, payload

from radquant.generation.stage import read_reports
from radquant.scoring.changes import FLAGS, KINDS
from radquant.settings.generation import Generation

__all__ = ["browser", "hostile", "invented", "visit"]

# A cell that a spreadsheet would take for a formula.
FORMULA = re.compile(r"[\s\u200b\ufeff]*[=+\-@\uff0b\uff0d\uff1d\uff20]")
# What is chosen, one row of the filters and the search at a time and together.
CHOSEN = [
    {},
    {"q": "effusion"},
    {"q": "no such words"},
    {"precision": ["w4a8"]},
    {"precision": ["original", "w4a4"]},
    {"kind": ["lost", "side"]},
    {"flag": ["empty"]},
    {"finding": "pneumothorax"},
    {"finding": "pleural effusion", "status": "present in the reference"},
    {"finding": "pneumothorax", "status": "absent in an output", "precision": ["w4a4"]},
    {"finding": "consolidation", "status": "changed against the original's output"},
    {"q": "right", "kind": ["lost"], "status": "other than in the reference"},
    {"q": "case-0", "precision": ["w4a4"], "kind": ["lost", "invented"], "finding": "edema"},
    {"finding": "constructor"},
]


def address(chosen):
    return f"#explorer?{urlencode(chosen, doseq=True)}"


def counts(opened, row):
    """{value: the number beside it} of the chips in a row of the filters."""
    return dict(
        opened.page.eval_on_selector_all(
            f"#{row} .chip",
            "all => all.map(x => [x.firstChild.value, Number(x.querySelector('b').textContent)])",
        )
    )


def offer_all(opened):
    button = opened.page.locator("#all-findings")
    if button.is_visible() and button.get_attribute("aria-expanded") == "false":
        button.click()


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_a_number_beside_a_value_is_what_choosing_it_lists(visit, invented, chosen):
    file, payload = invented
    opened = visit(file, address(chosen))
    assert opened.ids() == expected(payload, **chosen)

    def listed(**row):
        return len(expected(payload, **{**chosen, **row}))

    systems = {name: listed(precision=[name]) for name in payload["systems"]}
    assert counts(opened, "precisions") == systems
    assert counts(opened, "kinds") == {kind: listed(kind=[kind]) for kind in KINDS}
    assert counts(opened, "flags") == {flag: listed(flag=[flag]) for flag in FLAGS}
    offer_all(opened)
    names = {name for text in payload["texts"] for name in text["findings"]}
    every = {name: listed(finding=name) for name in names}
    offered = counts(opened, "finding-names")
    wanted = {name: many for name, many in every.items() if many}
    if finding := chosen.get("finding"):
        wanted[finding] = every.get(finding, 0)
        assert next(iter(offered)) == finding
    assert offered == wanted
    others = [many for name, many in offered.items() if name != finding]
    assert others == sorted(others, reverse=True)


def test_any_finding_is_found_by_a_part_of_its_name(visit, invented):
    file, payload = invented
    opened = visit(file, "#explorer")
    opened.page.locator("#finding").press_sequentially("EFFUS")
    names = {name for text in payload["texts"] for name in text["findings"]}
    assert set(counts(opened, "finding-names")) == {name for name in names if "effus" in name}
    assert opened.ids() == expected(payload)  # what is typed only narrows what is offered
    opened.page.keyboard.press("Enter")  # the only one that it can be
    assert opened.ids() == expected(payload, finding="pleural effusion")
    assert opened.page.input_value("#finding") == ""
    opened.page.fill("#finding", "no such finding")
    assert "no finding with this in its name" in opened.page.text_content("#finding-note")
    opened.page.keyboard.press("Enter")
    assert opened.ids() == expected(payload, finding="pleural effusion")
    opened.page.fill("#finding", "")
    chosen = opened.page.locator("#finding-names input").first
    chosen.focus()
    opened.page.keyboard.press("Space")  # takes it back
    assert opened.ids() == expected(payload)
    assert opened.page.evaluate("document.activeElement.value") == "pleural effusion"
    opened.go("#explorer?finding=no+such")
    assert opened.ids() == []
    assert "no finding of this name" in opened.page.text_content("#finding-note")


def marks(opened, paragraphs):
    """[text around, hits as marked] of these paragraphs, without removed words."""
    return opened.page.eval_on_selector_all(
        paragraphs,
        """all => all.map(x => {
            const copy = x.cloneNode(true);
            for (const gone of copy.querySelectorAll(".gone")) gone.remove();
            const marks = [...copy.querySelectorAll("mark")].map(mark => mark.textContent);
            return [copy.textContent, marks.join("")];
        })""",
    )


@pytest.mark.parametrize("wanted", ["effusion", "NO PNEUMO", "right ", "1.2 cm", "."])
def test_what_the_search_finds_is_marked(visit, invented, wanted):
    file, payload = invented
    opened = visit(file, address({"q": wanted}))
    assert opened.ids() == expected(payload, q=wanted)
    found = 0
    for _ in opened.ids():
        for text, marked in [*marks(opened, ".card .text"), *marks(opened, "#given-parts > .text")]:
            hits = re.findall(re.escape(wanted), text, re.IGNORECASE)
            assert marked == "".join(hits)
            found += len(hits)
        assert opened.page.locator("#given-parts details mark").count() == 0
        opened.page.keyboard.press("j")
    assert found


def test_a_hit_in_an_id_is_marked(visit, invented):
    opened = visit(invented[0], "#explorer?q=SE-1")
    assert opened.page.locator("#list mark").all_text_contents() == ["se-1"] * 3
    assert opened.page.locator("#detail-title mark").text_content() == "se-1"


@pytest.mark.parametrize(
    "wanted", ["<mark>", "</script>", "effusion", "<img src=x onerror", "\"'`$"]
)
def test_marks_in_hostile_texts_are_text(visit, hostile, wanted):
    opened = visit(hostile[0], address({"q": wanted, "sort": "order"}))
    names = opened.ids()
    assert {name for name, text in HOSTILE.items() if wanted in text} <= set(names)
    assert names
    for name in names:
        hits = re.findall(re.escape(wanted), HOSTILE[name], re.IGNORECASE)
        assert opened.title() == name
        assert marks(opened, ".card.reference .text") == [[HOSTILE[name], "".join(hits)]]
        assert opened.page.locator(".card mark :is(*)").count() == 0
        assert opened.page.locator(".cards :is(img, b, script)").count() == 0
        opened.page.keyboard.press("j")


def test_lower_case_moves_no_place_in_a_text(visit, invented):
    """Of all characters, alone and between letters."""
    opened = visit(invented[0], "#explorer")
    moved = opened.page.evaluate(
        """() => {
            const moved = [];
            for (let code = 0; code <= 0x10ffff; code++) {
                const text = `a${String.fromCodePoint(code)}b`;
                if (radquant.folded(text).length !== text.length) moved.push(code);
            }
            return moved;
        }"""
    )
    assert moved == []


def exported(opened):
    with opened.page.expect_download() as download:
        opened.page.click("#export")
    assert re.fullmatch(r"reports-[0-9a-f]{16}\.csv", download.value.suggested_filename)
    return Path(download.value.path()).read_bytes().decode("utf-8")


def rows_of(text, delimiter=","):
    return list(
        csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter)
    )


@pytest.mark.parametrize(
    "chosen", [{}, {"q": "effusion"}, {"precision": ["w4a4"], "sort": "order"}]
)
def test_the_reports_that_are_shown_are_exported(visit, invented, chosen):
    file, payload = invented
    text = exported(visit(file, address(chosen)))
    assert text.startswith("\ufeff")  # or a spreadsheet reads no umlauts
    heading, *rows = rows_of(text)
    table = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [row["report"] for row in table] == expected(payload, **chosen)
    texts = [entry["text"] for entry in payload["texts"]]
    reports = {report["id"]: report for report in payload["reports"]}
    systems = [payload["systems"].index(name) for name in chosen.get("precision", [])]
    shown = [0, *(systems or by_default(payload))]
    others = {name for at, name in enumerate(payload["systems"]) if at not in shown}
    assert not others & {name.partition(":")[0] for name in heading}
    for row in table:
        report = reports[row["report"]]
        assert row["input: findings"] == texts[report["inputs"][0]]
        assert row["reference"] == texts[report["reference"]]
        for at in shown:
            name, output = payload["systems"][at], report["outputs"][at]
            assert row[name] == texts[output["text"]]
            assert float(row[f"{name}: F1"]) == output["f1"]
            assert row[f"{name}: faults"] == ", ".join(output["flags"])
            if at == 0:
                continue
            assert int(row[f"{name}: harm"]) == output["harm"]
            changes = row[f"{name}: changes"].splitlines()
            assert len(changes) == len(output["changes"])
            for line, change in zip(changes, output["changes"], strict=True):
                assert line.startswith(change["kind"])
                assert all(change[key] in line for key in ("finding", "before", "after"))


def test_no_exported_cell_is_a_formula(visit, hostile):
    """Whatever separates the cells of the spreadsheet that opens the file."""
    text = exported(visit(hostile[0], "#explorer?sort=order"))
    rows = rows_of(text)
    assert len(rows) == 1 + len(HOSTILE)
    assert [name.lstrip("'") for name, *_ in rows[1:]] == [name.lstrip("'") for name in HOSTILE]
    for delimiter in ",;\t|":
        for row in rows_of(text.replace("\0", ""), delimiter):
            assert not any(FORMULA.match(cell) for cell in row), (delimiter, row)
    # Nothing but apostrophes was put in.
    for (_, reference, *_), wanted in zip(rows[1:], HOSTILE.values(), strict=True):
        assert reference.replace("'", "") == wanted.replace("'", "")


def test_an_address_of_no_report_says_so(visit, invented):
    file, payload = invented
    for name in ("nobody", "<img src=x onerror=alert(1)>", "constructor", "x" * 5000):
        opened = visit(file, address({"report": name}))
        assert opened.page.text_content("#detail-title") == f"No report {name[:200]}"
        assert "no report of this id among its 12" in opened.page.text_content("#detail-note")
        assert opened.page.locator(".card").count() == 0
        assert opened.page.locator("#given").is_hidden()
        assert opened.page.locator("#list [aria-current]").count() == 0
        assert opened.ids() == expected(payload)
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        opened.page.get_by_role("button", name="Next ›").click()
        assert opened.title() == expected(payload)[0]
        assert opened.page.text_content("#detail-note") == ""


def test_a_report_that_the_filters_leave_out_is_shown_and_said_to_be(visit, invented):
    opened = visit(invented[0], "#explorer?report=case-03&q=granuloma")
    assert opened.title() == "case-03"
    assert opened.page.text_content("#place") == "not among the reports shown"
    opened.go("#explorer?q=nowhere")
    assert opened.page.text_content("#detail-title") == "No report passes these filters"
    assert "clear the filters" in opened.page.text_content("#detail-note")
    assert opened.page.is_disabled("#export")


def test_the_weights_by_which_reports_are_ordered_are_stated(visit, invented):
    file, payload = invented
    opened = visit(file, "#explorer?sort=order&precision=w4a16&precision=w4a8&precision=w4a4")
    opened.page.click("#about-harm summary")
    stated = opened.page.eval_on_selector_all(
        "#weights dt",
        "all => all.map(x => [x.firstChild.data.trim(), Number(x.lastChild.textContent)])",
    )
    assert [name for name, _ in stated] == [*KINDS, *FLAGS]
    weights = dict(stated)
    assert weights["cut off"] < weights["negated"]
    for report in payload["reports"]:
        for card in opened.page.locator(".card").all()[2:]:
            told = card.locator(".kind, .flag").all_text_contents()
            harm = sum(weights[name] for name in told)
            header = card.locator("header").text_content()
            assert re.search(rf"harm {harm}(?!\d)", header), (report["id"], header)
        opened.page.keyboard.press("j")


# ---- Ruined precisions


def with_ruined(invented, folder, names):
    file = folder / "report.html"
    changed = {**invented[1], "ruined": {name: f"{name} is <b>broken</b>." for name in names}}
    file.write_text(page("# Title\n\n## Verdict\n\n**Words.**\n", {}, changed), encoding="utf-8")
    return file, changed


def test_a_ruined_precision_is_shown_only_if_it_is_chosen(visit, invented, tmp_path):
    file, payload = with_ruined(invented, tmp_path, ["w4a4"])
    opened = visit(file, "#explorer")
    assert opened.ids() == expected(payload, precision=["w4a16", "w4a8"])
    assert list(opened.cards()) == ["reference", "original", "w4a16", "w4a8"]
    assert "w4a4 is ruined, and shown only if chosen: w4a4" in opened.page.text_content("#ruined")
    assert "w4a4 is <b>broken</b>." in opened.page.text_content("#ruined")
    assert not any("w4a4" in name for name in rows_of(exported(opened))[0])
    opened.check("w4a4")
    assert opened.ids() == expected(payload, precision=["w4a4"])
    assert list(opened.cards()) == ["reference", "original", "w4a4"]
    opened.check("w4a8")
    assert opened.ids() == expected(payload, precision=["w4a8", "w4a4"])


def test_where_all_precisions_are_ruined_all_are_shown(visit, invented, tmp_path):
    file, payload = with_ruined(invented, tmp_path, ["w4a16", "w4a8", "w4a4"])
    opened = visit(file, "#explorer")
    assert opened.ids() == expected(payload, precision=["w4a16", "w4a8", "w4a4"])
    assert list(opened.cards()) == ["reference", *payload["systems"]]


def test_nothing_is_said_of_ruin_where_there_is_none(visit, tmp_path):
    texts = [{"text": "No effusion.", "spans": []}]
    output = {"text": 0, "f1": 1.0, "harm": 0, "changes": [], "flags": [], "unsupported": []}
    reports = [{"id": "a", "reference": 0, "outputs": [output]}]
    file = tmp_path / "report.html"
    alone = made_payload(["original"], reports, texts)
    file.write_text(page("# Title\n\n## Verdict\n\n**Words.**\n", {}, alone), encoding="utf-8")
    opened = visit(file, "#explorer")
    assert opened.page.locator("#ruined").text_content() == ""
    assert opened.ids() == ["a"]
    assert list(opened.cards()) == ["reference", "original"]


# ---- What the models were given


def read_as_writing_does(folder, by):
    """The instruction and each report's examples, by the code with which a model writes."""
    files = {"eval": folder / "data/eval.csv", "train": folder / "data/train.csv"}
    prompt = Path(__file__).parents[1] / CONFIG["generation"]["prompt"]
    settings = SimpleNamespace(
        task=SimpleNamespace(target="impression"),
        corpus=SimpleNamespace(image_root=None),
        run=SimpleNamespace(seed=CONFIG["seed"]),
        generation=Generation(examples=2, examples_by=by),
    )
    args = SimpleNamespace(**files, prompt=prompt, prompt_text=None)
    template, _, examples = read_reports(args, settings)
    return template, examples


@pytest.mark.parametrize("by", ["drawn", "nearest"])
def test_the_input_has_the_instruction_and_the_examples(visit, invented_run, tmp_path, by):
    shards = {
        name: [{**record, "examples_by": by} for record in each]
        for name, each in invented_run.shards.items()
    }
    file = tmp_path / "report.html"
    shown = payload(replace(invented_run, shards=shards))
    file.write_text(page("# Title\n\n## Verdict\n\n**Words.**\n", {}, shown), encoding="utf-8")
    template, examples = read_as_writing_does(invented_run.folder, by)
    opened = visit(file, "#explorer?sort=order")
    summaries = opened.page.locator("#given summary")
    assert summaries.all_text_contents() == [
        "The instruction",
        "2 solved examples before this report",
    ]
    for summary in summaries.all():
        summary.focus()
        opened.page.keyboard.press("Enter")
    for name, rows in zip(REPORTS, examples, strict=True):
        assert opened.title() == name
        assert opened.page.text_content("#given details .text >> nth=0") == template
        shots = opened.page.locator(".shot")  # still unfolded
        assert [shot.is_visible() for shot in shots.all()] == [True, True]
        for number, (shot, row) in enumerate(zip(shots.all(), rows, strict=True), 1):
            title = f"Example {number} of 2, training report {row['id']}"
            assert shot.locator("h4").text_content() == title
            assert shot.locator("h5").all_text_contents() == ["findings", "impression, the answer"]
            texts = shot.locator(".text").all_text_contents()
            assert texts == [row["findings"], row["impression"]]
        opened.page.keyboard.press("j")


def test_no_example_is_shown_where_the_prompts_have_none(visit, invented_run, tmp_path):
    shards = {
        name: [{**record, "examples": 0} for record in each]
        for name, each in invented_run.shards.items()
    }
    shown = payload(replace(invented_run, shards=shards))
    assert shown["examples"] == []
    file = tmp_path / "report.html"
    file.write_text(page("# Title\n\n## Verdict\n\n**Words.**\n", {}, shown), encoding="utf-8")
    opened = visit(file, "#explorer")
    assert opened.page.locator("#given summary").all_text_contents() == ["The instruction"]
