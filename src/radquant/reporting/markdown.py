"""report.md, written from the summary; only the texts of the examples come from elsewhere."""

from collections.abc import Mapping
from typing import Any

from radquant.reporting.changes_section import changes_section, examples_section
from radquant.reporting.cost_section import cost_section
from radquant.reporting.differences_section import differences_section
from radquant.reporting.figures import Drawn, figures
from radquant.reporting.formatting import (
    escape,
    prose,
)
from radquant.reporting.method_sections import (
    data_section,
    quantization_section,
    reproduction_section,
)
from radquant.reporting.quality_section import quality_section
from radquant.reporting.readers_section import readers_section
from radquant.reporting.subgroups import subgroups_section
from radquant.reporting.verdict_section import verdict_section

Summary = Mapping[str, Any]


def render(summary: Summary, texts: Mapping[tuple[str, str], str], figures_path: str) -> str:
    """Return report.md.

    `texts` holds (system, id) → text for every example, system 'reference' among them;
    `figures_path` is the figures' directory as seen from report.md.
    """
    parts = [
        _head(summary, figures_path),
        quality_section(summary),
        cost_section(summary),
        differences_section(summary),
        subgroups_section(summary),
        readers_section(summary.get("readers")),
        _figures(summary, figures_path),
        changes_section(summary),
        examples_section(summary, texts),
        data_section(summary),
        quantization_section(summary),
        reproduction_section(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(summary: Summary, path: str) -> str:
    config, quality = summary["config"], summary["quality"]
    task = config["task"]
    sources = [*task["inputs"], *(["images"] if task.get("image_column") else [])]
    title = f"# What quantizing {escape(config['model']['name'])} costs and saves"
    about = prose(
        f"{escape(config['model']['name'])} wrote the {task['target']} from the "
        f"{' and '.join(sources)} of {quality['reports']} reports of the corpus "
        f"{escape(config['corpus']['name'])}, once in each precision and greedily.",
        *(
            [f"The references' likelihood is over {quality['references']} reports."]
            if quality["references"] != quality["reports"]
            else []
        ),
        "report.html holds the same and an explorer of every report; it holds report text: share "
        "it as you would the reports.",
    )
    drawn = figures(summary)
    figure = _figure("loss", drawn["loss"], path) if "loss" in drawn else ""
    return "\n\n".join([title, about, verdict_section(summary, figure)])


def _figures(summary: Summary, path: str) -> str:
    """All figures but the one of the verdict."""
    found = figures(summary).items()
    shown = [_figure(name, drawn, path) for name, drawn in found if name != "loss"]
    return "\n\n".join(["## Figures", *shown])


def _figure(name: str, drawn: Drawn, path: str) -> str:
    """A figure with its caption, which is a paragraph of its own, all of it emphasised."""
    return f"![{drawn.description}]({path}/{name}.svg)\n\n{prose(f'*{drawn.caption}*')}"
