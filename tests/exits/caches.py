"""Cached logits, drawn at random."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

PROPERTY = settings(deadline=None, max_examples=25)
# Few shapes, since each compiles anew: N, T, K.
SHAPES = [(1, 1, 2), (7, 5, 3), (40, 4, 10)]


@st.composite
def cached(draw):
    """Logits [N, T, K] and labels [N]; few distinct values, so that ties abound."""
    n, steps, classes = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.integers(-2, 3, (n, steps, classes)) * draw(st.sampled_from([0.5, 10.0]))
    return logits.astype(np.float32), rng.integers(0, classes, n)
