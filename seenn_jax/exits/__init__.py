"""When to stop: exit scores of cumulative logits, ways to choose a threshold, and the exits.

A *score* says how sure the network is: a function of cumulative logits `[..., K]` on the last axis
only, so that the same function serves all timesteps of cached logits `[N, T, K]` and one tick of
an engine `[B, K]`. Larger is surer, within [0, 1]. A sample leaves at the first timestep whose
score exceeds the threshold, at T at the latest; so threshold 1 never exits. Timesteps count from 1.

One forward pass's logits serve everything here:

    cumulative = accumulate(logits)                          # [N, T, K]
    correct = jnp.argmax(cumulative, -1) == labels[:, None]  # [N, T]
    times = exit_times(confidence(cumulative), 0.9)          # [N]
    accuracy, average = sweep(confidence(cumulative), correct, np.linspace(0, 1, 200))

`criteria` is what an engine asks at each tick, `rules` has the exits by name, `choose` the ways to
choose their value on a validation split.
"""

from seenn_jax.exits.checks import check_finite, check_labels, check_threshold
from seenn_jax.exits.choose import Choice, Chosen, Given, Risk, Target, Tolerance, check_kind
from seenn_jax.exits.criteria import Criterion, above, never, patience, prescribed
from seenn_jax.exits.made import make_exit
from seenn_jax.exits.rules import EXITS, Answers, Exit, Rising
from seenn_jax.exits.scores import SCORES, accumulate, confidence, entropy, logit_scale, margin
from seenn_jax.exits.temperatures import fit_temperatures
from seenn_jax.exits.thresholds import (
    threshold_for_accuracy,
    threshold_for_timesteps,
    threshold_with_guarantee,
)
from seenn_jax.exits.times import (
    aet,
    at_exit,
    average_timesteps,
    exit_shares,
    exit_times,
    exit_totals,
    oracle_aet,
    oracle_exit_times,
    patience_step,
    static_accuracy,
    streaks,
    sweep,
)

__all__ = [
    "EXITS",
    "SCORES",
    "Answers",
    "Choice",
    "Chosen",
    "Criterion",
    "Exit",
    "Given",
    "Rising",
    "Risk",
    "Target",
    "Tolerance",
    "above",
    "accumulate",
    "aet",
    "at_exit",
    "average_timesteps",
    "check_finite",
    "check_kind",
    "check_labels",
    "check_threshold",
    "confidence",
    "entropy",
    "exit_shares",
    "exit_times",
    "exit_totals",
    "fit_temperatures",
    "logit_scale",
    "make_exit",
    "margin",
    "never",
    "oracle_aet",
    "oracle_exit_times",
    "patience",
    "patience_step",
    "prescribed",
    "static_accuracy",
    "streaks",
    "sweep",
    "threshold_for_accuracy",
    "threshold_for_timesteps",
    "threshold_with_guarantee",
]
