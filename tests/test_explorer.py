"""report.html in a real browser: what it shows is what the payload says, and nothing else happens.

Needs Chromium; without one these tests are skipped, except where CI=true says that there must be.
"""

import json
import re
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median

import browsing
import numpy as np
import pytest
from browser_fixtures import HOSTILE, browser, hostile, invented, visit
from explorer_expected import expected
from explorer_reports import REPORTS, made_payload, page

from radquant.reporting.html import ASSETS
from radquant.scoring.changes import KINDS, harm

__all__ = ["browser", "hostile", "invented", "visit"]

# Milliseconds of the page's thread for 10,000 reports in six precisions, four times and more of
# what they take on one core of a server.
LOAD, ANSWER = 5000, 600
ALL = "&precision=w4a16&precision=w4a8&precision=w4a4"  # one of them is ruined


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """10,000 reports of 60 words in the original and five more precisions, most of them changed."""
    rng = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(400)] + ["effusion", "pneumothorax", "edema"] * 20
    texts, reports = [], []

    def add(words):
        text = " ".join(words)
        starts = list(accumulate((len(word) + 1 for word in words), initial=0))
        spans = [[starts[i], starts[i] + len(words[i]), "present"] for i in range(0, len(words), 5)]
        found = {word: "present" for word in words if not word.startswith("word")}
        texts.append({"text": text, "spans": spans, "findings": found})
        return len(texts) - 1

    kinds = list(KINDS)
    base = rng.choice(vocabulary, (10_000, 60))
    other = rng.choice(vocabulary, (10_000, 6, 60))
    outputs_of = np.where(rng.random((10_000, 6, 60)) < 0.2, other, base[:, None, :])
    for number, words in enumerate(base.tolist()):
        outputs = []
        for written in outputs_of[number].tolist():
            found = [kinds[i] for i in sorted(rng.choice(9, rng.integers(0, 3), replace=False))]
            changes = [
                {"kind": kind, "finding": "effusion", "before": " ".join(words[:8]), "after": ""}
                for kind in found
            ]
            flags = ["repetition"] if rng.random() < 0.03 else []
            outputs.append(
                {
                    **{"text": add(written), "f1": round(float(rng.random()), 6)},
                    **{"changes": changes, "flags": flags, "unsupported": []},
                    "harm": harm(changes, flags),
                }
            )
        outputs[0] |= {"changes": [], "flags": [], "harm": 0}
        reports.append({"id": f"r{number:05d}", "reference": add(words), "outputs": outputs})
    payload = made_payload(["original", *(f"p{i}" for i in range(1, 6))], reports, texts)
    file = tmp_path_factory.mktemp("large") / "report.html"
    file.write_text(page("# Title\n\n## Verdict\n\n**Words.**\n", {}, payload), encoding="utf-8")
    return file, payload


def test_the_report_opens_first_and_the_explorer_at_a_click(visit, invented):
    opened = visit(invented[0])
    assert opened.page.locator("#verdict").is_visible()
    assert opened.page.locator("#explorer").is_hidden()
    widths = opened.page.eval_on_selector_all("#report img", "all => all.map(x => x.naturalWidth)")
    assert len(widths) == 5
    assert min(widths) > 100  # the figures are drawn
    opened.page.get_by_role("link", name="Explorer").click()
    assert opened.page.locator("#explorer").is_visible()
    assert opened.page.locator("#report").is_hidden()
    assert opened.ids() == expected(invented[1])
    opened.page.get_by_role("link", name="Report").click()
    opened.page.get_by_role("link", name="Data").click()
    assert opened.page.locator("#data-title").is_visible()
    assert opened.page.evaluate("scrollY") > 500


def test_every_report_shows_what_the_payload_says(visit, invented):
    file, payload = invented
    opened = visit(file, f"#explorer?sort=order{ALL}")
    texts = [entry["text"] for entry in payload["texts"]]
    for report in payload["reports"]:
        assert opened.title() == report["id"]
        cards = opened.cards()
        assert list(cards) == ["reference", *payload["systems"]]
        assert cards["reference"] == texts[report["reference"]] == REPORTS[report["id"]][1]
        shown = opened.page.locator(".card")
        for at, (system, output) in enumerate(
            zip(payload["systems"], report["outputs"], strict=True)
        ):
            assert cards[system] == texts[output["text"]]
            card = shown.nth(at + 1)
            assert f"F1 {output['f1']:.3f}" in card.locator("header").text_content()
            assert card.locator(".flag").all_text_contents() == output["flags"]
            kinds = [change["kind"] for change in output["changes"]]
            assert card.locator(".kind").all_text_contents() == kinds
            for change in output["changes"]:
                for word in (change["finding"], change["before"], change["after"]):
                    assert word in card.locator(".changes").first.text_content()
            if at:
                assert f"harm {output['harm']}" in card.locator("header").text_content()
        opened.page.keyboard.press("j")


