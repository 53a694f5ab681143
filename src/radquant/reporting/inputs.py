"""What the models were given of each report: the instruction, solved examples, the columns that the
prompt uses, and the images.

Where `report: {images: true}` asks for it, images are embedded in report.html as the model was
shown them, but smaller and as JPEG. Nothing of a file's header comes along.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from radquant.files import read_table
from radquant.generation.examples import examples_of, rows_of
from radquant.image_files import COLUMN, image_files, image_names, read_image
from radquant.image_roots import image_folder
from radquant.instructions import Row, columns_of, read_template
from radquant.reporting.finished_run import Run
from radquant.reporting.reading import order, run_id
from radquant.settings.generation import Generation
from radquant.settings.run import ORIGINAL

SIDE = 1024  # pixels; what the encoders of today's models are shown is smaller
QUALITY = 85  # of JPEG
# Nothing here reads what is written in a picture, and a header that says that nothing is may err.
BURNED_IN = (
    "names, dates and numbers that are written into an X-ray itself are still in its copy; look at "
    "every image before passing the file on"
)
MOST = 100_000_000  # characters of all images together, beyond which a browser opens a page slowly


def read_inputs(run: Run) -> pd.DataFrame:
    """Return the columns that the prompt uses, and COLUMN if images are shown, in the run's order.

    One row a report; all values are texts.
    """
    names = columns_of(template_of(run))
    if run.config["task"].get("image_column"):
        names.append(COLUMN)
    needed = ["id", *names]
    table = read_table(run.folder / "data" / "eval.csv", require=needed, columns=needed)
    return table.set_index("id", drop=False).loc[run.reports["id"], names]


def template_of(run: Run) -> str:
    """Return the instruction with its {column} fields."""
    return read_template(run.config["generation"]["prompt"], None)


def read_examples(run: Run, inputs: pd.DataFrame) -> list[list[Row]]:
    """Return, for each report of the run, the training reports that stood before it as examples.

    They are chosen again as they were for writing; how many and which way is what writing recorded.
    inputs: what `read_inputs` returns.
    """
    record = run.shards[ORIGINAL][0]
    chosen = {name: record[name] for name in ("examples", "examples_by")}
    wanted = Generation.model_validate({**run.config["generation"], **chosen})
    if not wanted.examples:
        return [[] for _ in run.reports["id"]]
    template, target = template_of(run), run.config["task"]["target"]
    names = ["id", *columns_of(template)]
    train = read_table(run.folder / "data" / "train.csv", require=[*names, target])
    reports = inputs[columns_of(template)].assign(id=inputs.index)
    how = (template, target, wanted, run.config["seed"])
    return examples_of(rows_of(train), rows_of(reports), *how)


def pictured(config: Mapping[str, Any]) -> bool:
    """Whether report.html is to hold the images; configurations without the key do not ask."""
    return bool(config.get("report", {}).get("images"))


def text_columns(inputs: pd.DataFrame) -> list[str]:
    return [name for name in inputs.columns if name != COLUMN]


def image_numbers(inputs: pd.DataFrame) -> dict[str, int]:
    """Return {file as it is named: its number on the page}; none where models are shown none."""
    cells: list[str] = inputs[COLUMN].tolist() if COLUMN in inputs else []
    names = [name for cell in cells for name in image_names(cell)]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def images(run: Run, most: int = MOST) -> Iterator[tuple[int, str]]:
    """Yield (number, data URI) of the images, until they have `most` characters together.

    In the order of the readers, so that those reports have their images that are read first. Raises
    UserError for a file that is no longer there, or is no image.
    """
    inputs = read_inputs(run)
    numbers = image_numbers(inputs)
    if not numbers:
        return
    root = image_folder(run.config["corpus"]["image_root"], run.folder)
    seen: set[str] = set()
    ids = run.reports["id"].tolist()
    for place in order(run_id(run), ids):
        cell = inputs[COLUMN].iloc[place]
        row = {"id": ids[place], COLUMN: cell}
        files = image_files(row, COLUMN, root)
        for name, file in zip(image_names(cell), files, strict=True):
            if name in seen:
                continue
            seen.add(name)
            uri = data_uri(read_image(file))
            most -= len(uri)
            if most < 0:
                return
            yield numbers[name], uri


def data_uri(image: Any) -> str:
    """Return a PIL image of mode RGB as JPEG, in gray if it is; no side is over SIDE pixels."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    red, green, blue = image.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        image = red
    held = io.BytesIO()
    image.save(held, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}"


def numbers_of(cell: str, numbers: dict[str, int]) -> Sequence[int]:
    return [numbers[name] for name in image_names(cell)]
