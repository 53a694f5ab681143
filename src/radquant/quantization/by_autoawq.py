"""AutoAWQ as the quantizer; runs in the environment of envs/autoawq.txt."""

from typing import Any

from radquant.errors import UserError
from radquant.failures import loading
from radquant.finite import relative_change
from radquant.quantization import other_packages
from radquant.quantization.job import Job
from radquant.quantization.original_model import Original
from radquant.settings.recipe import Recipe

# AutoAWQ searches the clipping of 64 output channels at a time, of all layers but these.
CLIPPED_TOGETHER = 64
NOT_CLIPPED = ("q_", "k_", "query", "key", "Wqkv")
# Largest relative change of a layer's output through folding, by the dtype it is computed in.
BOUNDS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


def quantize(job: Job, recipe: Recipe) -> None:
    """Let AutoAWQ quantize the model of `job`, and write the checkpoint like one of ours.

    Raises UserError if AutoAWQ cannot do the recipe or the model.
    """
    original, device = other_packages.prepare("autoawq", recipe, job)
    check_outputs(original)
    sequences = other_packages.read_sequences(job.calibration, original.config, "AutoAWQ")
    calibration = other_packages.calibration_record(job, sequences)
    blocks = cut(sequences)
    dtype = other_packages.computing_dtype(original, device)
    model = run_autoawq(job, recipe, blocks, dtype)
    tensors: dict[str, Any] = {}
    seen = set()
    for name, tensor in model.model.state_dict().items():
        if tensor.data_ptr() not in seen:  # a tied head is the embedding under another name
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.cpu()
    record = {
        "tool": other_packages.tool_record("autoawq"),
        "calibration": calibration | {"blocks": len(blocks), "block_tokens": len(blocks[0])},
        "checks": {"largest_change_by_folding": model.quantizer.largest_change},
        "device": device,
    }
    quantization = model.quant_config.to_transformers_dict()
    other_packages.write_result(original, job, tensors, quantization, recipe, record)


def check_outputs(original: Original) -> None:
    """Raise UserError if AutoAWQ would fail on a layer's number of output channels."""
    prefix = original.architecture.decoder_layers
    for name, weight in original.model.named_parameters():
        linear = name.removeprefix(f"{prefix}.0.")
        if linear == name or weight.ndim != 2 or any(part in linear for part in NOT_CLIPPED):
            continue
        if weight.shape[0] % CLIPPED_TOGETHER:
            raise UserError(
                f"AutoAWQ cannot quantize {name.removesuffix('.weight')}, whose {weight.shape[0]} "
                f"outputs are no multiple of {CLIPPED_TOGETHER}; use another tool"
            )


def cut(sequences: list[list[int]]) -> list[list[int]]:
    """Join all samples and cut them into blocks as long as the longest sample.

    AutoAWQ runs all samples as one tensor, so that they must be of one length, and does the same.
    But it drops what does not fill a block. Here the beginning of the first sample fills the last
    block, so every token is used. Samples of one length stay what they are.
    """
    length = max(map(len, sequences))
    stream = [token for ids in sequences for token in ids]
    stream += stream[: -len(stream) % length]
    return [stream[start : start + length] for start in range(0, len(stream), length)]


def of_first(value: Any, count: int) -> Any:
    """The part of a layer's argument that belongs to the first of `count` samples."""
    if isinstance(value, tuple):
        return tuple(of_first(each, count) for each in value)
    batched = getattr(value, "ndim", 0) > 1 and value.shape[0] == count
    return value[:1] if batched else value


def corrected_quantizer(blocks: list[list[int]]) -> Any:
    """AutoAWQ's quantizer without its fault on a CPU, and with two checks of this program's.

    Its search for a scale keeps the original weights with `.cpu()`, to return to them. On a CPU
    that copies nothing, so its first trial multiplies the originals themselves. What is quantized
    afterwards is another model.
    """
    from awq.quantize.quantizer import AwqQuantizer

    class Quantizer(AwqQuantizer):  # type: ignore[misc]
        largest_change = 0.0

        def init_quant(self, *args: Any, **options: Any) -> Any:
            modules, arguments, hidden = super().init_quant(*args, **options)
            if tuple(hidden.shape[:2]) != (len(blocks), len(blocks[0])):
                raise UserError(
                    f"AutoAWQ took {hidden.shape[0]} blocks of {hidden.shape[1]} calibration "
                    f"tokens, not the {len(blocks)} of {len(blocks[0])} asked for; this is another "
                    "release than envs/autoawq.txt names"
                )
            return modules, arguments, hidden

        def _compute_best_scale(
            self, x: Any, w_mean: Any, x_mean: Any, inspected: Any, *rest: Any
        ) -> Any:
            def copy(module: Any, state: dict[str, Any], *_: Any) -> None:
                state.update({name: tensor.clone() for name, tensor in state.items()})

            handle = inspected.register_state_dict_post_hook(copy)
            try:
                return super()._compute_best_scale(x, w_mean, x_mean, inspected, *rest)
            finally:
                handle.remove()

        def _get_input_feat(self, layer: Any, named_linears: Any) -> Any:
            self.before = self.inps[:1]
            return super()._get_input_feat(layer, named_linears)

        def _search_best_clip(self, layer: Any, named_linears: Any, input_feat: Any) -> Any:
            # All scales are folded by now and nothing is rounded: the output must be what it was.
            kept = self._sanitize_kwargs(self.module_kwargs, layer)
            arguments = {name: of_first(v, len(blocks)) for name, v in kept.items()}
            before, after = self.before, self.inps[:1]
            output = self._module_forward(before, layer.to(before.device), arguments)
            change = relative_change(output.float(), after.float())
            if not change <= BOUNDS[str(after.dtype).removeprefix("torch.")]:
                raise UserError(
                    f"folding AutoAWQ's scales changed a layer's output by {change:.2g} relative "
                    "to it; AutoAWQ does not know this architecture, so use another tool"
                )
            self.largest_change = max(self.largest_change, change)
            layer.cpu()  # where AutoAWQ left it
            return super()._search_best_clip(layer, named_linears, input_feat)

    return Quantizer


def run_autoawq(job: Job, recipe: Recipe, blocks: list[list[int]], dtype: Any) -> Any:
    """Run AutoAWQ in `dtype` on the calibration `blocks`; returns its model, packed."""
    from awq import AutoAWQForCausalLM

    with loading(job.model, "fetch the model again, or quantize it without AutoAWQ"):
        model = AutoAWQForCausalLM.from_pretrained(
            str(job.model),
            torch_dtype=str(dtype).removeprefix("torch."),
            trust_remote_code=job.trust_remote_code,
        )
    model.quantize(
        None,  # the tokenizer: the samples are tokens already
        {"zero_point": True, "q_group_size": recipe.group_size, "w_bit": 4, "version": "GEMM"},
        calib_data=blocks,
        max_calib_samples=len(blocks),
        max_calib_seq_len=len(blocks[0]),
        quantizer_cls=corrected_quantizer(blocks),
    )
    return model
