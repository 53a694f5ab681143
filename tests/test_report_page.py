"""The report's view of report.html in a browser: its facts, tables and figures.

Needs Chromium; without one these tests are skipped, except where CI=true says that there must be.
"""

import re
from pathlib import Path

import pytest
from browser_fixtures import browser, invented, visit

assert {browser, invented, visit}  # used as fixtures

WIDTHS = [400, 768, 1400]
# Of each head of the page: its name, its explanation, and whether it can be reached.
HEADS = """() => [...document.querySelectorAll("#report thead th")].map((head) => {
    const button = head.querySelector("button");
    const about = document.getElementById(button.getAttribute("aria-describedby"));
    return [button.textContent, about?.textContent ?? "", button.tabIndex];
})"""
COLUMN = """([label, at]) => [...document.querySelector(`[aria-label="${label}"] tbody`).rows]
    .map((row) => row.cells[at].textContent)"""


def head(page, label, name):
    return page.get_by_role("region", name=label, exact=True).get_by_role(
        "button", name=name, exact=True
    )


def test_heads_say_what_they_mean_on_hover_and_by_keyboard(visit, invented):
    page = visit(invented[0]).page
    found = page.evaluate(HEADS)
    assert len(found) > 70
    assert all(name and about and order == 0 for name, about, order in found)
    button, tip = head(page, "Verdict, table 1", "perplexity, ratio"), page.locator("#tip")
    assert tip.is_hidden()
    button.hover()
    assert tip.is_visible()
    assert tip.text_content().startswith("Perplexity divided by the original's.")
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    page.locator("[aria-label='Verdict, table 1']").focus()
    for _ in range(6):
        page.keyboard.press("Tab")
    assert tip.text_content().startswith("Perplexity divided by the original's.")
    assert tip.is_visible()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


@pytest.mark.parametrize("width", WIDTHS)
def test_an_explanation_stays_inside_the_window_and_is_not_cut(visit, invented, width):
    page = visit(invented[0], viewport={"width": width, "height": 700}).page
    for button in page.locator("#report thead button:visible").all()[::5]:
        button.focus()
        box = page.locator("#tip").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 700


def test_tables_are_sorted_by_keyboard_and_come_back(visit, invented):
    page = visit(invented[0]).page
    label = "Size, memory and speed, table 1"
    before = page.evaluate(COLUMN, [label, 1])
    button = head(page, label, "weights in memory")
    order = {"ascending": False, "descending": True}

    def megabytes(text):
        number, unit = text.split()
        return float(number) * {"kB": 1e-3, "MB": 1, "GB": 1e3}[unit]

    for state, backwards in order.items():
        button.press("Enter")
        assert button.locator("..").get_attribute("aria-sort") == state
        assert page.evaluate(COLUMN, [label, 1]) == sorted(before, key=megabytes, reverse=backwards)
    assert page.locator("[aria-sort]").count() == 1
    button.press("Space")
    assert page.locator("[aria-sort]").count() == 0
    assert page.evaluate(COLUMN, [label, 1]) == before


def test_signs_shares_and_dashes_are_sorted_as_numbers(visit, invented):
    page = visit(invented[0]).page
    label = "Verdict, table 1"
    head(page, label, "difference in F1 points").click()
    found = [float(x.replace("\u2212", "-")) for x in page.evaluate(COLUMN, [label, 2])]
    assert found == sorted(found)
    assert found[0] < 0
    label = "What changed in the reports, table 1"
    head(page, label, "w4a4").click()
    cells = page.evaluate(COLUMN, [label, 4])
    shares = [float(x) for cell in cells for x in re.findall(r": (\d+) %", cell)]
    assert len(shares) > 10
    plain = [cell for cell in cells if "%" not in cell]
    numbers = [float(x) for x in plain]  # of prompts cut, and words
    keys = [
        float(re.search(r": (\d+) %", cell)[1]) if "%" in cell else float(cell) for cell in cells
    ]
    assert keys == sorted(keys)
    assert len(keys) == len(shares) + len(numbers)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_wide_table_keeps_its_first_column_and_casts_a_shadow(visit, invented, width):
    page = visit(invented[0], viewport={"width": width, "height": 800}).page
    wide = page.evaluate(
        """async () => {
            const frame = () => new Promise((d) => requestAnimationFrame(() => setTimeout(d)));
            await frame();
            const found = [];
            for (const box of document.querySelectorAll("#report .scroll")) {
                if (!box.checkVisibility() || box.scrollWidth <= box.clientWidth + 1) {
                    if (box.matches(".more-before, .more-after")) found.push("shadow for nothing");
                    continue;
                }
                const first = box.querySelector("tbody tr").cells[0];
                const has = (side) => box.classList.contains(side);
                const state = () => [has("more-before"), has("more-after")].join();
                const x = (element) => element.getBoundingClientRect().left;
                const left = () => x(first) - x(box);
                const before = [state(), left()];
                box.scrollLeft = box.scrollWidth;
                await frame();
                found.push([before[0], state(), Math.abs(left() - before[1]) < 2].join(" "));
            }
            return found;
        }"""
    )
    assert set(wide) <= {"false,true true,false true"}
    if width == 400:
        assert len(wide) > 10


