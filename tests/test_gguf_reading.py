"""The values of blocks of GGUF files, held against llama.cpp's C code."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import random_blocks

from radquant.errors import UserError
from radquant.gguf.reading import GGUFModel, GGUFTensor, hugging_face_values, stored_values
from radquant.gguf_header import read_header

# Of each type, the hash of what `ggml_get_type_traits(type)->to_float` of llama.cpp (b11549, in the
# wheel xllamacpp 2026.10.11549) makes of 64 blocks of random bytes.
FROM_LLAMA_CPP = {
    "F16": "51c4f322913478f5",
    "Q4_0": "10db40ebe19c8e61",
    "Q4_1": "a54545b8548aa574",
    "Q5_0": "8a22233d17602fd3",
    "Q5_1": "f9d75bcd93cc1b67",
    "Q8_0": "72ffc10995a7e7fc",
    "Q2_K": "815055e7603b2da6",
    "Q3_K": "0b4d2158b5df11dc",
    "Q4_K": "98bb6582a4d471ac",
    "Q5_K": "c7b1bf47fe0f0607",
    "Q6_K": "c65f59ada210d403",
    "IQ2_XXS": "dc98fa763b97bf01",
    "IQ2_XS": "d2d26a648c9cbbba",
    "IQ3_XXS": "95b1c8a3dddcd5c3",
    "IQ1_S": "d3a3892b519ea092",
    "IQ4_NL": "2da230f48bb72917",
    "IQ3_S": "e5707bf216764996",
    "IQ2_S": "079ce019bdc0efa0",
    "IQ4_XS": "793707b5ceab5dd8",
    "IQ1_M": "fe70ea378fcf51c9",
    "BF16": "350668fa7fc5100d",
    "TQ1_0": "966fbbf594535839",
    "TQ2_0": "bff848ebe8c9b618",
    "MXFP4": "9288060b7cb5610d",
    "NVFP4": "608751a13901828a",
}
BLOCKS = 64


def digest(values: np.ndarray) -> str:
    """Of float32 values; those that are no numbers, and the sign of zero, are all the same."""
    plain = np.nan_to_num(values.astype(np.float32).reshape(-1)) + np.float32(0)
    return hashlib.sha256(plain.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("kind", FROM_LLAMA_CPP)
def test_values_are_llama_cpp_s_to_the_bit(tmp_path: Path, kind: str) -> None:
    raw = random_blocks(Type[kind], BLOCKS)
    (tmp_path / "blocks").write_bytes(bytes(32) + raw.tobytes())
    columns = GGML_QUANT_SIZES[Type[kind]][0] * 2
    file = GGUFModel(tmp_path / "blocks", "llama", {}, {})
    tensor = GGUFTensor("blk.0.ffn_up.weight", (BLOCKS // 2, columns), kind, 32)
    assert digest(stored_values(file, tensor)) == FROM_LLAMA_CPP[kind]


def test_more_rows_than_are_taken_at_a_time(tmp_path: Path) -> None:
    raw = random_blocks(Type.Q8_0, 5000)
    raw[:, 1] &= 0x3B  # of the scale, so that it is a number
    (tmp_path / "blocks").write_bytes(raw.tobytes())
    file = GGUFModel(tmp_path / "blocks", "llama", {}, {})
    tensor = GGUFTensor("token_embd.weight", (5000, 32), "Q8_0", 0)
    scales = raw[:, :2].copy().view("<f2").astype(np.float32)
    wanted = raw[:, 2:].view(np.int8) * scales
    assert np.array_equal(hugging_face_values(file, tensor, 1, 1), wanted)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 95), st.integers(1, 96), st.sampled_from(["ffn_up", "attn_q", "attn_k"]))
def test_some_rows_are_those_of_all(begin: int, count: int, name: str) -> None:
    """Also of queries and keys, whose rows the file has in another order."""
    raw = random_blocks(Type.Q8_0, 96)
    raw[:, 1] &= 0x3B
    some = slice(begin, begin + count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blocks"
        path.write_bytes(bytes(7) + raw.tobytes())
        file = GGUFModel(path, "llama", {}, {})
        tensor = GGUFTensor(f"blk.0.{name}.weight", (96, 32), "Q8_0", 7)
        whole = hugging_face_values(file, tensor, 6, 3)
        assert np.array_equal(hugging_face_values(file, tensor, 6, 3, some), whole[some])
        scales = raw[:, :2].copy().view("<f2").astype(np.float32)
        stored = raw[:, 2:].view(np.int8) * scales
        assert np.array_equal(stored_values(file, tensor, some), stored[some])


def test_what_is_no_number_is_told_with_the_tensor(tmp_path: Path) -> None:
    (tmp_path / "blocks").write_bytes(b"\xff" * 34)
    file = GGUFModel(tmp_path / "blocks", "llama", {}, {})
    tensor = GGUFTensor("output.weight", (1, 32), "Q8_0", 0)
    with pytest.raises(UserError, match=r"the tensor output\.weight holds values that are no fin"):
        hugging_face_values(file, tensor, 1, 1)


def test_arrays_are_read_when_asked_for(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("a", ["x", "ü"])
    writer.add_array("b", [1.5, -2.0])
    writer.add_array("c", [True, False])
    writer.add_array("d", [[1, 2], [3]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "m.gguf", arrays=True)
    wanted = {"a": [b"x", "ü".encode()], "b": [1.5, -2.0], "c": [True, False], "d": []}
    assert header.arrays == wanted
    assert read_header(tmp_path / "m.gguf").arrays is None
    assert header.values["a"] == 2
