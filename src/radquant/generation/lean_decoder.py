"""A loaded model taken over by this package's own decoder (`kernels/cpp/decoder.h`).

The decoder runs a whole step in C++, so that nothing but its arithmetic takes time. It knows text
models of Llama's kind: those whose family (`radquant.families`) says so. Of a model with images it
is the text model inside, and its family says so, too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.loading import Loaded
from radquant.checkpoints.parts import without_vision
from radquant.errors import UserError
from radquant.families.lookup import family_of
from radquant.finite import norm, relative
from radquant.generation.lean_rows import LeanDecoder, Read
from radquant.generation.memory import give_back
from radquant.kernels import cpu
from radquant.kernels.choice import KERNEL_ACTIVATIONS
from radquant.packed.linear import PackedLinear, QuantizedLinear, ValueLinear
from radquant.settings.precision import Activations, same_rounding

ACTIVE = {"silu": False, "gelu_pytorch_tanh": True}  # activation function: whether it is gelu
# Rotary embeddings whose frequencies depend on no sequence's length.
ROPE = {"default", "linear", "llama3", "yarn"}
NO_WINDOW = 2**62
ALIGNED = 16  # widths that fill whole vectors
# Scores of this many tokens must be transformers'. In float32 they are equal to five digits, with
# rounding to INT8 to a tenth of their size, and a forgotten part moves them by about all of it.
TOKENS_CHECKED = 16
LARGEST_DIFFERENCE = 0.5
TINY_SHARE = 1e-4  # of scores, that the differences between them have at least

# Linear layers of a decoder layer that read the same.
PRODUCTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


def unsupported(loaded: Loaded, rounding: Activations | None) -> str | None:
    """Why the decoder cannot run this model, in a few words; None if it can.

    rounding: what the precision asks of the packed layers' activations.
    """
    model, config = loaded.model, loaded.model.config.get_text_config()
    for kind in (model.config.model_type, config.model_type):
        if family_of(kind).lean is None:
            return f"it does not know models of type {kind!r}"
    if torch.device(model.device).type != "cpu":
        return "it runs on CPUs"
    if model.dtype not in (torch.float32, torch.bfloat16):
        return f"it does not compute in {str(model.dtype).removeprefix('torch.')}"
    if rounding is not None and not same_rounding(rounding, KERNEL_ACTIVATIONS):
        return "it rounds activations to 8 bits a token, symmetric and dynamic, or not at all"
    if loaded.kv_cache is not None:
        return "it does not round keys and values"
    if hooked(loaded):
        return "it does not rotate inputs at run time, or do what else is hooked into layers"
    layers = text_model(model).layers
    return unfit_config(config) or unfit_layers(layers, rounding) or cpu.unavailable()


def text_model(model: Any) -> Any:
    """What holds the decoder layers: the inner model, or the one inside a model with images."""
    return model.get_decoder()


def hooked(loaded: Loaded) -> bool:
    """Whether hooks compute between the modules, besides those that round activations."""
    hooks = [] if loaded.simulation is None else loaded.simulation.hooks
    known = {hook.id for hook in hooks}
    modules = loaded.model.modules()
    return any({*m._forward_pre_hooks, *m._forward_hooks} - known for m in modules)


def unfit_config(config: Any) -> str | None:
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation not in ACTIVE:
        return f"it does not know the activation function {activation!r}"
    if getattr(config, "use_bidirectional_attention", False):
        return "it does not look ahead"
    parameters = config.rope_parameters
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    for each in nested or [parameters]:
        if each["rope_type"] not in ROPE:
            return f"it does not know the rotary embedding {each['rope_type']!r}"
        if each.get("partial_rotary_factor", 1.0) != 1.0:
            return "it does not rotate parts of a head"
    for width in (config.hidden_size, config.intermediate_size):
        if width % ALIGNED:
            return f"a width of {width} is no multiple of {ALIGNED}"
    return None


def unfit_layers(layers: Any, rounding: Activations | None) -> str | None:
    for layer in layers:
        if layer.self_attn.head_dim % ALIGNED:
            return f"heads of {layer.self_attn.head_dim} channels are no multiple of {ALIGNED}"
        for linear in (layer.get_submodule(name) for names in PRODUCTS for name in names):
            if not isinstance(linear, nn.Linear | PackedLinear | ValueLinear):
                return f"it does not know layers of class {type(linear).__name__}"
            if linear.in_features % ALIGNED:
                return f"a width of {linear.in_features} is no multiple of {ALIGNED}"
            if isinstance(linear, QuantizedLinear) and linear.keeps_input and rounding is not None:
                return "it rounds the inputs of all layers, or of none"
            if not isinstance(linear, PackedLinear):
                if rounding is not None:
                    return "a layer is not packed, whose activations are to be rounded"
                continue
            if type(linear) is PackedLinear and linear.scales.dtype != torch.float16:
                return "scales of its weights are no values of float16"
            if not cpu.fits(linear):
                return f"it does not know packed layers of class {type(linear).__name__}, or groups"
            if linear.order is not None:
                return "groups of its weights are no runs of neighbouring channels"
    return None


@torch.inference_mode()
def take_over(loaded: Loaded, rounding: Activations | None) -> LeanDecoder:
    """The model of `loaded` in the decoder; `loaded.model` loses its layers, embeddings and head.

    `loaded` says afterwards what multiplies, how activations enter, and what the weights take.

    Activations enter products as float32, or in bfloat16 if that is the model's dtype; those of
    packed layers in 8 bits if `rounding` asks for it. Weights of dense layers stay in bfloat16
    where that holds them exactly. Raises UserError if the decoder cannot run it, or if, in float32,
    what it computes is not what `loaded.model` does.
    """
    reason = unsupported(loaded, rounding)
    if reason is not None:
        raise UserError(f"the lean engine cannot run this model: {reason}")
    model, config = loaded.model, loaded.model.config.get_text_config()
    lean_family = family_of(model.config.model_type).lean
    both_ways = lean_family is not None and lean_family.both_ways
    read = checked_tokens(model)
    expected = None
    # In bfloat16 transformers rounds the residual stream, too, which random tokens do not bear.
    if model.dtype == torch.float32:
        expected = expected_scores(model, read, both_ways)
    offset = norm_offset(config)
    plain = cpu.BFLOATS if model.dtype == torch.bfloat16 else cpu.FLOATS
    rounded = plain if rounding is None else cpu.INTEGERS
    decoder = empty_decoder(model, rounded, plain)
    head = model.get_output_embeddings()
    model.set_input_embeddings(nn.Identity())  # frees them, unless they are the head, too
    text = text_model(model)
    kinds = rope_kinds(config)
    for number in range(len(text.layers)):
        layer = text.layers[number]
        add_layer(decoder, layer, offset, *place_of(config, number, kinds))
        text.layers[number] = nn.Identity()  # frees its weights
        del layer
        give_back()
    part = packed(loaded.lm_head or head)
    shape = [part.kind, head.out_features, part.group]  # a packed one may be filled up
    decoder.set_head(text.norm.weight.float() + offset, part.data, shape)
    loaded.lm_head = None  # no longer simulated
    model.set_output_embeddings(nn.Identity())
    del head
    if text is not model.model:
        without_vision(model)  # images come as features
    loaded.simulation = None  # of what is no longer there
    names = {cpu.FLOATS: "float32", cpu.BFLOATS: "bfloat16", cpu.INTEGERS: "int8"}
    loaded.weight_bytes = decoder.weight_bytes()
    loaded.kernel = f"{cpu.level()}, {names[rounded]} activations"
    lean = LeanDecoder(
        decoder=decoder,
        rotary=text.rotary_emb,
        rope_kinds=kinds,
        config=config,
        both_ways=both_ways,
        image_token=getattr(model.config, "image_token_id", None),
    )
    if expected is not None:
        check(lean, read, expected)
    return lean


def checked_tokens(model: Any) -> Read:
    """Random tokens, in a model with images some of them an image's."""
    config = model.config.get_text_config()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, [TOKENS_CHECKED], generator=generator)
    if text_model(model) is model.model:
        return Read(ids.tolist())
    types = [1 if 3 <= place < 9 else 0 for place in range(TOKENS_CHECKED)]
    # As large as what they stand beside.
    vectors = model.get_input_embeddings()(ids).float()[torch.tensor(types) == 1]
    return Read(ids.tolist(), vectors.flip(0), types)


