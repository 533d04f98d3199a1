r"""Compiled loops over the oscillators of a few samples: normals, sines and cosines.

numba compiles each function for float32 and for float64 when it is first called, and keeps the result on disk. They
are the same numbers as :mod:`circsde.solvers.philox` and torch give, to rounding. What keeps the loops in vector
registers: each is short, integers have 32 bits, constants have the dtype of the arrays (:class:`Constants`), and
divisions do not raise. No flag is set that would let a compiler assume that there are no NaN.

A *tile* is a run of whole samples whose angles lie next to one another; its loops run over *blocks* of it, so that what
a block needs stays in the first cache. A tile holds one sample of any length, or several short ones.

Source: polynomials for sine, cosine and logarithm from fdlibm (Sun Microsystems 1993) and Cephes (Moshier 1989).
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numpy.typing import DTypeLike, NDArray

from circsde.solvers.philox import MASK, MULTIPLIERS, QUADS, ROUNDS, RUN, SHORT, WEYL

Reals = NDArray[Any]  # one-dimensional, float32 or float64
F = TypeVar("F", bound=Callable[..., Any])

_A, _B = (np.uint64(x) for x in MULTIPLIERS)
_WEYL_LOW, _WEYL_HIGH = (np.uint64(x) for x in WEYL)
_LOW, _SHIFT, _RUN = np.uint64(MASK), np.uint64(32), np.uint64(RUN)
_HALF_TURN = np.int32(1 << 29)  # half a quadrant, where a turn has 2^32 parts
TILE = 1 << 13
"""Oscillators in a tile of short samples."""

_SQRT_HALF = np.int32(0x3F3504F3)  # the bits of sqrt(1/2) in float32


_njit: Any = numba.njit  # it has options that its types do not know


def compiled(*fast: str, called: bool = False) -> Callable[[F], F]:
    """Compile a function with numba, with fused multiply-adds and the given freedoms besides, and without the GIL.

    Set ``called`` for functions that Python calls, too; they take longer to compile.
    """

    def compile(function: F) -> F:
        flags = {"contract", "nsz", "arcp", *fast}
        options = {"no_cpython_wrapper": not called, "no_cfunc_wrapper": True}
        jit: Callable[[F], F] = _njit(
            cache=True, nogil=True, _nrt=False, error_model="numpy", fastmath=flags, **options
        )
        return jit(inspect.unwrap(function))

    return compile


def _apart(context: Any) -> Any:  # noqa: ARG001
    """Keep the calling function from being inlined: merged with others, its loops lose their registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        builder.function.attributes.add("noinline")
        return ir.Constant(ir.IntType(32), 0)

    return numba.int32(), generate


_config: Any = numba.config
apart: Any = (lambda: None) if _config.DISABLE_JIT else intrinsic(inspect.unwrap(_apart))


class Constants(NamedTuple):
    """The numbers that the loops use, all of one dtype."""

    zero: Any
    half: Any
    one: Any
    two: Any
    words: Any  # 2^32
    word: Any  # 2^-32
    near_one: Any  # sqrt(1/2) 2^32
    ln2: Any  # log 2 in two parts, the first with few bits
    log: Any
    sine: Any
    cosine: Any
    quadrant: Any  # pi/2 in 2^30 parts
    per_quadrant: Any
    half_pi: Any  # in three parts, the first two with few bits


@cache
def constants(dtype: DTypeLike) -> Constants:
    """The constants in float32 or float64."""
    real: Any = np.dtype(dtype).type
    if real is np.float32:
        ln2 = (6.9313812256e-01, 9.0580006145e-06)
        log = (0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693)
        sine = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
        cosine = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
        half_pi = (1.5707855224609375, 1.08043340e-5, 6.07709990e-11)
    else:
        ln2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
        log = (  # type: ignore[assignment]
            *(1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01),
            *(2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01),
        )
        sine = (  # type: ignore[assignment]
            *(1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06),
            *(-1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01),
        )
        cosine = (  # type: ignore[assignment]
            *(-1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07),
            *(2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02),
        )
        half_pi = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624871116645580e-21)

    def cast(*numbers: float) -> tuple[Any, ...]:
        return tuple(real(number) for number in numbers)

    numbers: list[Any] = [
        *cast(0.0, 0.5, 1.0, 2.0, 2.0**32, 2.0**-32, 0.5**0.5 * 2.0**32),
        *(cast(*ln2), cast(*log), cast(*sine), cast(*cosine)),
        *cast(0.5 * np.pi * 2.0**-30, 2.0 / np.pi),
        cast(*half_pi),
    ]
    return Constants(*numbers)