def test_the_keyboard_reaches_every_control_of_the_report(visit, invented):
    page = visit(invented[0]).page
    names = """() => [...document.querySelectorAll("#report :is(a, button, summary, [tabindex])")]
        .filter((x) => x.checkVisibility()).length"""
    wanted = page.evaluate(names)
    page.locator("#report a").first.focus()
    seen = 1
    while seen <= wanted:
        page.keyboard.press("Tab")
        state = page.evaluate(
            """() => { const x = document.activeElement;
                return [Boolean(x.closest("#report")), getComputedStyle(x).outlineStyle]; }"""
        )
        if not state[0]:
            break
        assert state[1] != "none"
        seen += 1
    assert seen == wanted


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_in_the_report(visit, invented, width, scheme):
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
    page = visit(invented[0], color_scheme=scheme, viewport={"width": width, "height": 800}).page
    page.evaluate(axe + "; undefined")
    page.evaluate("for (const x of document.querySelectorAll('details')) x.open = true")
    page.locator("#report thead button").first.press("Enter")
    result = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert len(result["passes"]) > 20
    found = [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in result["violations"]]
    assert found == []


def test_without_javascript_all_of_the_report_is_there(visit, invented):
    page = visit(invented[0], java_script_enabled=False).page
    assert page.locator(".fact").count() == 5
    assert page.locator("#report thead th:visible").count() > 50
    assert page.locator("#report thead button").count() == 0
    page.get_by_text("More columns").first.click()
    assert page.locator("details.columns table").first.is_visible()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_texts_of_an_example_use_the_width_of_the_page(visit, invented, width):
    """On a narrow page each stands under its label, else beside it, and none breaks early."""
    page = visit(invented[0], viewport={"width": width, "height": 800}).page
    boxes = page.eval_on_selector_all(
        ".labelled:first-of-type > *",
        "all => all.map(x => [x.tagName, x.getBoundingClientRect().toJSON()])",
    )
    assert [tag for tag, _ in boxes[:2]] == ["DT", "DD"]
    label, text = (box for _, box in boxes[:2])
    if width == 400:
        assert (text["left"], text["top"]) == (label["left"], label["bottom"])
        assert text["width"] > 0.8 * width
    else:
        assert text["left"] > label["right"]
        assert text["top"] == pytest.approx(label["top"], abs=1)


def test_a_narrow_page_s_header_keeps_clear_of_the_edge(visit, invented):
    page = visit(invented[0], viewport={"width": 400, "height": 800}).page
    header, brand = (page.locator(each).bounding_box() for each in (".top", ".brand"))
    assert brand["y"] - header["y"] >= 6


def test_a_line_of_the_explorer_s_list_ends_between_two_kinds(visit, invented):
    """Never between a kind and its number, or inside of a kind, whatever width there is."""
    page = visit(invented[0], "#explorer", viewport={"width": 400, "height": 800}).page
    broken = """(width) => {
        document.querySelector("#list").style.width = `${width}px`;
        return [...document.querySelectorAll("#list .what")].flatMap((each) => {
            const text = each.firstChild;
            return [...text.data.matchAll(/[a-z ]+\\s\\d+/g)].filter((kind) => {
                const range = document.createRange();
                range.setStart(text, kind.index + kind[0].search(/[a-z]/));
                range.setEnd(text, kind.index + kind[0].length);
                return range.getClientRects().length !== 1;
            }).map((kind) => kind[0]);
        });
    }"""
    kinds = " ".join(page.locator("#list .what").all_text_contents())
    assert len(re.findall(r"\d+", kinds)) >= 12
    assert [page.evaluate(broken, width) for width in range(130, 270, 5)] == [[]] * 28
