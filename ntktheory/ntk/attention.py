"""Attention layers, differentiated in either direction."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def exact_attention() -> Iterator[None]:
    """Let attention layers be differentiated forwards: no fast path, the MATH kernel only.

    Both settings are restored afterwards, also after an error.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
