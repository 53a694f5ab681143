"""Packed products on a CPU, by this package's own C++ (`cpp/`): compiled once, loaded, called.

The library is built by the machine's C++ compiler when it is first needed. It is kept where
`TORCH_EXTENSIONS_DIR` says (by default in the user's cache), under a name that holds the hash of
all that goes into it. It runs on AVX-512 with VNNI or on AVX2; `available` says why it does not.
"""

import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radquant.kernels.rounding import Rounding
from radquant.packed.linear import PackedLinear

SOURCES = Path(__file__).parent / "cpp"
W4, W8, BF16, F32, F16 = range(5)  # kinds of weights, as in cpp/linear.h
FLOATS, BFLOATS, INTEGERS = range(3)  # how activations enter a product, likewise
BITS = 8  # of an integer in a product, and of keys and values that are kept rounded
COMPARED_ROWS = 4096  # of a weight at a time: the table of a vocabulary takes gigabytes once more
FLAGS = ("-O3", "-std=c++20", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")


def compiler() -> str | None:
    """The C++ compiler: what CXX says, else the first of the usual names that is there."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def built_library(cxx: str) -> Path:
    """The compiled library, which is made now if it is not there; its path.

    Raises CalledProcessError if the compiler fails; its messages are then in `stderr`. Raises
    OSError if the library's folder cannot be made or written to.
    """
    sources = sorted(SOURCES.iterdir())
    parts = [path.read_bytes() for path in sources]
    version = subprocess.run([cxx, "--version"], capture_output=True, check=True).stdout
    about = repr([torch.__version__, sys.implementation.cache_tag, FLAGS]).encode()
    key = hashlib.sha256(b"\0".join([*parts, version, about])).hexdigest()[:16]
    directory = library_folder()
    library = directory / f"radquant-{key}.so"
    if not library.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        # The kernel frees this lock with the process that holds it; torch's own outlives a kill.
        with open(directory / f"radquant-{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.is_file():
                build(cxx, [path for path in sources if path.suffix == ".cpp"], library)
    return library


def library_folder() -> Path:
    """Where the library is kept; raises OSError if there is no such place."""
    told, cache = os.environ.get("TORCH_EXTENSIONS_DIR"), os.environ.get("XDG_CACHE_HOME")
    if told:
        return Path(told)
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "torch_extensions"
    except RuntimeError:  # neither HOME nor the system's list of users names one
        raise FileNotFoundError("there is no home directory") from None


def build(cxx: str, sources: list[Path], library: Path, flags: Sequence[str] = FLAGS) -> None:
    """Compile and link `sources`; the library appears whole or not at all."""
    from torch.utils.cpp_extension import include_paths, library_paths

    print("compiling the CPU kernels (once, about a minute) ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as place:
        part = Path(place) / library.name
        includes = [f"-I{path}" for path in include_paths()]
        places = library_paths()
        # Not linked to the compiler's own OpenMP: PyTorch brings one, and two would fight.
        libraries = [f"-L{p}" for p in places] + [f"-Wl,-rpath,{p}" for p in places]
        libraries += ["-ltorch_cpu", "-ltorch", "-lc10"]
        objects = [Path(place) / f"{source.stem}.o" for source in sources]
        compile_each = [
            [cxx, *flags, "-fPIC", *includes, "-c", str(source), "-o", str(target)]
            for source, target in zip(sources, objects, strict=True)
        ]
        run_all(compile_each)
        run_all(
            [[cxx, *flags, "-shared", "-fPIC", *map(str, objects), *libraries, "-o", str(part)]]
        )
        os.replace(part, library)


def run_all(commands: list[list[str]]) -> None:
    """Run `commands` side by side; raises CalledProcessError for the first that fails."""
    pipe = subprocess.PIPE
    running = [subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) for words in commands]
    said = [process.communicate()[1] for process in running]
    for process, errors in zip(running, said, strict=True):
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args, stderr=errors)


@functools.cache
def unavailable() -> str | None:
    """Why the kernels cannot be used here, in a few words; None if they are loaded."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return "they are written for x86-64 processors under Linux"
    cxx = compiler()
    if cxx is None:
        return "there is no C++ compiler (c++, g++ or clang++)"
    try:
        torch.ops.load_library(str(built_library(cxx)))
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr or "no message").strip().splitlines()
        told = next((line for line in lines if "error" in line), lines[0])
        return f"{cxx} could not compile them: {told.strip()}"
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"the CPU kernels cannot be built or loaded, {error.strerror or error}{where}; set "
            "TORCH_EXTENSIONS_DIR to a folder that can be written"
        )
    register_fakes()
    level = torch.ops.radquant.kernel_level()
    return "the processor lacks AVX2" if level == "none" else None


def level() -> str:
    """What the kernels run on here, such as "avx512-vnni-bf16"."""
    name: str = torch.ops.radquant.kernel_level()
    return name


