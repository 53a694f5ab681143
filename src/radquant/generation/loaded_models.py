"""What the engines share that compute with a model loaded here."""

from collections.abc import Callable
from typing import Any

import torch
import transformers

from radquant import prompts
from radquant.checkpoints.loading import is_simulated, resolve_device, resolve_dtype
from radquant.generation import measures
from radquant.generation.engines.kind import Opened, Wanted
from radquant.generation.prefix import context_length, stored_ids
from radquant.generation.process_costs import peak_process_bytes
from radquant.generation.tasks import Computed, Done, Task, Work
from radquant.tokenizer_files import read_chat_template


def opened_here(wanted: Wanted, processor: Any = None, held: Any = None) -> Opened:
    """The model of `wanted.loaded`, once an engine has taken it."""
    loaded = wanted.loaded
    dtype = resolve_dtype(wanted.dtype, resolve_device(wanted.device))
    if wanted.chat_template:
        loaded.tokenizer.chat_template = read_chat_template(wanted.chat_template)
    vocabulary = loaded.model.config.get_text_config().vocab_size
    ends, stop = prompts.endings(
        loaded.tokenizer, loaded.model.generation_config, vocabulary, wanted.date
    )
    return Opened(
        wanted=wanted,
        dtype=str(dtype).removeprefix("torch."),
        tokenizer=loaded.tokenizer,
        processor=processor,
        end_ids=ends,
        context=context_length(loaded.model),
        stored=stored_ids(loaded),
        vocabulary=vocabulary,
        stop=stop,
        kernel=loaded.kernel,
        on_disk=loaded.on_disk,
        held=held,
    )


def measured(opened: Opened, task: Task, do: Callable[[], Work]) -> Done:
    """What `do` makes of the task with the loaded model, and what that takes."""
    device = resolve_device(opened.wanted.device)
    with measures.stopwatch(device) as spent:
        work = do()
    return Done(
        work=work,
        batches=len(task.batches),
        wall_seconds=spent.wall_seconds,
        cpu_seconds=spent.cpu_seconds,
        computed=computed(opened, device),
    )


def computed(opened: Opened, device: torch.device) -> Computed:
    loaded = opened.wanted.loaded
    return Computed(
        device=device.type,
        device_name=measures.device_name(device),
        dtype=opened.dtype,
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
        kernel=loaded.kernel,
        layers_quantized=loaded.layers_quantized,
        activation_layers=loaded.activation_layers,
        simulated=is_simulated(loaded),
        weight_bytes=loaded.weight_bytes,
        load_seconds=opened.load_seconds,
        peak_process_bytes=peak_process_bytes(),
        peak_device_bytes=measures.peak_device_bytes(device),
        value_layers=loaded.values,
    )
