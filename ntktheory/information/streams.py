"""Random streams that have nothing to do with each other, named by what they are for."""

import hashlib

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return a generator for one purpose of a seed.

    One seed draws data, initial weights, what a scorer draws, noise …. With generators of the same seed
    these would be the same numbers: a "random" mask would be a function of the data.

    Args:
        seed: The seed.
        purpose: What the numbers are for.

    Returns:
        A generator on the CPU, seeded by a hash of both.

    Example:
        >>> a, b = (torch.rand(1, generator=stream(0, use)) for use in ("data", "scorer"))
        >>> bool(a == b)
        False
    """
    digest = hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
