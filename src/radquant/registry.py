"""What comes in several kinds: a line for each kind says in which module it lies.

A kind is one module with the names that the protocol of its table asks for; CONTRIBUTING.md says
how to add one. A table holds names alone, so that settings can be checked against it without
importing any kind. Code that needs the kind itself calls `load_kind`. `radquant.code` follows that
call, so the chosen kind's files count as code of a stage and this file does not.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType

from radquant.errors import UserError

ENGINES: dict[str, str] = {
    "lean": "radquant.generation.engines.lean",
    "transformers": "radquant.generation.engines.transformers_engine",
    "vllm": "radquant.generation.engines.vllm",
    "llama.cpp": "radquant.generation.engines.llama_cpp",
}
# How a weight is stored as a number.
NUMBER_TYPES: dict[str, str] = {
    "int": "radquant.packed.types.integer",
    "fp8": "radquant.packed.types.fp8",
    "mxfp4": "radquant.packed.types.mxfp4",
    "nvfp4": "radquant.packed.types.nvfp4",
    # Types of GGUF files.
    "q4_0": "radquant.packed.types.q4_0",
    "q4_1": "radquant.packed.types.q4_1",
    "q5_0": "radquant.packed.types.q5_0",
    "q8_0": "radquant.packed.types.q8_0",
    "q4_k": "radquant.packed.types.q4_k",
    "q6_k": "radquant.packed.types.q6_k",
}
STORED_FORMATS: dict[str, str] = {
    "gemm": "radquant.packed.formats.gemm",
    "gptq": "radquant.packed.formats.gptq",
    "compressed-tensors": "radquant.packed.formats.compressed_tensors",
    "qoq": "radquant.packed.formats.qoq",
    "gguf": "radquant.packed.formats.gguf",
}
# Formats of other programs that are read and never written.
READ_FORMATS: dict[str, str] = {
    "fp8": "radquant.packed.formats.fp8",
    "auto-round": "radquant.packed.formats.auto_round",
    "bitsandbytes-4bit": "radquant.packed.formats.bitsandbytes_4bit",
    "bitsandbytes-8bit": "radquant.packed.formats.bitsandbytes_8bit",
    "torchao": "radquant.packed.formats.torchao",
}
ANNOTATORS: dict[str, str] = {
    "lexicon": "radquant.scoring.annotators.lexicon",
    "radgraph": "radquant.scoring.annotators.radgraph",
}
# In the order of the report's columns.
METRICS: dict[str, str] = {
    "radgraph_f1": "radquant.scoring.metrics.radgraph_f1",
    "fidelity": "radquant.scoring.metrics.fidelity",
    "identical": "radquant.scoring.metrics.identical",
    "radgraph1": "radquant.scoring.metrics.radgraph1",
    "rouge": "radquant.scoring.metrics.rouge",
    "bleu": "radquant.scoring.metrics.bleu",
    "chexpert": "radquant.scoring.metrics.chexpert",
    "errors": "radquant.scoring.metrics.errors",
    "length": "radquant.scoring.metrics.length",
}
# Beside these, off unless configured: each has a section of `scoring` under its name.
MEASURES: dict[str, str] = {
    "meteor": "radquant.scoring.measures.meteor",
    "bertscore": "radquant.scoring.measures.bertscore",
    # Trained models, in environments of their own.
    "chexbert": "radquant.scoring.measures.chexbert",
    "ratescore": "radquant.scoring.measures.ratescore",
    "radcliq": "radquant.scoring.measures.radcliq",
    "green": "radquant.scoring.measures.green",
    "crimson": "radquant.scoring.measures.crimson",
    "cxrfescore": "radquant.scoring.measures.cxrfescore",
}
CORPUS_FORMATS: dict[str, str] = {
    "openi": "radquant.corpus.formats.openi",
    "table": "radquant.corpus.formats.table",
    "mimic-tree": "radquant.corpus.formats.mimic_tree",
    "mimic-sectioned": "radquant.corpus.formats.mimic_sectioned",
    "text-folder": "radquant.corpus.formats.text_folder",
}
# By `model_type` in config.json. A model with images (MedGemma: gemma3) has a text model of another
# type inside.
MODEL_FAMILIES: dict[str, str] = {
    "llama": "radquant.families.llama",
    "mistral": "radquant.families.llama",
    "ministral3": "radquant.families.like_llama",
    "smollm3": "radquant.families.like_llama",
    "qwen2": "radquant.families.qwen",
    "qwen3": "radquant.families.qwen",
    "qwen2_5_vl_text": "radquant.families.like_llama",
    "qwen3_vl_text": "radquant.families.like_llama",
    "qwen3_5_text": "radquant.families.qwen3_5",
    "qwen3_moe": "radquant.families.qwen3_moe",
    "granite": "radquant.families.granite",
    "olmo2": "radquant.families.olmo2",
    "olmo3": "radquant.families.olmo2",
    "cohere": "radquant.families.cohere",
    "cohere2": "radquant.families.cohere",
    "phi3": "radquant.families.phi",  # Phi-4 too
    "gemma": "radquant.families.gemma",
    "gemma2": "radquant.families.gemma2",
    "gemma3_text": "radquant.families.gemma3",
    "gemma3": "radquant.families.gemma3_images",
    "gemma4_text": "radquant.families.gemma4",
    "gemma4": "radquant.families.gemma4_images",
    "qwen2_5_vl": "radquant.families.qwen2_5_vl_images",
    "qwen3_5": "radquant.families.qwen3_5_images",
    "qwen3_vl": "radquant.families.qwen3_vl_images",
    "llava": "radquant.families.llava_images",
    "internvl": "radquant.families.internvl_images",
    "mistral3": "radquant.families.mistral3_images",
    "gemma3n_text": "radquant.families.no_float16",
    "gemma3n": "radquant.families.no_float16",
    "glm4": "radquant.families.no_float16",
    "plamo2": "radquant.families.no_float16",
}


def load_kind(table: Mapping[str, str], name: str) -> ModuleType:
    """The module of the kind `name` of one of the tables above."""
    if name not in table:
        raise UserError(f"{name!r} is unknown; use one of {', '.join(table)}")
    return importlib.import_module(table[name])
