"""Make the README's pictures, docs/report.png and docs/explorer.png, of the invented reports.

    python benchmarks/pictures.py

The page is the one that the workflow's code makes of the run in tests/explorer_reports.py. Needs
the extra `test` and an installed Chromium.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import browsing  # noqa: E402
from explorer_reports import CONFIG, make_run, page, page_parts  # noqa: E402

from radquant.reporting.collect import collect  # noqa: E402

PICTURES = {"report": "", "explorer": "#explorer?report=case-02"}


def main() -> None:
    program = browsing.find_program()
    if program is None:
        sys.exit(f"error: none of {', '.join(browsing.NAMES)} is on the PATH; install one")
    with tempfile.TemporaryDirectory() as folder, browsing.browser(program) as browser:
        run = collect(make_run(Path(folder) / "results"), CONFIG)
        file = Path(folder) / "report.html"
        file.write_text(page(*page_parts(run, Path(folder) / "figures")), encoding="utf-8")
        for name, fragment in PICTURES.items():
            tab = browser.new_page(viewport={"width": 1280, "height": 960})
            tab.goto(file.as_uri() + fragment)
            tab.screenshot(path=str(ROOT / "docs" / f"{name}.png"))


if __name__ == "__main__":
    main()