def test_entities_are_marked_by_their_status(visit, invented):
    file, payload = invented
    opened = visit(file, f"#explorer?report=case-02{ALL}")
    report = payload["reports"][1]
    for card, number in (
        (opened.page.locator(".card").nth(0), report["reference"]),
        (opened.page.locator(".card").nth(4), report["outputs"][3]["text"]),
    ):
        entry = payload["texts"][number]
        found = card.locator(".entity").evaluate_all(
            "all => all.map(x => [x.textContent, x.className, x.title])"
        )
        assert [[text, f"entity {status}", status] for text, status in words_of(entry)] == found
    # Each status has a line of its own, so that colours are not needed to tell them apart.
    lines = {
        status: opened.page.locator(f".legend .{status}").evaluate(
            "x => getComputedStyle(x).textDecorationStyle"
        )
        for status in ("present", "uncertain", "absent", "anatomy")
    }
    assert len(set(lines.values())) == 4


def test_the_skip_link_leads_to_what_is_shown(visit, invented):
    for fragment, target in (("", "content"), ("#explorer?report=case-03", "detail-title")):
        opened = visit(invented[0], fragment)
        opened.page.locator(".skip").focus()
        opened.page.keyboard.press("Enter")
        assert opened.page.evaluate("document.activeElement.id") == target
        assert opened.page.evaluate("location.hash") == fragment


def words_of(entry):
    return [(entry["text"][start:end], status) for start, end, status in entry["spans"]]


def test_differences_lead_from_the_original_to_the_output(visit, invented):
    """Without what was added, and with what was removed, the words are the original's."""
    file, payload = invented
    opened = visit(file, f"#explorer?sort=order{ALL}")
    changed = 0
    for report in payload["reports"]:
        original = payload["texts"][report["outputs"][0]["text"]]["text"]
        for at in range(1, len(payload["systems"])):
            text = opened.page.locator(".card").nth(at + 1).locator(".text")
            before = text.evaluate(
                """x => { const copy = x.cloneNode(true);
                          for (const added of copy.querySelectorAll("ins")) added.remove();
                          return copy.textContent; }"""
            )
            assert re.findall(r"\w+", before) == re.findall(r"\w+", original)
            changed += text.locator("ins, del").count()
        opened.page.keyboard.press("j")
    assert changed > 20
    case = visit(file, "#explorer?report=case-02").page.locator(".card").nth(3)
    assert case.locator("ins").all_text_contents() == ["2.1"]
    assert case.locator("del").all_text_contents() == ["1.2"]


FILTERS = [
    {"kind": ["lost"]},
    {"kind": ["lost", "side"]},
    {"flag": ["repetition"]},
    {"kind": ["lost"], "flag": ["empty"]},
    {"precision": ["w4a16"]},
    {"precision": ["w4a8"], "kind": ["severity"]},
    {"precision": ["w4a16", "w4a8"], "kind": ["measurement", "prior"]},
    {"precision": ["original"]},
    {"q": "PNEUMOTHORAX"},
    {"q": "case-1"},
    {"q": "from the prior study", "precision": ["w4a8"]},
    {"q": "nowhere to be found"},
    {"sort": "order"},
    {"sort": "order", "kind": ["invented"]},
    {"q": "air bronchograms"},  # of an input
    {"finding": "pleural effusion", "status": "present in the reference"},
    {"finding": "pneumothorax", "status": "absent in an output", "precision": ["w4a8"]},
    {"finding": "pneumonia", "status": "changed against the original's output", "kind": ["lost"]},
    {"finding": "pneumothorax", "status": "other than in the reference", "sort": "order"},
]


