r"""Independent streams of random numbers, one for every purpose.

Every draw of the package comes from a stream that is named by a tuple ``(seed, purpose, *place)``: the user's seed,
what the numbers are for, and where they belong (a sample, the kind of noise, the rank of a process). The
key of a stream is the 128-bit BLAKE2b hash of that tuple written as text, so that different tuples have different
keys, whatever integers they are made of: neighbouring seeds, negative ones and those beyond 64 bits alike. No stream
is the one that ``torch.manual_seed`` or ``numpy.random.seed`` starts, so that data drawn there are independent of it.

Source: Saarinen and Aumasson 2015, RFC 7693 (BLAKE2); for streams from hashed keys, Salmon et al. 2011,
doi:10.1145/2063384.2063405.
"""

import hashlib
import operator
from typing import Literal, SupportsIndex

import numpy as np
import torch

Purpose = Literal[
    "ancestral",  # the noise of the standard model's samplers; place: sample
    "backward",  # the noise of samples on their way back to data
    "brownian",  # the Brownian paths of sdeint; place: kind (along the path, its area)
    "calibration",  # the states that the discounts of a chain are found from
    "checks",  # where an equation is tried before it is used
    "data",  # generated data, and how files are sampled
    "dequantisation",  # the noise that makes grey levels continuous; place: first image
    "diagnosis",  # everything that a diagnosis of angles draws
    "ergodic average",  # starts and paths of averages over time
    "expectation",  # starts and paths of an expectation; place: level (and first path, for starts)
    "frequencies",  # natural frequencies that are drawn from a law
    "forward",  # the noise of data on their way to the horizon
    "held-out pairs",  # the pairs of a validation
    "linear part",  # the samples that the linear part of a score is measured on
    "pairs",  # training pairs; place: rank of the process
    "pilot",  # the noise by which a grid of steps is chosen
    "probes",  # directions of Hutchinson's estimator; place: node of the quadrature
    "resampling",  # bootstraps, permutations and samples to compare with
    "samples",  # everything that samples of angles draw
    "split",  # which rows or groups are held out
    "starts",  # where paths begin; place: first path, or block of samples
    "timed",  # the paths of timed solves; place: repetition
    "tree",  # Brownian paths that are known at any time; place: kind (along the path, its area)
    "update",  # hidden labels and dropout of one update; place: update, rank
    "verification",  # the points at which a density is integrated, and choices of rows
    "weights",  # the first weights of a network
    "windows",  # where images are cut for evaluation
]
"""The purposes of random numbers. One purpose never reads the stream of another."""


def key(seed: SupportsIndex, purpose: Purpose, *place: int) -> int:
    """The 128-bit key of a stream, different for every tuple ``(seed, purpose, *place)`` of integers of any size.

    >>> key(0, "starts") == key(0, "brownian"), key(1, "starts") == key(1 + 2**64, "starts")
    (False, False)
    """
    name = repr((operator.index(seed), str(purpose), *(operator.index(number) for number in place)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")


def numpy_stream(seed: SupportsIndex, purpose: Purpose, *place: int) -> np.random.Generator:
    """The stream as a numpy generator (SFC64).

    >>> numpy_stream(0, "starts").random() == numpy_stream(0, "starts").random()
    True
    """
    return np.random.Generator(np.random.SFC64(key(seed, purpose, *place)))


def torch_stream(
    seed: SupportsIndex, purpose: Purpose, *place: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The stream as a torch generator on a device.

    ``torch.Generator.manual_seed`` keeps 32 bits of a seed on a CPU, too few for keys that must not meet; so the whole
    state of its Mersenne twister is drawn from the key there. On other devices the key's low 64 bits are the seed.

    >>> a, b = torch_stream(0, "starts"), torch_stream(0, "starts")
    >>> bool(torch.rand((), generator=a) == torch.rand((), generator=b))
    True
    """
    generator = torch.Generator(device)
    number = key(seed, purpose, *place)
    generator.manual_seed(number % 2**63)
    if generator.device.type == "cpu":
        words = np.random.SeedSequence(number).generate_state(_STATE.stop - _STATE.start)
        state = generator.get_state()
        state.view(torch.int64)[_STATE] = torch.from_numpy(words.astype(np.int64))
        generator.set_state(state)
    return generator


def seed_torch(seed: SupportsIndex, purpose: Purpose, *place: int) -> None:
    """Let torch's global generators draw the stream from here on, for layers that take no generator."""
    torch.manual_seed(key(seed, purpose, *place) % 2**63)
    torch.set_rng_state(torch_stream(seed, purpose, *place).get_state())


_STATE = slice(3, 627)  # the 624 words of the twister among the 64-bit words of torch's CPU state
