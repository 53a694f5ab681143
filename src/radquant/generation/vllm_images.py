"""Images for vLLM: the features of each, handed to it in the place of what it would make of pixels.

So vLLM reads the vectors that the other engines read, at the same places of the same tokens. No
image processor of its own is asked, and the part of the model that sees does not run. What it is
given (`mm_input` of vllm/inputs/engine.py, vLLM 0.32) is what its processors make of prompts
otherwise. Of a grid of image tokens (Qwen's) vLLM's model makes the positions, as transformers'.

`write_images` runs here, the rest in vLLM's environment.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from radquant.errors import UserError
from radquant.prompts import Prompt

if TYPE_CHECKING:
    from radquant.vision.features import Features

# The name of what the language model reads of an image, [tokens, hidden]. Beside it lie the model's
# other inputs of an image, [1, ...] each, under their own names.
FEATURES = "features"


def write_images(
    prompts: Sequence[Prompt], features: "Features", token: int, folder: Path
) -> list[list[dict[str, Any]]]:
    """Write the features of each image to a file in `folder`; the images of each prompt, in order.

    token: what an image's tokens are. Of an image: `image`, the sha256 of its file, which names
    that of its features. `places` are the prompt's tokens in whose place they stand, ascending.

    Raises UserError as `Features.of` does, and if a prompt's tokens are not as many as its images'.
    """
    from safetensors.torch import save_file

    folder.mkdir()
    counts: dict[str, int] = {}
    found = []
    for prompt in prompts:
        for file in prompt.images:
            if file.sha256 not in counts:
                image = features.of(file)
                tensors = {FEATURES: image.embeddings, **image.inputs}
                whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
                save_file(whole, folder / f"{file.sha256}.safetensors")
                counts[file.sha256] = int(image.embeddings.shape[0])
        shown = [file.sha256 for file in prompt.images]
        found.append(placed(prompt, [(image, counts[image]) for image in shown], token))
    return found


def placed(prompt: Prompt, images: Sequence[tuple[str, int]], token: int) -> list[dict[str, Any]]:
    """The places of each image, given by the sha256 of its file and its number of tokens."""
    free = [place for place, each in enumerate(prompt.ids) if each == token]
    if len(free) != sum(tokens for _, tokens in images):
        raise UserError(
            f"report {prompt.id}: its prompt has {len(free)} tokens for images, whose features are "
            f"those of {sum(tokens for _, tokens in images)}; encode the images again with this "
            "model's own processor (scripts/encode_images.py)"
        )
    found = []
    for image, tokens in images:
        places, free = free[:tokens], free[tokens:]
        found.append({"image": image, "places": places})
    return found


def most_tokens(job: Mapping[str, Any]) -> int:
    """How many tokens the largest image of a job has."""
    return max(len(each["places"]) for images in job["images"] for each in images)


def check_torchvision() -> None:
    """Raise UserError unless torchvision loads, which vLLM's models with images import.

    An environment has none where the one that vLLM brings along does not fit its PyTorch.
    """
    try:
        import torchvision  # type: ignore[import-not-found]  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(
            "vLLM's models with images need torchvision, and none loads in its environment "
            f"({type(error).__name__}); install the one built for its PyTorch, or use engine auto"
        ) from None


def without_processor(tokens: int) -> None:
    """Tell vLLM how many tokens an image has at most, or it would try a processor of its own."""
    from vllm.multimodal import MULTIMODAL_REGISTRY  # type: ignore[import-not-found]
    from vllm.multimodal.processing import (  # type: ignore[import-not-found]
        BaseProcessingInfo,
        InputProcessingContext,
    )

    class Images(BaseProcessingInfo):  # type: ignore[misc]
        def get_supported_mm_limits(self) -> dict[str, None]:
            return {"image": None}

        def get_mm_max_tokens_per_item(self, *_: Any, **__: Any) -> dict[str, int]:
            return {"image": tokens}

    def information(config: Any, tokenizer: Any = None) -> Any:
        return Images(InputProcessingContext(config, tokenizer))

    def processor(config: Any, *, tokenizer: Any = None) -> Any:
        nothing = SimpleNamespace(info=information(config, tokenizer))
        nothing.get_dummy_mm_inputs = lambda *_, **__: None  # at its start vLLM tries it
        return nothing

    MULTIMODAL_REGISTRY.get_processing_info = information
    MULTIMODAL_REGISTRY.create_processor = processor


def hand_out(model: Any) -> None:
    """Let vLLM's model take features where it would make them of pixels."""
    # One tensor [images, tokens, hidden], or a list of them where their sizes differ.
    model.embed_multimodal = lambda features, **_: list(features)


def read_images(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `write_images` wrote of all images of a job, by the sha256 of the image's file."""
    from safetensors.torch import load_file

    shown = {each["image"] for images in job["images"] for each in images}
    folder = Path(job["features"])
    return {name: load_file(folder / f"{name}.safetensors") for name in shown}


def prompt_with(
    ids: Sequence[int], images: Sequence[Mapping[str, Any]], held: Mapping[str, Any]
) -> Any:
    """What vLLM's engine reads of a prompt of tokens. held: as from `read_images`."""
    from vllm.inputs.engine import mm_input, tokens_input  # type: ignore[import-not-found]
    from vllm.multimodal.inputs import (  # type: ignore[import-not-found]
        MultiModalBatchedField,
        MultiModalFieldElem,
        MultiModalKwargsItem,
        MultiModalKwargsItems,
    )

    if not images:
        return tokens_input(list(ids))
    names = [each["image"] for each in images]
    items = [
        MultiModalKwargsItem(
            {
                key: MultiModalFieldElem(
                    data=value if key == FEATURES else value[0], field=MultiModalBatchedField()
                )
                for key, value in held[name].items()
            }
        )
        for name in names
    ]
    return mm_input(
        list(ids),
        MultiModalKwargsItems({"image": items}),
        {"image": names},
        {"image": [span(each["places"]) for each in images]},
    )


def span(places: Sequence[int]) -> Any:
    """vLLM's range of tokens from the first of an image to its last, and which are the image's."""
    import torch
    from vllm.multimodal.inputs import PlaceholderRange

    start, length = places[0], places[-1] - places[0] + 1
    if length == len(places):
        return PlaceholderRange(offset=start, length=length)
    own = torch.zeros(length, dtype=torch.bool)
    own[torch.tensor(places) - start] = True
    return PlaceholderRange(offset=start, length=length, is_embed=own)


def answers_of(llm: Any, prompts: Sequence[Any], told: Any) -> list[Any]:
    """vLLM's answers to prompts from `prompt_with`, in their order, as `LLM.generate` has them.

    Its `generate` would have its own processors make such prompts first.
    """
    from vllm.sampling_params import RequestOutputKind  # type: ignore[import-not-found]

    told.output_kind = RequestOutputKind.FINAL_ONLY
    for number, prompt in enumerate(prompts):
        llm.llm_engine.add_request(str(number), prompt, told)
    found: list[Any] = llm.wait_for_completion(use_tqdm=False)
    return found