def test_filters_list_what_the_payload_says(visit, invented):
    file, payload = invented
    opened, again = visit(file), visit(file)
    total = len(payload["reports"])
    for chosen in FILTERS:
        opened.go("#explorer")
        opened.check(*chosen.get("precision", []), *chosen.get("kind", []), *chosen.get("flag", []))
        opened.page.select_option("#sort", chosen.get("sort", "harm"))
        if "finding" in chosen:
            opened.page.fill("#finding", f" {chosen['finding'].title()} ")
            opened.page.keyboard.press("Enter")
        if "status" in chosen:
            opened.page.select_option("#status", chosen["status"])
        if "q" in chosen:
            opened.page.fill("#search", chosen["q"])
            opened.page.keyboard.press("Enter")
        wanted = expected(payload, **chosen)
        assert opened.ids() == wanted, chosen
        many = f"{total} reports" if len(wanted) == total else f"{len(wanted)} of {total} reports"
        assert opened.page.text_content("#count") == many
        # The address alone leads to the same view, and clearing it to all reports.
        again.go(opened.page.evaluate("location.hash"))
        assert (again.ids(), again.title()) == (wanted, opened.title()), chosen
        if set(chosen) - {"sort"}:
            again.page.get_by_role("button", name="Clear filters").click()
            assert again.ids() == expected(payload, sort=chosen.get("sort", "harm"))


def test_a_search_starts_by_itself(visit, invented):
    opened = visit(invented[0], "#explorer")
    opened.page.locator("#search").press_sequentially("granuloma")
    opened.listed(1)
    assert opened.ids() == ["case-11"]


def test_counts_beside_the_filters(visit, invented):
    file, payload = invented
    opened = visit(file, "#explorer?precision=w4a8")
    for kind, _ in payload["kinds"]:
        many = len(expected(payload, precision=["w4a8"], kind=[kind]))
        chip = opened.page.locator(f"#kinds input[value='{kind}'] + span b")
        assert chip.text_content() == str(many)


def test_keys(visit, invented):
    file, payload = invented
    ids = expected(payload)
    opened = visit(file, "#explorer")
    press = opened.page.keyboard.press
    at = 0
    for key, step in [("j", 1), ("ArrowRight", 1), ("k", -1), ("ArrowLeft", -1), ("k", 0)]:
        press(key)
        at += step
        assert opened.title() == ids[at]
        assert opened.page.locator("#list [aria-current] bdi").text_content() == ids[at]
    press("j")
    assert opened.page.text_content("#announcement") == f"Report {ids[1]}, 2 of {len(ids)}"
    press("/")
    opened.page.keyboard.type("j/k")  # letters, not commands
    assert opened.page.input_value("#search") == "j/k"
    opened.listed(0)
    opened.page.fill("#search", "")
    opened.listed(len(ids))
    press("Escape")
    press("j")
    assert opened.title() == ids[1]
    opened.page.locator("#list a").nth(3).focus()
    press("Enter")
    assert opened.title() == ids[3]
    press("ArrowDown")
    assert opened.title() == ids[4]
    assert opened.page.evaluate("document.activeElement.textContent").startswith(ids[4])
    opened.page.get_by_label("single-key shortcuts").uncheck()
    press("j")
    assert opened.title() == ids[4]


def test_tab_leads_to_every_control_and_focus_is_seen(visit, invented):
    opened = visit(invented[0])
    for _ in range(3):
        opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#explorer").is_visible()
    seen = []
    for _ in range(80):
        opened.page.keyboard.press("Tab")
        found = opened.page.evaluate(
            """() => { const x = document.activeElement, shown = x.closest(".chip")?.lastChild ?? x;
                       return [x.id || x.value || x.textContent.trim(),
                               getComputedStyle(shown).outlineStyle]; }"""
        )
        seen.append(found[0])
        if found[0] == "use-keys":
            break
        assert found[1] != "none", found
    wanted = ["search", "sort", "lost", "cut off", "finding", "status", "pleural effusion"]
    wanted += ["all-findings", "What orders the reports: harm and its weights", "export", "after"]
    wanted += ["The instruction", "2 solved examples before this report", "show-entities"]
    assert [name for name in seen if name in wanted] == wanted


def test_hostile_text_is_shown_as_it_stands(visit, hostile):
    opened = visit(hostile[0], "#explorer?sort=order")
    for name, text in HOSTILE.items():
        opened.page.locator("#list a").nth(list(HOSTILE).index(name)).click()
        assert opened.title() == name
        cards = {"reference": text, "original": "No effusion.", "</script><b>w4": text}
        assert opened.cards() == cards
        change = opened.page.locator(".card").nth(2).locator(".changes bdi").first
        assert change.text_content() == text[:200]
        assert opened.page.locator("script").count() == 2
        assert opened.page.locator(".cards img, .cards b, .cards script").count() == 0
        assert fits(opened.page), name
    opened.go("#reading").page.fill("#reader", HOSTILE["quotes"] + HOSTILE["image"])
    opened.page.click("#begin button")
    seen = set()
    for _ in range(2 * len(HOSTILE)):
        seen.add(tuple(opened.page.evaluate(browsing.SEEN)))
        opened.page.keyboard.press("ArrowRight")
    assert seen == {(n, text) for n, own in HOSTILE.items() for text in (own, "No effusion.")}
    assert opened.page.locator("#desk :is(img, b, script)").count() == 0
    assert fits(opened.page)