def halves(key: int) -> tuple[Any, Any]:
    """The two 32-bit halves of the low 64 bits of a key, as the loops take them."""
    return np.uint64(key & MASK), np.uint64(key >> 32 & MASK)


@compiled()
def _horner(coefficients: Any, x: Any) -> Any:
    y = coefficients[0]
    for i in range(1, len(coefficients)):
        y = y * x + coefficients[i]
    return y


@compiled()
def words(quad: int, sample: Any, step: Any, low: Any, high: Any, w0: Any, w1: Any, w2: Any, w3: Any) -> None:
    """The four words of the quads of a sample from ``quad`` on, each into an array of its own."""
    apart()
    for i in range(len(w0)):
        a, b, c, d = np.uint64(quad + i), step, sample & _LOW, sample >> _SHIFT
        e, f = low, high
        for _ in range(ROUNDS):
            p, q = _A * a, _B * c
            a, b, c, d = (q >> _SHIFT) ^ b ^ e, q & _LOW, (p >> _SHIFT) ^ d ^ f, p & _LOW
            e, f = (e + _WEYL_LOW) & _LOW, (f + _WEYL_HIGH) & _LOW
        w0[i], w1[i], w2[i], w3[i] = np.int32(a), np.int32(b), np.int32(c), np.int32(d)


@compiled(called=True)
def radii(word: Any, out: Reals, k: Any) -> None:
    """``sqrt(-2 log u)`` of ``u = (word + 1) / 2^32``, exact to rounding also where ``u`` is near one."""
    apart()
    for i in range(len(word)):
        out[i] = word[i]
    for i in range(len(word)):
        signed = out[i] + k.one
        u = signed + k.words if signed <= k.zero else signed
        exponent = np.int32(np.int32(np.float32(u).view(np.int32) - _SQRT_HALF) >> np.int32(23))
        scale = np.int32(np.int32(np.int32(127) - exponent) << np.int32(23)).view(np.float32)  # 2^-exponent
        f = signed * k.word if u > k.near_one else u * scale - k.one
        e = np.float32(np.int32(exponent - np.int32(32)))
        s = f / (k.two + f)
        z, half = s * s, k.half * f * f
        y = s * (half + _horner(k.log, z) * z)
        log = e * k.ln2[0] - ((half - (y + e * k.ln2[1])) - f)
        out[i] = np.sqrt(-(log + log))


@compiled()
def turn(word: Any, radius: Reals, along: Reals, across: Reals, k: Any) -> None:
    """``radius`` times the cosine and the sine of ``2 pi word / 2^32``."""
    apart()
    for i in range(len(word)):
        along[i] = np.int32(np.int32(word[i] << np.int32(2)) >> np.int32(2))
    for i in range(len(word)):
        quadrant = np.int32(np.int32(word[i] + _HALF_TURN) >> np.int32(30))
        cos, sin = _in_quadrant(along[i] * k.quadrant, quadrant, k)
        along[i], across[i] = radius[i] * cos, radius[i] * sin


@compiled()
def cos_sin(x: Reals, cos: Reals, sin: Reals, k: Any) -> None:
    """Cosine and sine, to about a rounding up to a thousand turns."""
    apart()
    for i in range(len(x)):
        quadrants = np.rint(x[i] * k.per_quadrant)
        rest = ((x[i] - quadrants * k.half_pi[0]) - quadrants * k.half_pi[1]) - quadrants * k.half_pi[2]
        cos[i], sin[i] = _in_quadrant(rest, np.int32(quadrants), k)