def expected_scores(model: Any, read: Read, both_ways: bool) -> Tensor:
    """Scores behind each of the tokens, [tokens, vocabulary], by transformers."""
    ids = torch.tensor([read.ids])
    if read.vectors is None:
        return model(input_ids=ids, use_cache=False).logits[0]
    embedded = model.get_input_embeddings()(ids)
    types = torch.tensor([read.types])
    embedded[types == 1] = read.vectors.to(embedded.dtype)
    told = {"token_type_ids": types} if both_ways else {}
    return model(inputs_embeds=embedded, use_cache=False, **told).logits[0]


def check(lean: LeanDecoder, read: Read, expected: Tensor) -> None:
    """Raise UserError unless the scores behind the tokens of `read` are about as `expected`.

    expected: [tokens, vocabulary], of the model that was taken over.
    """
    if not bool(expected.isfinite().all()):
        return  # the model's own fault, which its first answer tells
    lean.reach(len(read.ids))
    hidden = lean.run({0: read}, range(len(read.ids)))
    found = lean.decoder.logits(hidden)
    lean.decoder.clear()
    # Scores that are all equal are as large as they are: a head of zeros has no others.
    size = max(norm(expected - expected.mean(-1, keepdim=True)), TINY_SHARE * norm(expected))
    difference = relative(norm(found - expected), size)
    if not difference < LARGEST_DIFFERENCE:
        raise UserError(
            "the lean engine does not compute what this model does (its scores differ by "
            f"{difference:.2f} of their size); use engine transformers, and report the model"
        )