def register_fakes() -> None:
    """Tell torch.compile the shapes of the operators' results."""

    @torch.library.register_fake("radquant::linear")
    def linear(
        x: Tensor,
        weight: Tensor,
        kind: int,
        out: int,
        group: int,
        input: int,
        bias: Tensor | None,
        *how: Any,
    ) -> Tensor:
        return x.new_empty((*x.shape[:-1], out))


def repack_packed(layer: PackedLinear, group: int | None = None) -> tuple[Tensor, int]:
    """A packed layer's weights as the kernels read them, [bytes] uint8, and their kind.

    Rows stay in the order in which they are stored (see `PackedLinear.order`). group: into which
    the layer's groups are cut; None: as they are.
    """
    parts = 1 if group is None else layer.group_size // group
    zeros, scales = (each.repeat_interleave(parts, 0) for each in (layer.qzeros, layer.scales))
    packed = torch.ops.radquant.repack(layer.qweight, zeros, scales, layer.bits)
    return packed, W4 if layer.bits == 4 else W8


def repack_dense(weight: Tensor) -> tuple[Tensor, int]:
    """A weight [out, in] as the kernels read it, [bytes] uint8, and its kind.

    In the first of bfloat16, float16 and float32 that holds all of its values exactly.
    """
    narrow = narrowed(weight)
    kind = {torch.bfloat16: BF16, torch.float16: F16, torch.float32: F32}[narrow.dtype]
    return torch.ops.radquant.repack_dense(narrow), kind


def narrowed(weight: Tensor) -> Tensor:
    """The same values in the first of bfloat16, float16 and float32 that holds them exactly."""
    for dtype in (torch.bfloat16, torch.float16):
        narrow = weight.to(dtype)
        parts = zip(narrow.split(COMPARED_ROWS), weight.split(COMPARED_ROWS), strict=True)
        if all(torch.equal(part.to(weight.dtype), own) for part, own in parts):
            return narrow
    return weight.float()


def fits(layer: PackedLinear, rounding: Rounding | None = None) -> bool:
    """Whether the kernels multiply by this layer: its own class, groups of whole lines, and scales
    in float16. They round groups of channels only where these lie in order."""
    group = layer.group_size
    if rounding is not None:
        group = rounding.cut(group)
        if layer.order is not None and rounding.by_group:
            return False
    return type(layer) is PackedLinear and group % 8 == 0 and layer.scales.dtype == torch.float16


class KernelLinear(nn.Module):
    """A packed linear layer whose product is computed by the kernels."""

    weight_bytes: Tensor  # [bytes] uint8, see cpp/linear.h
    order: Tensor | None

    def __init__(
        self, layer: PackedLinear, input: int = FLOATS, rounding: Rounding | None = None
    ) -> None:
        """Take over `layer`. input: how activations enter; bfloat16 as such, unless as integers.

        rounding: to other integers than those of 8 bits, a row by itself.
        """
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.group_size, self.bits, self.input = layer.group_size, layer.bits, input
        self.rounding = rounding
        if rounding is not None:
            self.group_size = rounding.cut(layer.group_size)
        data, self.kind = repack_packed(layer, self.group_size)
        self.register_buffer("weight_bytes", data)
        self.register_buffer("order", layer.order)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.float())

    def forward(self, x: Tensor, sequences: Tensor | None = None) -> Tensor:
        """[..., in] -> [..., out], in x's dtype.

        sequences: int64, to which each row of x belongs, where they share a scale; those of one are
        neighbours.
        """
        if self.order is not None:
            x = x.index_select(-1, self.order)
        rounded = x.dtype == torch.bfloat16 and self.input == FLOATS
        entering = BFLOATS if rounded else self.input
        y: Tensor = torch.ops.radquant.linear(
            *(x, self.weight_bytes, self.kind, self.out_features, self.group_size, entering),
            *(self.bias, *(self.rounding.arguments(sequences) if self.rounding else ())),
        )
        return y

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, "
            f"group_size={self.group_size}, bias={self.bias is not None}"
        )


def install(
    layers: Mapping[str, PackedLinear], roundings: Mapping[str, Rounding] | None = None
) -> str:
    """Let the kernels multiply by those of `layers` that they fit; what runs, in a few words.

    Each keeps its place, name and hooks, and loses the form that it was stored in: it multiplies,
    and can no longer be unpacked. The kernels must be available. roundings: of the inputs that
    become integers, by layer.
    """
    taken = {name: layer for name, layer in layers.items() if fits(layer)}
    for name, layer in taken.items():
        rounding = (roundings or {}).get(name)
        hand_over(layer, KernelLinear(layer, INTEGERS if rounding else FLOATS, rounding))
    left = len(layers) - len(taken)
    return f"{level()}; {left} layers reference" if left else level()


def hand_over(layer: PackedLinear, kernel: nn.Module) -> None:
    """Let `kernel` multiply in the place of `layer`, whose stored form is freed."""
    for name in ("qweight", "qzeros", "scales"):
        delattr(layer, name)
    layer.kernel = kernel
    layer.forward = kernel.forward  # type: ignore[method-assign]