def test_text_from_right_to_left_does_not_turn_its_neighbours(visit, hostile):
    opened = visit(hostile[0], "#explorer?report=right+to+left")
    directions = opened.page.eval_on_selector_all(
        ".card .text", "all => all.map(x => x.matches(':dir(rtl)'))"
    )
    assert directions == [True, False, True]
    assert opened.page.locator(".card").nth(2).evaluate("x => x.matches(':dir(ltr)')")


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [320, 400, 768, 1920])
def test_nothing_is_wider_than_the_page(visit, invented, width):
    opened = visit(invented[0], viewport={"width": width, "height": 800})
    assert fits(opened.page)
    opened.go("#explorer")
    title, head = (opened.page.locator(x).bounding_box() for x in ("#explorer-title", ".top"))
    assert title["y"] >= head["y"] + head["height"]  # the header, which stays, covers nothing
    opened.go("#explorer?report=case-04")
    assert fits(opened.page)
    unfold = "for (const x of document.querySelectorAll('#explorer details')) x.open = true"
    opened.page.evaluate(unfold)
    assert fits(opened.page)
    reader = opened.go("#reading").page
    assert fits(reader)
    reader.fill("#reader", "A")
    reader.click("#begin button")
    assert fits(reader)
    opened.go("#explorer?report=case-04")
    edges = opened.page.eval_on_selector_all(
        ".card", "all => new Set(all.map(x => Math.round(x.getBoundingClientRect().left))).size"
    )
    assert edges == 1 if width <= 400 else edges > 1


def test_print(visit, invented):
    opened = visit(invented[0], "#explorer?report=case-02")
    opened.page.emulate_media(media="print")
    for shown in ("#detail-title", ".card >> nth=0", "#legend"):
        assert opened.page.locator(shown).is_visible()
    for hidden in (".top", ".bar", ".side", "#after", "#report"):
        assert opened.page.locator(hidden).is_hidden()
    one = opened.page.pdf(format="A4")
    opened.go()
    all_of_it = opened.page.pdf(format="A4")
    assert one.startswith(b"%PDF")
    pages = [len(re.findall(rb"/Type\s*/Page\b", pdf)) for pdf in (one, all_of_it)]
    assert pages[0] == 1
    assert pages[1] > 3
    titles = "all => all.map(x => x.querySelector('summary').textContent)"
    folded, unfolded = "#report details:not([open])", "#report details[open]"
    assert opened.page.eval_on_selector_all(unfolded, titles) == []
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    shown = opened.page.eval_on_selector_all(unfolded, titles)
    assert shown
    assert all(title.startswith("More columns: ") for title in shown)
    assert [
        title.partition(" ")[0] for title in opened.page.eval_on_selector_all(folded, titles)
    ] == [
        *("Self-checks:", "sha256", "Configuration,"),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, invented, scheme):
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
    opened = visit(invented[0], color_scheme=scheme)
    views = [("", 400), ("#explorer?report=case-04", 1280), ("#reading", 1280)]
    views += [("#explorer?q=effusion&finding=edema&precision=w4a4", 400), ("#reading", 400)]
    views += [("#explorer?report=nobody&finding=nothing", 768)]
    for fragment, width in views if scheme == "light" else views[1:]:
        opened.page.set_viewport_size({"width": width, "height": 800})
        opened.go(fragment).page.evaluate(axe + "; undefined")
        unfold = "for (const x of document.querySelectorAll('#explorer details')) x.open = true"
        opened.page.evaluate(unfold)
        if fragment == "#reading":
            opened.page.fill("#reader", "A")
            opened.page.click("#begin button")
            opened.page.keyboard.press("2")
        result = opened.page.evaluate("axe.run({resultTypes: ['violations']})")
        assert len(result["passes"]) > 20
        found = [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in result["violations"]]
        assert found == []


def test_headings_go_down_one_level_at_a_time(visit, invented):
    for fragment in ("", "#explorer", "#reading"):
        opened = visit(invented[0], fragment)
        levels = opened.page.eval_on_selector_all(
            "h1, h2, h3, h4",
            "all => all.filter(x => x.checkVisibility()).map(x => Number(x.tagName[1]))",
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))


