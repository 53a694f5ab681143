"""A loaded model taken over by this package's own decoder (`kernels/cpp/decoder.h`).

The decoder runs a whole step in C++, so that nothing but its arithmetic takes time. It knows text
models of Llama's kind: those whose family (`radquant.families`) says so. Of a model with images it
is the text model inside, and its family says so, too.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.checkpoints.loading import Loaded
from radquant.checkpoints.parts import without_vision
from radquant.errors import UserError
from radquant.families.lookup import family_of
from radquant.finite import norm, relative
from radquant.generation.lean_files import in_memory, place_of_weights
from radquant.generation.lean_rounding import Inputs, inputs_of, layers_name, unfit_input
from radquant.generation.lean_rows import LeanDecoder, Read
from radquant.generation.lean_weights import PRODUCTS, Part, packed, parts_of
from radquant.generation.memory import give_back
from radquant.generation.prefix import may_share
from radquant.kernels import cpu
from radquant.kernels.rounding import of_cache, unfit_cache
from radquant.packed.linear import PackedLinear, ValueLinear
from radquant.settings.precision import Activations, KVCache

ACTIVE = {"silu": False, "gelu_pytorch_tanh": True}  # activation function: whether it is gelu
# Rotary embeddings whose frequencies depend on no sequence's length.
ROPE = {"default", "linear", "llama3", "yarn"}
NO_WINDOW = 2**62
ALIGNED = 16  # widths that fill whole vectors
# The scores of so many tokens are compared with those of transformers. In float32 they are equal to
# five digits, and a forgotten part of the model changes them by about their whole size. Rounding
# starts after this check. With one scale for a whole text, the last digits of a sum can change
# scores by most of their size.
TOKENS_CHECKED = 16
LARGEST_DIFFERENCE = 0.5
TINY_SHARE = 1e-4  # of scores, that the differences between them have at least


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
    if loaded.kv_cache is not None and loaded.runtime.rotate_keys:
        return "it does not rotate keys"
    if hooked(loaded):
        return "it does not rotate inputs at run time, or do what else is hooked into layers"
    inputs = inputs_of(loaded, rounding)
    unfit = unfit_config(config) or unfit_layers(model, inputs, loaded.kv_cache)
    return unfit or cpu.unavailable()


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


def unfit_layers(model: Any, inputs: Inputs, cache: KVCache | None) -> str | None:
    layers = text_model(model).layers
    begin = layers_name(model, layers)
    for number, layer in enumerate(layers):
        if layer.self_attn.head_dim % ALIGNED:
            return f"heads of {layer.self_attn.head_dim} channels are no multiple of {ALIGNED}"
        reason = None if cache is None else unfit_cache(cache, layer.self_attn.head_dim)
        if reason is not None:
            return reason
        for name in (name for names in PRODUCTS for name in names):
            linear = layer.get_submodule(name)
            if not isinstance(linear, nn.Linear | PackedLinear | ValueLinear):
                return f"it does not know layers of class {type(linear).__name__}"
            if linear.in_features % ALIGNED:
                return f"a width of {linear.in_features} is no multiple of {ALIGNED}"
            reason = unfit_input(linear, f"{begin}.{number}.{name}", inputs)
            if reason is not None:
                return reason
            if not isinstance(linear, PackedLinear):
                continue
            if type(linear) is PackedLinear and linear.scales.dtype != torch.float16:
                return "scales of its weights are no values of float16"
            if not cpu.fits(linear):
                return f"it does not know packed layers of class {type(linear).__name__}, or groups"
            if linear.order is not None:
                return "groups of its weights are no runs of neighbouring channels"
    return None


@torch.inference_mode()
def take_over(loaded: Loaded, rounding: Activations | None, folder: Path = Path()) -> LeanDecoder:
    """The model of `loaded` in the decoder; `loaded.model` loses its layers, embeddings and head.

    `loaded` says afterwards what multiplies, how activations enter, and what the weights take.

    Activations enter products as float32, or in bfloat16 if that is the model's dtype; those of
    packed layers as integers if `rounding` asks for it. Weights of dense layers stay in bfloat16
    where that holds them exactly. Weights that do not fit into memory are kept in files in `folder`
    (`lean_files`), which `loaded` says, too. Raises UserError if the decoder cannot run it, or if,
    in float32, what it computes is not what `loaded.model` does.
    """
    reason = unsupported(loaded, rounding)
    if reason is not None:
        raise UserError(f"the lean engine cannot run this model: {reason}")
    model, config = loaded.model, loaded.model.config.get_text_config()
    lean_family = family_of(model.config.model_type).lean
    both_ways = lean_family is not None and lean_family.both_ways
    read = checked_tokens(model)
    expected = None
    if loaded.simulation is not None:
        loaded.simulation.remove()
    rounds = [each.bits for each in (rounding, loaded.kv_cache) if each is not None]
    loaded.widened = any(bits < cpu.BITS for bits in rounds)
    # In bfloat16 transformers rounds the residual stream, too. Random tokens then give other
    # scores, so nothing is compared.
    if model.dtype == torch.float32:
        expected = expected_scores(model, read, both_ways)
    offset = norm_offset(config)
    plain = cpu.BFLOATS if model.dtype == torch.bfloat16 else cpu.FLOATS
    inputs, cache = inputs_of(loaded, rounding), cache_numbers(loaded)
    decoder = empty_decoder(model, plain)
    head = model.get_output_embeddings()
    model.set_input_embeddings(nn.Identity())  # frees them, unless they are the head, too
    text = text_model(model)
    place = place_of_weights([text.layers, head], folder)
    begin = layers_name(model, text.layers)
    kinds = rope_kinds(config)
    for number in range(len(text.layers)):
        layer = text.layers[number]
        parts = parts_of(layer, f"{begin}.{number}", inputs, plain)
        for part in (part for of_product in parts for part in of_product):
            part.data = place(part.data)
        add_layer(decoder, layer, parts, offset, *place_of(config, number, kinds))
        text.layers[number] = nn.Identity()  # frees its weights
        del layer
        give_back()
    part = packed(loaded.lm_head or head, None, plain)
    shape = [part.kind, head.out_features, part.group]  # a packed one may be filled up
    decoder.set_head(text.norm.weight.float() + offset, place(part.data), shape)
    loaded.lm_head = None  # no longer simulated
    model.set_output_embeddings(nn.Identity())
    del head
    if text is not model.model:
        without_vision(model)  # images come as features
    loaded.simulation = loaded.kv_cache = None  # of what is no longer there
    loaded.weight_bytes = decoder.weight_bytes()
    loaded.kernel = f"{cpu.level()}, {entering(rounding, plain)}"
    loaded.on_disk = place is not in_memory
    if loaded.on_disk:
        loaded.kernel += ", weights on disk"
    lean = LeanDecoder(
        decoder=decoder,
        rotary=text.rotary_emb,
        rope_kinds=kinds,
        config=config,
        both_ways=both_ways,
        image_token=getattr(model.config, "image_token_id", None),
        whole=not may_share(rounding),
    )
    if expected is not None:
        check(lean, read, expected)
    decoder.start_rounding()
    if cache is not None:
        decoder.round_cache(cache)
    return lean


def cache_numbers(loaded: Loaded) -> tuple[int, ...] | None:
    """How keys and values are rounded, as the decoder takes it; None: they are not."""
    if loaded.kv_cache is None:
        return None
    heads = loaded.model.config.get_text_config().num_key_value_heads
    return of_cache(loaded.kv_cache, heads, text_model(loaded.model).layers[0].self_attn.head_dim)


def entering(rounding: Activations | None, plain: int) -> str:
    """How activations enter products, for the report."""
    if rounding is None:
        return "bfloat16 activations" if plain == cpu.BFLOATS else "float32 activations"
    return "int8 activations" if rounding.bits == cpu.BITS else "int4 activations as int8"


def checked_tokens(model: Any) -> Read:
    """Random tokens, in a model with images some of them an image's."""
    config = model.config.get_text_config()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, [TOKENS_CHECKED], generator=generator)
    if text_model(model) is model.model:
        return Read(ids.tolist())
    types = [1 if 3 <= place < 9 else 0 for place in range(TOKENS_CHECKED)]
    # They are embeddings of the vocabulary, so they are as large as those beside them.
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
    # The differences between scores count. A head of zeros has none, so a share of the scores' own
    # size is the least.
    size = max(norm(expected - expected.mean(-1, keepdim=True)), TINY_SHARE * norm(expected))
    difference = relative(norm(found - expected), size)
    if not difference < LARGEST_DIFFERENCE:
        raise UserError(
            "the lean engine does not compute what this model does (its scores differ by "
            f"{difference:.2f} of their size); use engine transformers, and report the model"
        )


def empty_decoder(model: Any, plain: int) -> Any:
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


def add_layer(
    decoder: Any, layer: Any, products: list[list[Part]], offset: float, window: int, rope: int
) -> None:
    shapes, parts = [], [part for parts in products for part in parts]
    for number, of_product in enumerate(products):
        shapes += [[number, p.kind, p.out, p.group, p.input] for p in of_product]
    rounding = next((part.rounding for part in parts if part.rounding is not None), None)
    if rounding is not None:
        decoder.set_rounding(rounding.numbers, rounding.keep)
    decoder.add_layer(
        norms_of(layer, offset),
        [part.data for part in parts],
        shapes,
        [part.bias for part in parts],
        [None if part.rounding is None else part.rounding.ranges for part in parts],
        window,
        rope,
    )


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
