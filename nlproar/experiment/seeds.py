"""One seed per purpose, so that no use of randomness can disturb another."""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str) -> int:
    """A seed in [0, 2**63) for one purpose, e.g. "initialisation", of the run's `seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1