PAIRS = [
    *[(ink, paper) for ink in ("ink", "muted", "accent") for paper in ("page", "paper", "panel")],
    *[(s, p) for s in ("present", "uncertain", "absent", "anatomy") for p in ("paper", "panel")],
    *[(s, "hit") for s in ("ink", "present", "uncertain", "absent", "anatomy")],
    *[(s, "added") for s in ("ink", "present", "uncertain", "absent", "anatomy")],
    *[("removed-ink", "removed"), ("on-accent", "accent"), ("ink", "accent-soft")],
    *[("warn", "paper"), ("warn", "panel"), ("warn", "warn-soft")],
    *[("good", "paper"), ("caution", "paper")],
]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_contrast_of_the_colours(scheme):
    style = (ASSETS / "explorer.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    place = {"light": 0, "dark": 1, "print": 2}[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", blocks[0]))
    colours |= dict(re.findall(r"--([\w-]+): (#\w+);", blocks[place]))
    for ink, paper in PAIRS:
        assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    for line in ("control", "added-edge", "hit-edge"):  # what bounds a control or a mark
        assert contrast(colours[line], colours["paper"]) >= 3, line


def contrast(one, other):
    """WCAG's ratio of the relative luminances."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(c + c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


# Do something in the page and wait until it is painted.
DO = """async ([what, value]) => {
    const find = (x) => document.querySelector(x);
    const actions = {
        check: () => find(value).click(),
        sort: () => { find("#sort").value = value;
                      find("#sort").dispatchEvent(new Event("change", {bubbles: true})); },
        find: () => { find("#finding").value = value;
                      find("#finding").dispatchEvent(
                          new KeyboardEvent("keydown", {key: "Enter", bubbles: true})); },
        search: () => { find("#search").value = value; find("#filters").requestSubmit(); },
        press: () => document.body.dispatchEvent(
            new KeyboardEvent("keydown", {key: value, bubbles: true})),
    };
    actions[what]();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
}"""


class Clock:
    """Milliseconds that the page's thread was at work: others may be busy on the machine."""

    def __init__(self, opened):
        self.session = opened.context.new_cdp_session(opened.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def time(self, action):
        before = self.read()
        action()
        return self.read() - before

    def read(self):
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(m["value"] for m in metrics if m["name"] == "TaskDuration")


def test_ten_thousand_reports_stay_responsive(visit, large, record_property):
    file, payload = large
    opened = visit(file, "#explorer")
    clock = Clock(opened)
    times = {"load": clock.time(opened.page.reload)}

    def timed(what, value):
        return clock.time(lambda: opened.page.evaluate(DO, [what, value]))

    assert opened.ids() == expected(payload)[:50]
    times["filter by kind"] = timed("check", "#kinds input[value=negated]")
    assert opened.ids() == expected(payload, kind=["negated"])[:50]
    times["filter by precision"] = timed("check", "#precisions input[value=p3]")
    wanted = expected(payload, kind=["negated"], precision=["p3"])
    assert opened.ids() == wanted[:50]
    assert opened.page.text_content("#count") == f"{len(wanted):,} of 10,000 reports"
    times["sort"] = timed("sort", "order")
    wanted = expected(payload, kind=["negated"], precision=["p3"], sort="order")
    assert opened.ids() == wanted[:50]
    opened.page.get_by_role("button", name="Clear filters").click()
    times["filter by finding"] = timed("find", "edema")
    assert opened.ids() == expected(payload, finding="edema", sort="order")[:50]
    opened.page.get_by_role("button", name="Clear filters").click()
    times["search"] = timed("search", "word17 ")
    assert opened.ids() == expected(payload, q="word17 ", sort="order")[:50]
    times["second search"] = timed("search", "word171 ")
    timed("search", "")
    times["next report"] = median([timed("press", "j") for _ in range(9)])
    assert opened.title() == "r00009"
    opened.page.locator("#list a").last.click()
    timed("press", "j")
    assert opened.title() == "r00050"
    assert opened.ids()[0] == "r00050"  # the second page of the list
    opened.page.get_by_role("button", name="Next page").click()
    assert opened.title() == "r00100"
    print(json.dumps({name: round(value) for name, value in times.items()}))
    for name, value in times.items():
        record_property(name, round(value))
        assert 1 < value < (LOAD if name == "load" else ANSWER), times
