"""The GPU's benchmark, in tiny sizes on the CPU."""

import re

from utils import ROOT, in_process, long, only_on


def run(*arguments, code=0):
    # A machine with a GPU may well have no TensorFlow.
    script = ROOT / "benchmarks" / "gpu.py"
    result = in_process(script, *arguments, more={"CUDA_VISIBLE_DEVICES": ""})
    assert result.returncode == code, result.stdout + result.stderr[-3000:]
    return result.stdout


def transformer_products(tokens, width=32, depth=2, heads=4):
    """Shapes (m, k, n) of all products of matrices in a forward pass."""
    block = [
        (tokens, width, 3 * width),  # Queries, keys and values.
        *[(tokens, width // heads, tokens)] * heads,  # Scores.
        *[(tokens, tokens, width // heads)] * heads,  # Sums of values.
        (tokens, width, width),
        (tokens, width, 4 * width),
        (tokens, 4 * width, width),
    ]
    return depth * block


def operations(products):
    return sum(2 * m * k * n for m, k, n in products)


# On JAX only the way to the compiled step differs, which `step` takes.
@only_on("jax")
def test_a_step_is_timed_on_jax():
    printed = run("--small", "--parts=step", "--repeats=2")
    assert re.search(r"  MLA +[\d.]+ ms/step +[\d.]+ examples/s\n", printed)
    for other in ("without projection", "by hand"):
        assert re.search(
            rf"MLA / {other}: [\d.]+ \([\d.]+ to [\d.]+\)", printed
        )


@only_on("torch")
@long()
def test_all_parts_run_and_count_their_operations():
    # The bound is exceeded; the parts after it run all the same.
    printed = run(
        "--small",
        "--repeats=1",
        "--peak_tflops=2e-3",
        "--bound=1e-12",
        code=1,
    )
    assert "NOT within 1e-12." in printed
    differences = re.findall(r" \d\.\de[+-]\d\d\b", printed)
    assert len(differences) == 11 * 4
    assert max(map(float, differences)) < 1e-4
    assert "MLA / by hand" in printed
    assert printed.count("MLA / without projection") == 4
    # Four samples: four patches of 16 x 16 x 3 and eight words, with a class
    # token each. Pixels have no gradient; all else has two more products.
    forward = operations(transformer_products(5) + transformer_products(9))
    patches = operations([(4, 16 * 16 * 3, 32)])
    count = 4 * (3 * forward + 2 * patches)
    assert f"{count:,} operations" in printed
    milliseconds, rate, share = re.search(
        r"  MLA +([\d.]+) ms/step .* ([\d.e-]+) TFLOP/s, ([\d.]+)% of 0.002",
        printed,
    ).groups()
    expected = count / (float(milliseconds) / 1e3) / 1e12
    assert abs(float(rate) / expected - 1) < 0.01
    assert abs(float(share) - 100 * expected / 2e-3) < 0.1