def empty_decoder(model: Any, rounded: int, plain: int) -> Any:
    """A decoder of the model's sizes without layers and head."""
    config, attention = model.config.get_text_config(), text_model(model).layers[0].self_attn
    # No class with images caps its scores, whatever its text model's configuration says.
    cap = getattr(model.config, "final_logit_softcapping", None)
    embedding = model.get_input_embeddings()
    tied = model.get_output_embeddings().weight is embedding.weight
    scale = getattr(embedding, "embed_scale", torch.ones(()))
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    return torch.classes.radquant.Decoder(
        [
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            attention.head_dim,
            config.intermediate_size,
        ],
        [
            config.rms_norm_eps,
            attention.scaling,
            float(scale.to(embedding.weight.dtype)),  # as transformers rounds it
            cap or 0.0,
        ],
        ACTIVE[activation],
        None if tied else cpu.narrowed(embedding.weight),
        rounded,
        plain,
    )


def norm_offset(config: Any) -> float:
    """What the model's norms add to their weights."""
    table = family_of(config.model_type).architecture
    return 0.0 if table is None or table.final_norm is None else table.final_norm.offset


def rope_kinds(config: Any) -> list[str | None]:
    lean = family_of(config.model_type).lean
    several = lean is not None and lean.rotary_by_layer_type
    return sorted(set(config.layer_types)) if several else [None]


def place_of(config: Any, number: int, kinds: list[str | None]) -> tuple[int, int]:
    """How many positions a layer sees, and which rotary table it reads."""
    types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    slides = types is None or types[number] == "sliding_attention"  # Mistral has no types
    seen = window if window is not None and slides else NO_WINDOW
    return seen, kinds.index(types[number]) if types and None not in kinds else 0


def add_layer(decoder: Any, layer: Any, offset: float, window: int, rope: int) -> None:
    weights, shapes, biases = [], [], []
    for product, names in enumerate(PRODUCTS):
        for part in joined([packed(layer.get_submodule(name)) for name in names]):
            weights.append(part.data)
            shapes.append([product, part.kind, part.out, part.group])
            biases.append(part.bias)
    decoder.add_layer(norms_of(layer, offset), weights, shapes, biases, window, rope)


def norms_of(layer: Any, offset: float) -> list[Tensor | None]:
    """Before and after attention, before and after the MLP, of queries and of keys."""
    four = hasattr(layer, "pre_feedforward_layernorm")
    after = "post_attention_layernorm"  # Llama's name of what stands before the MLP
    modules = [
        layer.input_layernorm,
        getattr(layer, after) if four else None,
        layer.pre_feedforward_layernorm if four else getattr(layer, after),
        layer.post_feedforward_layernorm if four else None,
        getattr(layer.self_attn, "q_norm", None),
        getattr(layer.self_attn, "k_norm", None),
    ]
    return [None if module is None else module.weight.float() + offset for module in modules]


@dataclass
class Part:
    """A weight as the kernels read it (`kernels/cpp/linear.h`)."""

    data: Tensor  # [bytes] uint8
    kind: int
    out: int
    group: int
    bias: Tensor | None  # [out]


def packed(linear: nn.Linear | PackedLinear | ValueLinear) -> Part:
    if isinstance(linear, PackedLinear):
        data, kind = cpu.repack_packed(linear)
        group = linear.group_size
    else:
        data, kind = cpu.repack_dense(linear.weight)
        group = linear.in_features
    return Part(data, kind, linear.out_features, group, linear.bias)


def joined(parts: list[Part]) -> list[Part]:
    """The parts, those that follow each other without a gap as one: fewer, longer products."""
    done = parts[:1]
    for part in parts[1:]:
        last = done[-1]
        if (last.kind, last.group) == (part.kind, part.group) and last.out % ALIGNED == 0:
            bias = None
            if last.bias is not None and part.bias is not None:
                bias = torch.cat([last.bias, part.bias])
            elif last.bias is not None or part.bias is not None:
                done.append(part)
                continue
            data = torch.cat([last.data, part.data])
            done[-1] = Part(data, part.kind, last.out + part.out, part.group, bias)
        else:
            done.append(part)
    return done