@compiled()
def _in_quadrant(x: Any, quadrant: Any, k: Any) -> Any:
    """Cosine and sine of ``x + quadrant pi/2``, for ``|x| <= pi/4``."""
    z = x * x
    sin = _horner(k.sine, z) * z * x + x
    cos = _horner(k.cosine, z) * z * z - k.half * z + k.one
    odd = np.int32(quadrant & np.int32(1)) != np.int32(0)
    a, b = (sin, cos) if odd else (cos, sin)
    a = -a if np.int32(np.int32(quadrant + np.int32(1)) & np.int32(2)) != np.int32(0) else a
    return a, (-b if np.int32(quadrant & np.int32(2)) != np.int32(0) else b)


class Scratch(NamedTuple):
    """Memory in which the normals of a run are made."""

    words: Any
    radius: Any
    normals: Any


def scratch(dtype: DTypeLike) -> Scratch:
    """Memory for the normals of a run."""
    return Scratch(np.empty(RUN, np.int32), np.empty(QUADS, dtype), np.empty(RUN, dtype))


def rows_in_tile(n: int) -> int:
    """Samples of ``n`` oscillators in a tile: several runs of short ones, a run of longer ones, or one."""
    return TILE // n if n < SHORT else max(1, QUADS // -(-n // 4))


@compiled()
def noise(out: Reals, n: int, first: int, sample: Any, step: Any, low: Any, high: Any, work: Any, k: Any) -> None:
    """Standard normals of a tile, or of the part of one long sample that begins at oscillator ``first``."""
    place: Any = sample * np.uint64(n) if n < SHORT else np.uint64(first)
    done: Any = 0
    while done < len(out):
        begin: Any = np.int64(place % _RUN)
        run: Any = place // _RUN
        rows, number, m = 1, sample, QUADS
        if n < SHORT:  # the samples are numbered through, and their runs stand for them
            length: Any = min(RUN - begin, len(out) - done)
            number, run = run, np.uint64(0)
        elif n < RUN:
            length, m, rows = len(out), (n + 3) // 4, len(out) // n
        else:
            length = min(RUN, n - np.int64(place))
            m = (length + 3) // 4
        _normals(m, np.int64(run) * QUADS, rows, number, step, low, high, work, k)
        if rows == 1:
            copy(work.normals[begin : begin + length], out[done : done + length])
        else:
            _interleave(out, n, m, rows, work.normals)
        place, done = place + np.uint64(length), done + length


@compiled()
def _interleave(out: Reals, n: int, m: int, rows: int, normals: Reals) -> None:
    """Samples of ``n``, one after the other, from quarters that each hold ``m`` of every sample."""
    for row in range(rows):
        for quarter in range((n + m - 1) // m):
            begin, end = row * n + quarter * m, row * n + min(n, (quarter + 1) * m)
            copy(normals[(quarter * rows + row) * m :], out[begin:end])


@compiled()
def _normals(m: int, quad: Any, rows: int, sample: Any, step: Any, low: Any, high: Any, work: Any, k: Any) -> None:
    """The four normals of ``m`` quads of each of some samples, into the four quarters of what they take."""
    quads, w = rows * m, work.words
    for row in range(rows):
        a, b = row * m, (row + 1) * m
        w01, w23 = w[: 2 * quads], w[2 * quads : 4 * quads]
        number = sample + np.uint64(row)
        words(quad, number, step, low, high, w01[a:b], w01[quads:][a:b], w23[a:b], w23[quads:][a:b])
    radius = work.radius[:quads]
    for half in range(0, 4 * quads, 2 * quads):
        a, b = half + quads, half + 2 * quads
        radii(w[half:a], radius, k)
        turn(w[a:b], radius, work.normals[half:a], work.normals[a:b], k)


@compiled()
def copy(x: Any, out: Any) -> None:
    """:func:`put` as a separate function that is not inlined, for long arrays."""
    apart()
    put(x, out)


@compiled()
def put(x: Any, out: Any) -> None:
    """Fill ``out`` from the beginning of ``x``, in another dtype perhaps."""
    for i in range(len(out)):
        out[i] = x[i]


@compiled(called=True)
def fill(
    out: Reals, n: int, rows: int, first: int, last: int, sample: Any, step: Any, low: Any, high: Any, work: Any, k: Any
) -> None:
    """Standard normals of the samples ``first`` to ``last`` of a batch, whose angles lie one after the other."""
    for row in range(first, last, rows):
        noise(out[row * n : min(row + rows, last) * n], n, 0, sample + np.uint64(row), step, low, high, work, k)
