"""Random numbers of an observation, which depend on the seed and on nothing else in its batch."""

from __future__ import annotations

import numpy as np


def generator(seed: int, observation: int, sample: int = 0) -> np.random.Generator:
    """Return the generator of a sample of one observation, by its number in the data set.

    Take the draws in the order of the tokens: then those of the text are the same whatever padding follows.
    """
    return np.random.Generator(np.random.Philox(key=[seed, observation], counter=[0, 0, 0, sample]))
