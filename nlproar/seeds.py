"""One seed for each purpose, so that no use of randomness can disturb another."""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str) -> int:
    """Return a seed in [0, 2**63) for one purpose, such as "initialisation", of the seed of a run."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
