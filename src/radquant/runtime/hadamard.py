"""Orthogonal rotations that spread a channel's outlier over all channels, for every width.

A Hadamard matrix H of order n has entries ±1/√n only (H Hᵀ = 1 with that scaling). So x H spreads
each channel evenly (QuIP#, Tseng et al. 2024; QuaRot, Ashkboos et al. 2024). It is kept as the
factors of a Kronecker product. These are Sylvester's matrices of order 2^k, and Paley's (1933) for
primes q. Their order is q + 1 if q = 3 mod 4, and 2(q + 1) if q = 1 mod 4. Such products cover the
hidden, intermediate and head widths of most models: 80 = 20·4, 1536 = 12·16·8, 14336 = 28·32·16.

None of them does for some widths, such as 11008 = 43·256 (Llama 2 7B). There the odd part of the
width gets the orthonormal Hartley matrix, cos + sin of 2πjk/m over √m. It is real and orthogonal,
but no Hadamard matrix, as the size of its entries runs from 0 to √(2/m). QuaRot uses stored
matrices of Williamson type there (order 172 for 11008), so a peak is left up to √2 higher here.
"""

import hashlib
from functools import cache, reduce

import torch
from torch import Tensor, nn

from radquant.errors import UserError

# A product with a factor of order p costs p multiplications for each channel. Larger factors would
# make the rotation as dear as the linear layer it belongs to.
LARGEST_SYLVESTER = 64
LARGEST_PALEY = 512


def rotate(x: Tensor, inverse: bool = False, signs: Tensor | None = None) -> Tensor:
    """x Q, or x Qᵀ for the inverse, for x of shape [..., n]; Q = H, or diag(signs) H.

    signs: [n], +1 or -1. Returns x's dtype; half precision is rotated in float32.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        return rotate(x.float(), inverse, signs).to(x.dtype)
    rotated = x if inverse or signs is None else x * signs.to(x)
    rotated = rotated.reshape(-1, x.shape[-1])  # [rows, n]
    for factor in factors_on(x.shape[-1], x.dtype, x.device):
        # Each step multiplies the first axis that is left and puts it last: all of them done, the
        # axes are in order again.
        rotated = rotated.unflatten(-1, (len(factor), -1)).transpose(-1, -2)
        rotated = (rotated @ (factor.T if inverse else factor)).flatten(-2)
    rotated = rotated.reshape(x.shape)
    return rotated * signs.to(x) if inverse and signs is not None else rotated


def rotate_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A forward hook of linear layers whose input is rotated at run time."""
    return (rotate(args[0]), *args[1:])


def rotate_heads(x: Tensor, width: int) -> Tensor:
    """Rotate each run of `width` channels of x [..., heads · width] by itself."""
    if x.shape[-1] % width:
        raise UserError(
            f"{x.shape[-1]} channels are no whole number of heads of width {width}; this model "
            "cannot be rotated by heads"
        )
    return rotate(x.unflatten(-1, (-1, width))).flatten(-2)


def signs(n: int, seed: int) -> Tensor:
    """n signs, +1 or -1 as float32, that depend on n and seed alone, not on a library's version.

    They are the bits of SHAKE-256 of the text "n seed", the lowest of each byte first; 1 means -1.
    """
    digest = hashlib.shake_256(f"{n} {seed}".encode()).digest((n + 7) // 8)
    bits = [byte >> place & 1 for byte in digest for place in range(8)]
    return 1 - 2 * torch.tensor(bits[:n], dtype=torch.float32)


@torch.inference_mode(False)  # what is cached must serve outside of inference mode, too
@cache
def factors(n: int) -> list[Tensor]:
    """Orthogonal float64 matrices whose Kronecker product, in this order, is H; none for n = 1.

    They are shared between callers: not to be written to.
    """
    orders = hadamard_orders(n)
    if orders is not None:
        return [sylvester(each) if is_power_of_two(each) else paley(each) for each in orders]
    odd = n // (n & -n)
    return [hartley(odd), *(sylvester(each) for each in sylvester_orders(n // odd))]


@torch.inference_mode(False)
@cache
def factors_on(n: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    return [factor.to(device, dtype) for factor in factors(n)]


@cache
def hadamard_orders(n: int) -> tuple[int, ...] | None:
    """Orders of Hadamard matrices with the product n and the least sum; None where there are none.

    Powers of two, Sylvester's, come last.
    """
    if is_power_of_two(n):
        return sylvester_orders(n)
    found = []
    for order in range(12, min(n, LARGEST_PALEY) + 1, 4):
        if n % order == 0 and not is_power_of_two(order) and paley_prime(order):
            rest = hadamard_orders(n // order)
            if rest is not None:
                found.append((order, *rest))
    return min(found, key=sum, default=None)


def sylvester_orders(n: int) -> tuple[int, ...]:
    """Nearly equal powers of two with the product n, a power of two, as few as may be."""
    bits, largest = n.bit_length() - 1, LARGEST_SYLVESTER.bit_length() - 1
    count = -(-bits // largest)
    return tuple(2 ** (bits // count + (place < bits % count)) for place in range(count))


def sylvester(n: int) -> Tensor:
    """Sylvester's matrix of order n = 2^k, [n, n] float64, orthonormal and symmetric."""
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    steps = [step] * (n.bit_length() - 1)
    return reduce(torch.kron, steps, torch.ones(1, 1, dtype=torch.float64)) / n**0.5


def paley(order: int) -> Tensor:
    """Paley's matrix of this order, [order, order] float64, orthonormal."""
    q = paley_prime(order)
    places = torch.arange(q)
    residue = torch.full((q,), -1.0, dtype=torch.float64)
    residue[places**2 % q] = 1.0
    residue[0] = 0.0
    core = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    core[0, 1:] = 1.0
    core[1:, 0] = 1.0 if q % 4 == 1 else -1.0
    core[1:, 1:] = residue[(places[:, None] - places) % q]  # whether row - column is a square
    one = torch.eye(q + 1, dtype=torch.float64)
    if q % 4 == 3:  # construction I: the core is skew
        return (one + core) / order**0.5
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)  # II: it is symmetric
    turned = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    return (torch.kron(core, step) + torch.kron(one, turned)) / order**0.5


def hartley(n: int) -> Tensor:
    """The orthonormal Hartley matrix (Bracewell 1983), [n, n] float64, symmetric."""
    places = torch.arange(n)
    # Reduced before it is made an angle, which keeps large orders exact.
    angle = (places[:, None] * places % n).double() * (2 * torch.pi / n)
    return (angle.cos() + angle.sin()) / n**0.5


def paley_prime(order: int) -> int:
    """The prime q from which one of Paley's constructions makes this order; 0 if there is none."""
    if is_prime(order - 1) and (order - 1) % 4 == 3:
        return order - 1
    half = order // 2 - 1
    return half if order % 2 == 0 and is_prime(half) and half % 4 == 1 else 0


def is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1))


def is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0
