import methods_reference as ref
import numpy as np
import pytest

from keras_mla.models import MultiLossFusion


@pytest.mark.parametrize("modalities, presence", [("ab", False), ("abc", True)])
def test_logits_loss_and_gradients(modalities, presence):
    x, y, present = ref.data(modalities, presence)
    widths = {"a": 3, "b": 2, "c": 4}
    model = MultiLossFusion(ref.encoders(modalities, widths), head=3)
    ref.randomize(ref.compiled(model))
    variables = ref.encoder_weights(model)
    for m in modalities:
        variables |= ref.dense_of(f"{m}_head", model.heads[m])

    def logits(p):
        return {
            m: f @ p[f"{m}_head_W"] + p[f"{m}_head_b"]
            for m, f in ref.encode(p, x, modalities).items()
        }

    def fused(z):
        return sum(z[m] * present[:, i, None] for i, m in enumerate(z))

    def objective(p):
        z = logits(p)
        return ref.cross_entropy(fused(z), y, present.any(1)) + sum(
            ref.cross_entropy(z[m], y, present[:, i])
            for i, m in enumerate(modalities)
        )

    p = ref.numpy_of(variables)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), fused(logits(p)), atol=1e-5
    )
    ref.check_step(model, variables, x, y, objective)
