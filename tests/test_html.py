"""report.html as a file: what it holds and what it cannot do. (test_explorer.py opens it.)"""

import base64
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from explorer_reports import CONFIG, REPORTS, embed, made_payload, page, payload, pictured
from PIL import Image

from radquant.errors import UserError
from radquant.image_files import decode
from radquant.reporting import inputs
from radquant.reporting.changes_section import labelled
from radquant.reporting.explorer import marks
from radquant.reporting.facts import MARKS
from radquant.reporting.figures import figures
from radquant.reporting.formatting import escape, plain
from radquant.reporting.html import ASSETS
from radquant.reporting.judgement import WORDS
from radquant.reporting.reading import order, run_id
from radquant.reporting.summary import summarize
from radquant.reporting.verdict_section import verdict_section
from radquant.scoring import lexicon

HOSTILE = [
    *("<script>alert(1)</script>", "</script>", "<!--", "<![CDATA[", "&lt;b&gt;", "\u2028\u2029"),
    *("<img src=x onerror=alert(1)>", "<details><summary><img src=x></summary>", "</details><b>"),
    *("[x](javascript:alert(1))", "![x](https://example.org/x.png)", "\U0001f9e0 שלום"),
]
TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
EMPTY = made_payload(["original"], [], [])


class Reader(HTMLParser):
    """Elements with their attributes, the text that is shown, and that of each table's cell."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.cells, self.texts = [], [], []
        self.inside = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input", "img", "br"):
            self.inside.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag  # well-formed

    def handle_data(self, data):
        if {"td", "th"} & set(self.inside):
            self.cells[-1] += data
        if "script" not in self.inside and "style" not in self.inside:
            self.texts.append(data)


@pytest.fixture(scope="module")
def shown(invented_parts):
    return page(*invented_parts)


def document(body):
    return page(f"# Title\n\nSome words.\n\n## Part\n\n{body}\n", {}, EMPTY)


def article(body):
    """The part of the page that Markdown makes."""
    return re.search(r"<article>.*</article>", document(body), re.S)[0]


def elements(text, *tags):
    return [(tag, attributes) for tag, attributes in Reader(text).elements if tag in tags]


def test_every_cell_of_every_table_is_on_the_page_in_its_order(invented_parts, shown):
    rows = [line for line in invented_parts[0].splitlines() if re.match(r"\|(?! -)", line)]
    expected = [
        re.sub(r"\\(.)|`|\*\*", r"\1", cell.strip())
        for row in rows
        for cell in re.split(r"(?<!\\)\|", row)[1:-1]
    ]
    assert len(expected) > 300
    assert Reader(shown).cells == expected


def test_the_verdict_comes_first(invented_parts, shown, invented_run):
    sentences = summarize(invented_run)["verdict"]
    text = shown.split("<article>")[1]
    assert re.search(r"<h2[^>]*>(.*?)</h2>", text)[1] == "Verdict"
    head = re.sub("<[^>]+>", "", html.unescape(text[: text.index("<table>")]))
    assert all(sentence in " ".join(head.split()) for sentence in sentences)


def test_all_headings_are_there_and_in_the_contents(invented_parts, shown):
    titles = [re.sub(r"\\(.)", r"\1", t) for t in re.findall(r"^## (.*)$", invented_parts[0], re.M)]
    contents = re.search(r'<nav class="contents".*?</nav>', shown, re.S)[0]
    links = re.findall(r'<a href="#([^"]+)">([^<]*)</a>', contents)
    assert [html.unescape(title) for _, title in links] == titles
    ids = [attributes["id"] for _, attributes in Reader(shown).elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {name for name, _ in links} <= set(ids)


def test_no_heading_takes_an_id_of_the_explorer():
    body = page("# T\n\n## Search\n\na\n\n## Detail\n\n## Detail\n\n## Äö\n", {}, EMPTY)
    ids = [attributes["id"] for _, attributes in Reader(body).elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"search-2", "detail-2", "detail-3", "section"} <= set(ids)


def test_figures_are_inside_with_the_texts_that_describe_them(invented_parts, shown):
    expected = re.findall(r"!\[(.*?)\]\((.*?)\)", invented_parts[0])
    images = elements(shown, "img")
    assert len(images) == 5
    for (alt, path), (_, image) in zip(expected, images, strict=True):
        assert image["alt"] == alt
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data).decode() == invented_parts[1][path]


def test_nothing_is_loaded_from_anywhere(shown):
    loading = {"src", "srcset", "data", "action", "formaction", "poster", "background", "ping"}
    for tag, attributes in Reader(shown).elements:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        for name in loading & attributes.keys():
            assert attributes[name].startswith("data:image/svg+xml;base64,"), (tag, name)
        if "href" in attributes:
            assert attributes["href"].startswith("#") or attributes["href"] == "data:,"
    assert not elements(shown, "iframe", "object", "embed", "base")
    assert "url(" not in (ASSETS / "explorer.css").read_text()
    assert "@import" not in (ASSETS / "explorer.css").read_text()


def test_only_this_style_and_this_script_may_run(shown):
    policy = next(a["content"] for _, a in elements(shown, "meta") if "http-equiv" in a)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("img-src") == "data:"
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", shown, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert "unsafe" not in policy


def test_no_script_writes_markup():
    script = "".join(path.read_text() for path in ASSETS.glob("*.js"))
    for name in ("insertAdjacentHTML", "document.write", "eval(", "setHTML", "parseFromString"):
        assert name not in script
    assert not re.search(r"(?:inner|outer)HTML\s*\+?=(?!=)", script)  # read, by the readers' copy
    assert "fetch(" not in script
    assert "</" not in script


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["{}", "words {} words", "- {}", "| a |\n| - |\n| {} |"])
def test_markup_in_the_report_is_shown_as_text(text, place):
    reader = Reader(article(place.format(text)))
    harmless = {"article", "section", "div", "h1", "h2", "p", "ul", "li", "a"}
    assert {tag for tag, _ in reader.elements} <= harmless | TABLE
    assert not [a for _, a in reader.elements if a.get("href", "").startswith("javascript")]
    if not re.search(r"\]\(|&", text):  # Markdown's own links and entities
        assert "".join(text.split()) in "".join("".join(reader.texts).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_what_the_report_escapes_is_shown_as_it_was(text):
    reader = Reader(article(f"**a {escape(text)} b**"))
    expected = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    assert expected in "".join(reader.texts)
    assert {tag for tag, _ in reader.elements} <= {
        *("article", "section", "div", "h1", "h2", "p", "strong"),
    }


@pytest.mark.parametrize(
    ("start", "attributes"),
    [("details", {}), ("details open", {"open": None})],
)
def test_the_report_can_fold_a_part_away(start, attributes):
    table = "| a |\n| - |\n| 1 |"
    body = article(f"<{start}><summary>More &lt;b&gt;</summary>\n\n{table}\n\n</details>")
    found = elements(body, "details", "summary", "table", "b")
    assert [tag for tag, _ in found] == ["details", "summary", "table"]
    assert found[0][1] == attributes


def test_at_first_no_table_has_more_than_seven_columns(invented_parts, shown):
    """Neither in report.md, where the rest stands in a second table, nor on the page."""
    for text in (invented_parts[0], shown):
        first = re.sub(r"<details.*?</details>", "", text, flags=re.S)
        rows = re.findall(r"<thead>(.*?)</thead>", first, re.S)
        counts = [row.count("<th ") for row in rows]
        counts += [
            len(re.split(r"(?<!\\)\|", line)) - 2 for line in first.splitlines() if line[:1] == "|"
        ]
        assert len(counts) > 10
        assert max(counts) == 7
    assert '<details class="columns"><summary>More columns: ' in shown


def test_every_head_of_every_table_says_what_it_means(invented_parts, shown):
    heads = [a for _, a in elements(shown, "th") if a.get("scope") == "col"]
    assert len(heads) > 70
    texts = dict(re.findall(r'<p id="(about-\d+)">(.*?)</p>', shown))
    assert {head["data-about"] for head in heads} == set(texts)
    sentences = [s for t in texts.values() for s in re.split(r"(?<=[.!?]) (?=[A-Z])", t)]
    assert all(sentence.endswith(".") and len(sentence.split()) <= 25 for sentence in sentences)
    # Of heads that stand in several sections, each section's own meaning.
    first = r'aria-label="([^"]*), table 1".*?<th [^>]*data-about="([^"]*)"'
    tables = dict(re.findall(first, shown, re.S))
    assert texts[tables["Data"]].startswith("A step of cleaning")
    assert texts[tables["Quantization"]].startswith("A set of stored weights")


def test_the_verdict_is_five_facts_with_marks_and_words(invented_run, shown):
    check_facts(summarize(invented_run)["facts"], shown)


def test_the_facts_are_so_behind_a_list_of_reasons(invented_run):
    """Two lists that follow each other can be one in Markdown, with paragraphs in its items."""
    summary = summarize(invented_run)
    reasons = [
        {"kind": "language", "sentence": f"text {n} is German.", "numbers": {}} for n in range(3)
    ]
    summary["quality"]["fitness"] |= {"fit": False, "reasons": reasons}
    written = document(verdict_section(summary))
    check_facts(summary["facts"], written)
    assert re.findall(r"<li>(text \d is German\.)</li>", written) == [
        "text 1 is German.",
        "text 2 is German.",
    ]


def check_facts(told, shown):
    items = re.findall(r'<li class="fact (\w+)">(.*?)</li>', shown, re.S)
    assert len(items) == len(told) == 5
    for (kind, item), fact in zip(items, told, strict=True):
        parts = re.fullmatch(
            r'<span class="mark" aria-hidden="true">(.)</span>'
            r'<span class="question">(.*?)\s*</span>'
            r'<strong>(.*?)</strong><span class="says">(.*)</span>\s*',
            item,
            re.S,
        ).groups()
        mark, question, word, says = (" ".join(html.unescape(part).split()) for part in parts)
        assert (mark, question, word) == (fact["mark"], fact["question"], f"{fact['word']}.")
        assert MARKS[mark] == kind
        assert says == " ".join(fact["says"])


def test_a_figure_has_its_caption_under_it(invented_run, invented_parts, shown):
    drawn = figures(summarize(invented_run))
    found = re.findall(
        r'<figure>.*?alt="(.*?)".*?<figcaption>(.*?)</figcaption>\s*</figure>', shown, re.S
    )
    told = {html.unescape(alt): " ".join(html.unescape(text).split()) for alt, text in found}
    assert told == {each.description: each.caption for each in drawn.values()}
    for caption in told.values():
        for sentence in re.split(r"(?<=[.:]) (?=[A-Z])", caption):
            assert len(sentence.split()) <= 25, sentence
    assert next(iter(drawn)) == "loss"
    assert shown.index(drawn["loss"].description) < shown.index(drawn["differences"].description)


def test_a_word_of_the_verdict_has_a_mark_of_its_own_in_each_table():
    rows = "".join(f"| w | {word} |\n" for word in (*WORDS, "worse than"))
    found = [a.get("class") for _, a in elements(article(f"| a | b |\n| - | - |\n{rows}"), "td")]
    assert found == ["word bad", "word good", "word good", "word open", "word unfit", None]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_payload_stays_inside_its_element(text):
    written = embed({"text": text})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"text": text}


def test_equal_runs_give_equal_pages(invented_parts, shown):
    assert page(*invented_parts) == shown


def test_the_payload_says_what_the_tables_say(invented_run, invented_parts):
    shown = invented_parts[2]
    systems = list(CONFIG["precisions"])
    assert shown["systems"] == systems
    assert [report["id"] for report in shown["reports"]] == list(REPORTS)
    texts = [entry["text"] for entry in shown["texts"]]
    assert len(texts) == len(set(texts))
    for report in shown["reports"]:
        _, reference, *outputs = REPORTS[report["id"]]
        assert texts[report["reference"]] == reference
        assert [texts[output["text"]] for output in report["outputs"]] == outputs
    for at, system in enumerate(systems):
        for row, report in zip(
            invented_run.scores[system].itertuples(), shown["reports"], strict=True
        ):
            output = report["outputs"][at]
            assert output["f1"] == pytest.approx(row.complete, abs=1e-6)
            for column in ("changes", "flags", "unsupported"):
                assert output[column] == json.loads(getattr(row, column))


def test_the_invented_reports_have_every_kind_of_change_and_flag(invented_parts):
    outputs = [output for report in invented_parts[2]["reports"] for output in report["outputs"]]
    kinds = {change["kind"] for output in outputs for change in output["changes"]}
    assert kinds == {kind for kind, _ in invented_parts[2]["kinds"]}
    assert {flag for output in outputs for flag in output["flags"]} == set(
        invented_parts[2]["flags"]
    )
    assert all(o["harm"] == 0 for o in outputs if not o["changes"] and not o["flags"])


def test_marks_are_where_the_words_are_and_count_as_javascript_does():
    text = "\U0001f9e0 No effusion. \U0001f9e0\U0001f9e0 Possible edema of the lungs."
    found = marks(text, lexicon.annotate(text))
    units = text.encode("utf-16-le")
    words = [(units[2 * a : 2 * b].decode("utf-16-le"), status) for a, b, status in found]
    assert ("effusion", "absent") in words
    assert ("edema", "uncertain") in words
    assert ("lungs", "anatomy") in words


def test_words_of_normality_are_not_coloured_as_findings():
    text = "The lungs are clear. No effusion. Nodule."
    found = [(text[a:b], status) for a, b, status in marks(text, lexicon.annotate(text))]
    assert found == [
        ("lungs", "anatomy"),
        ("clear", "normal"),
        ("effusion", "absent"),
        ("Nodule", "present"),
    ]


def test_the_input_is_what_the_prompt_shows(invented_run, invented_parts, tmp_path):
    shown = invented_parts[2]
    texts = [entry["text"] for entry in shown["texts"]]
    assert shown["inputs"] == ["findings"]
    for report in shown["reports"]:
        assert [texts[number] for number in report["inputs"]] == [REPORTS[report["id"]][0]]
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{impression} of {id}")
    settings = {**CONFIG, "generation": {**CONFIG["generation"], "prompt": str(prompt)}}
    other = payload(replace(invented_run, config=settings))
    assert other["inputs"] == ["impression", "id"]
    number, name = other["reports"][4]["inputs"]
    # It is a reference too, and has the marks of one.
    assert other["texts"][number]["spans"]
    assert number == other["reports"][4]["reference"]
    assert other["texts"][name] == {"text": "case-05", "spans": [], "findings": {}}


def test_findings_are_those_of_the_scores(invented_run, invented_parts):
    shown = invented_parts[2]
    for at, system in enumerate(shown["systems"]):
        scores = invented_run.scores[system]
        for row, report in zip(scores.itertuples(), shown["reports"], strict=True):
            number = report["outputs"][at]["text"]
            assert shown["texts"][number]["findings"] == json.loads(row.statuses)
            if at == 0:
                expected = json.loads(row.reference_statuses)
                assert shown["texts"][report["reference"]]["findings"] == expected
    assert shown["texts"][shown["reports"][0]["reference"]]["findings"]["pleural effusion"]


def test_a_reading_belongs_to_the_texts_and_not_to_their_scores(invented_run):
    name = run_id(invented_run)
    scores = {key: table.assign(complete=0.5) for key, table in invented_run.scores.items()}
    assert run_id(replace(invented_run, scores=scores)) == name
    table = invented_run.generations["w4a8"]
    outputs = table["output"].where(table["id"] != "case-07", "No change.")
    changed = invented_run.generations | {"w4a8": table.assign(output=outputs)}
    assert run_id(replace(invented_run, generations=changed)) != name
    # A shorter list is the beginning of a longer one, but for who is missing.
    ids = [f"r{number}" for number in range(200)]
    drawn = [ids[place] for place in order(name, ids)]
    half = [ids[place] for place in order(name, ids[:100])]
    assert sorted(drawn) == sorted(ids)
    assert half == [one for one in drawn if one in ids[:100]]
    assert drawn != ids


def test_images_are_embedded_as_the_model_is_shown_them(invented_run, tmp_path):
    run, files = pictured(invented_run, tmp_path)
    assert not inputs.pictured(run.config)  # unless asked for
    assert inputs.pictured({**run.config, "report": {"images": True}})
    shown = payload(run)
    assert (shown["inputs"], shown["images"], shown["side"]) == ([], len(files), 1024)
    held = dict(inputs.images(run))
    assert sorted(held) == list(range(len(files)))
    for report in shown["reports"]:
        assert [files[number].stem for number in report["images"]] == [
            f"{report['id']}-{view}" for view in ("a", "b")[: len(report["images"])]
        ]
    for number, file in enumerate(files):
        kind, _, data = held[number].partition(",")
        assert kind == "data:image/jpeg;base64"
        written = base64.b64decode(data)
        assert b"Doe" not in written  # the header of the file stays outside
        image, model = Image.open(io.BytesIO(written)), decode(file.read_bytes())
        assert image.mode == "L"
        assert max(image.size) <= 1024
        if max(model.size) <= 1024:
            assert image.size == model.size
            error = np.abs(np.asarray(image, float) - np.asarray(model.convert("L"), float))
            assert error.mean() < 3
        else:
            assert max(image.size) == 1024
            assert image.width / image.height == pytest.approx(model.width / model.height, abs=0.01)


def test_the_images_are_bounded_and_those_come_first_that_are_read_first(invented_run, tmp_path):
    run, files = pictured(invented_run, tmp_path)
    shown, everything = payload(run), dict(inputs.images(run))
    first = shown["reports"][shown["order"][0]]["images"]
    room = sum(len(everything[number]) for number in first)
    assert [number for number, _ in inputs.images(run, room)] == first
    assert [number for number, _ in inputs.images(run, room - 1)] == first[:-1]
    whole = page("# T\n\n## P\n\nx\n", {}, shown, images=list(inputs.images(run, room)))
    found = re.findall(r'<script type="text/plain" id="image-(\d+)">([^<]*)</script>', whole)
    assert [(int(number), uri) for number, uri in found] == list(inputs.images(run, room))
    files[0].unlink()
    with pytest.raises(UserError, match=rf"{files[0].name}, named in column 'images' of report"):
        list(inputs.images(run))


def test_a_row_is_headed_by_its_first_cell_that_is_not_empty():
    body = article("| group | of |\n| - | -: |\n| one | a |\n|  | b |\n|  |  |\n")
    heads = [(a["scope"], a.get("class")) for _, a in elements(body, "th")]
    assert heads == [("col", None), ("col", "number"), ("row", None), ("row", "number")]
    assert Reader(body).cells == ["group", "of", "one", "a", "", "b", "", ""]


def test_the_texts_of_an_example_are_a_list_and_each_is_in_one_piece(invented_run, shown):
    """report.md breaks their lines; a narrow page would break those once more."""
    references = dict(
        zip(invented_run.reports["id"], invented_run.reports["reference"], strict=True)
    )
    written = {
        name: dict(zip(table["id"], table["output"], strict=True))
        for name, table in invented_run.generations.items()
    }
    blocks = re.findall(r'<dl class="labelled">(.*?)</dl>', shown, re.S)
    titles = re.findall(r"<strong>(\w+), report ([\w-]+)</strong>", shown)
    assert len(blocks) == len(titles) == 5
    for block, (precision, report) in zip(blocks, titles, strict=True):
        found = dict(re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", block, re.S))
        assert list(found) == ["reference", "original", precision, "changes"]
        whole = {"reference": references[report]}
        whole |= {name: written[name][report] for name in ("original", precision)}
        for name, text in whole.items():
            assert html.unescape(found[name]) == (" ".join(text.split()) or "–")


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_an_example_is_shown_as_text(text):
    """Also where report.md breaks the line."""
    words = f"{'word ' * 30}{text}{' word' * 30}"
    body = article(labelled({"original": words, "a-b": text}))
    assert [tag for tag, _ in elements(body, "dl", "dt", "dd", "script", "img", "b")] == [
        *("dl", "dt", "dd", "dt", "dd")
    ]
    assert plain(words) in "".join(Reader(body).texts)
