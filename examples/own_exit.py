"""An exit criterion with a state: confident at two ticks in a row.

python evaluate.py --workdir=runs/digits_steady --exit=steady

for a run that was trained with --config.plugins="('examples/own_exit.py',)".
"""

import jax.numpy as jnp
import numpy as np

from seenn_jax import EXITS, Criterion, Rising, confidence


class Steady(Rising):
    """Exits where the confidence of this tick and of the one before exceed the threshold."""

    name = "steady"

    def signal(self, answers):
        """[N, T] from cached logits: what must exceed the threshold."""
        now = np.asarray(confidence(answers.cumulative))
        before = np.concatenate([np.zeros_like(now[:, :1]), now[:, :-1]], axis=1)
        return np.minimum(now, before)

    def criterion(self, value, params, images):
        """The same tick by tick: each slot remembers the confidence of the tick before."""

        def decide(before, cumulative, t, index):
            now = confidence(cumulative)
            return now, jnp.minimum(now, before) > value

        return Criterion(jnp.float32(0), decide)


EXITS["steady"] = lambda run: Steady()
