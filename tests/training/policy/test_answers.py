"""What a policy learns from: always the same copies, and what the network says of them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seenn_jax.exits import accumulate
from seenn_jax.run import folder
from seenn_jax.run.checkpoints import load_model
from seenn_jax.training.policy import answers
from tests.models.networks import logits_of


def test_a_copy_is_the_same_image_whatever_the_batch(made, dataset):
    *_, config, facts = made
    images = jnp.asarray(dataset.train.images[:40])
    index = jnp.arange(40)

    @jax.jit
    def view(images, index, copy):
        key = jax.random.key(config.seed)
        return answers.view(images, index, copy, key, config, facts)

    whole = view(images, index, 1)
    some = jnp.array([31, 7, 12])
    np.testing.assert_array_equal(view(images[some], index[some], 1), whole[some])
    assert not np.array_equal(view(images, index, 0), whole)
    # Two images that are the same pixels are augmented each in its own way.
    same = view(images[:1].repeat(8, 0), index[:8], 0)
    assert len({np.asarray(image).tobytes() for image in same}) > 1


def test_answers_are_those_of_the_network_on_each_copy(made, dataset, trained):
    graphs, state, _, config, facts = made
    split = dataset.train._replace(
        images=dataset.train.images[:100], labels=dataset.train.labels[:100]
    )
    frozen = nnx.merge(graphs.network, state.params, state.stats)
    correct, classes = answers.network_answers(frozen, config, facts, split)
    assert correct.shape == (100, 2, 2)  # copies, candidates
    assert classes.shape == (100, 2, 10)
    model, _ = load_model(trained, *folder.load(trained))

    @jax.jit
    def view(images, index, copy):
        return answers.view(images, index, copy, jax.random.key(config.seed), config, facts)

    for copy in range(2):
        inputs = view(jnp.asarray(split.images), jnp.arange(100), copy)
        cumulative = accumulate(logits_of(model, inputs, 3))
        expected = np.asarray(cumulative.argmax(-1)) == split.labels[:, None]
        # Two programs: the order of their sums may turn a spike.
        assert (correct[:, copy] == expected[:, [0, 2]]).mean() > 0.99
        differ = np.abs(classes[:, copy] - jax.nn.softmax(cumulative[:, 0])).max(-1)
        assert (differ < 1e-3).mean() > 0.95
    assert 0.2 < correct.mean() < 1
    assert not np.array_equal(correct[:, 0], correct[:, 1])
