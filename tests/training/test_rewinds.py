"""Going back where a loss is not finite, of streamed data too: the latest state, another order."""

import io
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from seenn_jax.config import default_config
from seenn_jax.data import Dataset
from seenn_jax.errors import UserError
from seenn_jax.run import checkpoints
from seenn_jax.training.feed import host_batches
from seenn_jax.training.loop import Task, Validation, run_task
from tests.data.listed import Listed, stream
from tests.training.runs import metrics_of

EPOCH, EPOCHS = 3, 2  # steps of 2 images


class Seen(NamedTuple):
    """A state: what training has added up."""

    step: Any
    labels: Any  # a digit for each image


@pytest.fixture
def run(encoded, tmp_path):
    """`(first loss of epoch 2, by try; rewinds) -> (what it says, tasks)`, of labels alone."""
    split = stream(Listed([encoded(np.full((8, 8, 3), i, np.uint8), "PNG") for i in range(6)]))

    def call(bad, rewinds):
        config, tasks, console = default_config(), [], Console(file=io.StringIO(), width=200)
        config.update(batch_size=2, epochs=EPOCHS, rewinds=rewinds)
        config.data.workers = 0

        def make_task(state, seeded):
            batches = host_batches(state, split, seeded)
            tasks.append({"seed": seeded.seed, "from": int(state.step), "open": True, "order": []})

            def train(state):
                labels = next(batches)[1]
                tasks[-1]["order"] += labels.tolist()
                one_of_them = state.step == EPOCH and len(tasks) <= len(bad)
                loss = bad[len(tasks) - 1] if one_of_them else 1.0
                state = Seen(state.step + 1, 100 * state.labels + 10 * labels[0] + labels[1])
                return state, {"loss": loss, "accuracy": 0.5, "gradient_norm": 1.0}, 1

            def close():
                batches.close()
                tasks[-1]["open"] = False

            return state, Task(
                lambda epoch: train,
                lambda state: Validation(0.5, {}, "half"),
                lambda step: jnp.float32(0.1),
                lambda epoch: {},
                [EPOCH] * EPOCHS,
                close,
            )

        data = Dataset("listed", split, split, split, 6)
        state = Seen(jnp.int32(0), jnp.float32(0))
        run_task(config, tmp_path, console, "labels", data, state, make_task, 0.0)
        return console.file.getvalue(), tasks

    return call


def test_back_to_the_latest_state_in_another_order(run, tmp_path):
    said, tasks = run([np.nan, np.inf], rewinds=2)
    assert "the loss became inf by step 5: back to step 3" in said
    assert "(rewind 2 of at most 2)" in said
    assert [task["from"] for task in tasks] == [0, EPOCH, EPOCH]
    assert len({task["seed"] for task in tasks}) == 3
    assert not any(task["open"] for task in tasks)
    state, beside = checkpoints.resumed(tmp_path, 2 * EPOCH, Seen(jnp.int32(0), jnp.float32(0)))
    assert beside == {"rewinds": 2}
    # What was seen before the first rewind, and after the last one: nothing between.
    digits = [*tasks[0]["order"][: 2 * EPOCH], *tasks[2]["order"]]
    assert state.labels == pytest.approx(sum(d * 10**i for i, d in enumerate(digits[::-1])), 1e-6)
    assert tasks[1]["order"] != tasks[2]["order"][: len(tasks[1]["order"])]
    assert [line["epoch"] for line in metrics_of(tmp_path)] == [1, 2]


def test_no_more_often_than_allowed(run, tmp_path):
    with pytest.raises(
        UserError, match=r"the loss became nan by step 5 .*`config\.rewinds` \(now 1"
    ):
        run([np.nan, np.nan], rewinds=1)
    said, tasks = run([], rewinds=1)
    assert "Continuing" in said
    assert [task["from"] for task in tasks] == [EPOCH]
