"""Times a training step on a GPU, and checks its numbers against the CPU's.

`--parts` chooses among five parts:

- `checks`: three steps of MLA, its fusion, and P after many updates, in float32
  on the accelerator and on the CPU, and in NumPy in float64
  (`tests/reference/mla_reference.py`). The exit status is 1 if two of them
  differ by more than `--bound`.
- `step`: MLA with encoders of one Dense layer, against MLA without projection
  and against the loop by hand (`handwritten`).
- `m3ae`: MLA with two M3AE encoders in bfloat16, against MLA without
  projection. The ratio is what the projection costs. The fraction of the card's
  peak counts the products of matrices in a step.
- `projection`: a step on cached features, 256 to 4,096 wide, with 100 and with
  10,000 classes, against MLA without projection; and the memory of both.
- `micro`: a step with a batch in 1, 4 and 16 parts (`micro_batches`), with
  encoders of eight Dense layers, its time and its memory.

If a part fails, it says why, the next parts run, and the exit status is 1.

    python benchmarks/gpu.py
    KERAS_BACKEND=torch python benchmarks/gpu.py --parts=m3ae

Without `KERAS_BACKEND`, JAX and PyTorch run one after the other, if installed.
`--small` tries the script on a CPU, in tiny sizes whose times mean nothing.
"""

import contextlib
import gc
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import traceback

if __name__ == "__main__" and "KERAS_BACKEND" not in os.environ:
    # Before Keras is imported: it would choose TensorFlow.
    statuses = [
        subprocess.call(
            [sys.executable, *sys.argv],
            env={**os.environ, "KERAS_BACKEND": backend},
        )
        for backend in ("jax", "torch")
        if importlib.util.find_spec(backend)
    ]
    sys.exit(int(any(statuses) or not statuses))

import keras
import numpy as np
from absl import app, flags
from keras import ops

import keras_mla

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "parts",
    ["checks", "step", "m3ae", "projection", "micro"],
    "Parts, in this order.",
)
flags.DEFINE_boolean("small", False, "Tiny sizes, to try the script on a CPU.")
flags.DEFINE_integer("batch_size", 64, "Samples in a batch.", lower_bound=1)
flags.DEFINE_integer("text_length", 64, "Words of M3AE's texts.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Timed turns.", lower_bound=1)
flags.DEFINE_float("peak_tflops", None, "The card's peak in bfloat16.")
flags.DEFINE_float("bound", 1e-4, "Largest difference that `checks` accepts.")
flags.DEFINE_string("save_numbers", None, "For the use of `checks` alone.")
flags.DEFINE_boolean("jit_compile", False, "Compile steps on PyTorch too.")
flags.DEFINE_integer(
    "compile_seconds",
    150,
    "On PyTorch, a run with --jit_compile follows and takes at most so many "
    "seconds; 0 for none.",
)

BACKEND = keras.backend.backend()
if BACKEND not in ("jax", "torch"):
    sys.exit(f"KERAS_BACKEND must be jax or torch. Received: {BACKEND}")
FRAMEWORK = importlib.import_module(BACKEND)
CLASSES = 31
MODALITIES = ("audio", "video")
# TFLOP/s of dense products in bfloat16, from NVIDIA's data sheets (some sheets
# print the numbers of sparse products, twice as many). The first match counts.
PEAKS = {
    "H200 NVL": 835,
    "H200": 989,
    "GH200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
}


def device_name():
    """Returns the name of the device that Keras computes on."""
    if BACKEND == "jax":
        return FRAMEWORK.devices()[0].device_kind
    cuda = FRAMEWORK.cuda
    return cuda.get_device_name() if cuda.is_available() else "cpu"


def peak_tflops():
    """Returns the card's peak, or `None` if it is unknown."""
    known = (
        p for n, p in PEAKS.items() if re.search(rf"\b{n}\b", device_name())
    )
    return FLAGS.peak_tflops or next(known, None)


def encoder_flops(tokens, width, depth, mlp_ratio=4, patches=0, patch_values=0):
    """Counts the operations of a transformer's training step on one sample.

    The product of an (m, k) and a (k, n) matrix counts 2 m k n. In a block,
    tokens are multiplied by 4 width² weights around attention and by
    2 mlp_ratio width² in the perceptron, and attention has two products, the
    scores and the sums. The backward pass takes two products for each product;
    for the projection of patches one, since pixels have no gradient.

    It leaves out all that is not a product of matrices (norms, softmax, GELU,
    lookup of words, loss, metrics, optimizer), and what comes after the mean
    over the tokens (head, P).
    """
    weights = (4 + 2 * mlp_ratio) * width**2
    block = 2 * weights * tokens + 2 * 2 * tokens**2 * width
    return 3 * depth * block + 2 * 2 * patches * patch_values * width


def compiled(model, optimizer, **settings):
    """Compiles a model as all models here; returns it."""
    model.compile(
        **settings,
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=FLAGS.jit_compile or "auto",
    )
    return model


def tensors(arrays):
    """Converts a structure of arrays to tensors on the device."""
    return keras.tree.map_structure(ops.convert_to_tensor, arrays)


def stepper(model, x, y):
    """Returns a function that trains a batch and returns the unfetched loss.

    It calls the train function that `fit` calls, with tensors that are on the
    device. `fit` would also read data and run callbacks; `train_on_batch` would
    wait for each step's loss.
    """
    x, y = tensors((x, y))
    model.train_on_batch(x, y)  # Makes the weights and the train function.
    data = (x, y, None)
    if BACKEND == "torch":
        return lambda: model.train_function([data])["loss"]
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([v.value for v in group] for group in groups)

    def step():
        nonlocal state
        logs, state = model.train_function(state, iter([data]))
        return logs["loss"]

    return step


def stepper_by_hand(x, y, width):
    """Returns such a function for the loop by hand."""
    sys.path.append(str(pathlib.Path(__file__).parent))
    module = importlib.import_module(f"handwritten.{BACKEND}")
    x, y = tensors((x, y))
    on_torch = BACKEND == "torch"
    with FRAMEWORK.device(y.device) if on_torch else contextlib.nullcontext():
        encoders = {name: module.mlp(width, width, 0) for name in MODALITIES}
        loop = module.Loop(encoders, width, CLASSES)
    loop.sums = {name: ops.zeros(2) for name in MODALITIES}
    loop.sums["fused"] = ops.zeros(())
    labels = y.long() if on_torch else y

    def step():
        if on_torch:
            loop.step(x, labels)
        else:
            loop.state, loop.sums = loop.step(loop.state, loop.sums, x, labels)
        return loop.sums["fused"]

    return step


def measure(steppers, steps, batch_size, flops=None):
    """Times steppers in turn; prints medians, and ratios within a turn."""
    seconds = {name: [] for name in steppers}
    for turn in range(FLAGS.repeats + 1):
        for name, step in steppers.items():
            start = time.perf_counter()
            for _ in range(steps):
                loss = step()
            # Devices work in order: the last loss comes after all steps.
            float(loss)
            if turn:  # The first turn warms up.
                taken = time.perf_counter() - start
                seconds[name].append(taken / steps)
    print(f"Median of {FLAGS.repeats} turns of {steps} steps, on one batch.")
    peak = peak_tflops()
    for name, times in seconds.items():
        median = np.median(times)
        line = f"  {name:20s}{1e3 * median:9.3f} ms/step"
        line += f"{batch_size / median:10.1f} examples/s"
        if flops:
            rate = flops / median / 1e12
            line += f"{rate:10.3g} TFLOP/s, "
            line += f"{rate / peak:.1%} of {peak}" if peak else "peak unknown"
        print(line)
    first, *others = seconds
    for other in others:
        ratios = np.divide(seconds[first], seconds[other])
        print(
            f"  {first} / {other}: {np.median(ratios):.3f} "
            f"({ratios.min():.3f} to {ratios.max():.3f})"
        )


def m3ae():
    """Times MLA with M3AE encoders."""
    sizes = dict(width=768, depth=12, num_heads=12)
    side, patch, words, length = 256, 16, 30522, FLAGS.text_length
    batch, steps, classes = FLAGS.batch_size, 10, 101
    if FLAGS.small:
        sizes = dict(width=32, depth=2, num_heads=4)
        side, patch, words, length, batch, steps = 32, 16, 100, 8, 4, 2
    rng = np.random.default_rng(0)
    x = {
        "image": rng.random((batch, side, side, 3), "float32"),
        "text": rng.integers(0, words, (batch, length)).astype("int32"),
    }
    y = rng.integers(0, classes, batch).astype("int32")

    def make(projector):
        image = keras_mla.encoders.M3AE(
            "image", image_shape=(side, side, 3), patch_size=patch, **sizes
        )
        text = keras_mla.encoders.M3AE(
            "text", vocabulary_size=words, max_length=length, **sizes
        )
        encoders = {"image": image, "text": text}
        model = keras_mla.MLA(encoders, classes, projector=projector)
        return stepper(compiled(model, keras.optimizers.AdamW(1e-4)), x, y)

    width, depth, patches = sizes["width"], sizes["depth"], (side // patch) ** 2
    flops = batch * (
        encoder_flops(patches + 1, width, depth, 4, patches, 3 * patch**2)
        + encoder_flops(length + 1, width, depth)
    )
    print(
        f"M3AE, {width} wide, {depth} deep, {sizes['num_heads']} heads, on "
        f"{patches} patches and {length} words without padding; "
        f"mixed_bfloat16, AdamW, batch {batch}. A step is the forward pass, "
        "the backward pass and the update of both modalities: "
        f"{flops:,} operations in products of matrices."
    )
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        steppers = {"MLA": make("auto")}
        if not FLAGS.jit_compile:  # Compiling one model takes long enough.
            steppers["without projection"] = make(None)
        measure(steppers, steps, batch, flops)
    finally:
        keras.config.set_dtype_policy("float32")


def dense_mla(width, projector="auto"):
    """Returns a compiled MLA model of encoders of one Dense layer."""
    encoders = {
        name: keras.Sequential(
            [keras.Input((width,)), keras.layers.Dense(width, "relu")]
        )
        for name in MODALITIES
    }
    model = keras_mla.MLA(encoders, CLASSES, projector=projector)
    return compiled(model, keras.optimizers.SGD(0.01, momentum=0.9))


def dense_batch(rng, samples, width):
    """Returns inputs and labels of a batch."""
    size = (samples, width)
    x = {name: rng.standard_normal(size, "float32") for name in MODALITIES}
    return x, rng.integers(0, CLASSES, samples).astype("int32")


def step():
    """Times MLA with encoders of one Dense layer."""
    width, batch, steps = 512, FLAGS.batch_size, 200
    if FLAGS.small:
        width, batch, steps = 16, 8, 2
    print(
        f"One Dense of {width} per encoder, SGD with momentum, batch {batch}, "
        "float32 as the backend multiplies it (on a GPU, JAX takes TF32). By "
        f"hand: {'compiled' if BACKEND == 'jax' else 'eager'}."
    )
    x, y = dense_batch(np.random.default_rng(0), batch, width)
    steppers = {
        "MLA": stepper(dense_mla(width), x, y),
        "without projection": stepper(dense_mla(width, None), x, y),
        "by hand": stepper_by_hand(x, y, width),
    }
    measure(steppers, steps, batch)


def peak_memory(make):
    """Returns a stepper, and the largest memory of its steps in MB."""
    gc.collect()
    on_gpu = BACKEND == "torch" and FRAMEWORK.cuda.is_available()
    if on_gpu:
        FRAMEWORK.cuda.empty_cache()
        FRAMEWORK.cuda.reset_peak_memory_stats()
    before = allocated()
    step = make()
    for _ in range(2):
        float(step())
    if on_gpu:
        return step, FRAMEWORK.cuda.max_memory_allocated() / 1e6
    # JAX keeps the largest of the process; that of a later part hides an
    # earlier one's, so smaller parts come first.
    return step, max(allocated("peak_bytes_in_use") - before, 0)


def allocated(what="bytes_in_use"):
    """Returns megabytes on JAX's device; 0 where they are not known."""
    if BACKEND != "jax":
        return 0
    return (FRAMEWORK.devices()[0].memory_stats() or {}).get(what, 0) / 1e6


def projection():
    """Times MLA on cached features, with and without P."""
    batch, steps = FLAGS.batch_size, 50
    cases = [(256, 100), (1024, 100), (1024, 10_000), (4096, 100)]
    if FLAGS.small:
        batch, steps, cases = 8, 2, [(16, 4), (16, 40)]
    rng = np.random.default_rng(0)
    for width, classes in cases:
        x, _ = dense_batch(rng, batch, width)
        y = rng.integers(0, classes, batch).astype("int32")

        def make(projector, width=width, classes=classes, x=x, y=y):
            encoders = {
                name: keras.Sequential(
                    [keras.Input((width,)), keras.layers.Identity()]
                )
                for name in MODALITIES
            }
            model = keras_mla.MLA(encoders, classes, projector=projector)
            return stepper(compiled(model, keras.optimizers.SGD(0.01)), x, y)

        print(f"\n{width} features, {classes} classes, batch {batch}.")
        plain, without = peak_memory(lambda make=make: make(None))
        whole, with_p = peak_memory(lambda make=make: make("auto"))
        measure({"MLA": whole, "without projection": plain}, steps, batch)
        print(
            f"  P: {4 * width**2 / 1e6:.1f} MB. Peak memory: {with_p:.0f} MB, "
            f"without projection {without:.0f} MB (0: unknown)."
        )


def micro():
    """Times MLA on a batch in parts."""
    width, batch, steps = 2048, 16 * FLAGS.batch_size, 10
    if FLAGS.small:
        width, batch, steps = 16, 32, 2
    x, y = dense_batch(np.random.default_rng(0), batch, width)
    print(f"Eight Dense of {width} per encoder, batch {batch}.")
    steppers, memory = {}, {}
    for number in (16, 4, 1):

        def make(number=number):
            layers = [keras.layers.Dense(width, "relu") for _ in range(16)]
            encoders = {
                name: keras.Sequential([keras.Input((width,)), *layers[i::2]])
                for i, name in enumerate(MODALITIES)
            }
            model = keras_mla.MLA(encoders, CLASSES)
            sgd = keras.optimizers.SGD(0.01)
            return stepper(compiled(model, sgd, micro_batches=number), x, y)

        name = f"{number} parts"
        steppers[name], memory[name] = peak_memory(make)
    measure(steppers, steps, batch)
    for name, megabytes in memory.items():
        print(f"  {name}: peak memory {megabytes:.0f} MB (0: unknown).")


def flat(values):
    """Returns all numbers of a sequence of tensors, in float64."""
    arrays = [ops.convert_to_numpy(value).ravel() for value in values]
    return np.concatenate(arrays).astype("float64")


def by_keras(batches, start, logits, presence):
    """Returns the numbers of a trained model and of a fusion."""
    model = dense_mla(len(start["head", "w"]))
    layers = {name: e.layers[0] for name, e in model.encoders.items()}
    layers["head"] = model.head
    variables = {(name, "w"): layer.kernel for name, layer in layers.items()}
    variables |= {(name, "b"): layer.bias for name, layer in layers.items()}
    for key, variable in variables.items():
        variable.assign(start[key])
    logs = [
        model.train_on_batch(*tensors(batch), return_dict=True)
        for batch in batches
    ]
    logits, presence = tensors((logits, presence))
    fusion = keras_mla.layers.EntropyFusion()
    return {
        "losses": flat([log[f"{n}_loss"]] for log in logs for n in MODALITIES),
        "weights": flat(variables[key] for key in sorted(variables)),
        "P": flat([model.projectors[0].P]),
        "fused logits": flat([fusion(logits, presence)]),
        "fusion weights": flat([fusion.weights_of(logits, presence)]),
    }


def project(features):
    """Returns P after one step of a projector for each feature."""
    features = tensors(features)
    gradient = ops.ones((features.shape[1], CLASSES))
    projector = keras_mla.layers.GradientProjector()
    projector.build(gradient.shape)
    state = [v.value for v in projector.non_trainable_variables]  # P first.
    if BACKEND == "jax":
        step = FRAMEWORK.jit(projector.stateless_call)
    for feature in features:
        if BACKEND == "jax":
            _, state = step([], state, gradient, feature)
        else:
            projector(gradient, feature)
    return flat(state[:1])


def by_reference(batches, start, logits, presence):
    """Returns what `by_keras` returns, from the tests' reference in float64."""
    import mla_reference

    sgd = mla_reference.SGD(0.01, momentum=0.9)
    model = mla_reference.ReferenceMLA(MODALITIES, start, sgd)
    logs = [model.train(x, y, x.get("presence")) for x, y in batches]
    fused, weights = mla_reference.entropy_fusion(logits, presence)
    return {
        "losses": flat([log[n]] for log in logs for n in MODALITIES),
        "weights": flat(model.w[key] for key in sorted(model.w)),
        "P": flat([model.P]),
        "fused logits": flat([fused]),
        "fusion weights": flat([weights]),
    }


def project_by_reference(features):
    """Returns P from its closed form, which omits the first step."""
    import mla_reference

    return flat([mla_reference.closed_form(features[1:], alpha=1.0)])


def numbers(train, project):
    """Returns the results of two of the functions above, by name."""
    samples, width, many, wide = 64, 256, 2000, 768
    if FLAGS.small:
        samples, width, many, wide = 8, 16, 20, 16
    rng = np.random.default_rng(0)
    shapes = dict.fromkeys(MODALITIES, (width, width))
    start = {}
    for name, shape in {**shapes, "head": (width, CLASSES)}.items():
        scale = (2 / width) ** 0.5
        start[name, "w"] = scale * rng.standard_normal(shape, "float32")
        start[name, "b"] = rng.standard_normal(shape[1], "float32") / 10
    logits = 3 * rng.standard_normal((samples, 2, CLASSES), "float32")
    batches = [dense_batch(rng, samples, width) for _ in range(3)]
    presence = rng.random((3, samples, 2)) < 0.7
    presence[:, 0] = False  # A sample without any modality,
    presence[1, :, 1] = False  # and a batch without the second one.
    missing = []
    for present, (x, y) in zip(presence, batches, strict=True):
        x = {
            name: np.where(present[:, [m]], x[name], np.float32("nan"))
            for m, name in enumerate(MODALITIES)
        }
        missing.append(({**x, "presence": present}, y))
    everything = np.ones((samples, 2), bool)
    found = train(batches, start, logits, everything)
    found_missing = train(missing, start, logits, presence[0])
    found |= {f"{k}, some missing": v for k, v in found_missing.items()}
    # Like two modalities: two directions, which P closes more and more.
    features = np.abs(rng.standard_normal((2, wide), "float32"))
    noise = rng.standard_normal((many, wide), "float32") / 10
    features = np.resize(features, (many, wide)) * (1 + noise)
    return found | {f"P after {many} updates": project(features)}


def in_full_precision():
    """Returns the numbers of Keras, with float32 multiplied as float32."""
    if BACKEND == "jax":
        with FRAMEWORK.default_matmul_precision("highest"):
            return numbers(by_keras, project)
    FRAMEWORK.set_float32_matmul_precision("highest")
    return numbers(by_keras, project)


def on_cpu():
    """Returns the numbers of a process that sees no accelerator."""
    hidden = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "cpu.npz")
        command = [sys.executable, *sys.argv, f"--save_numbers={path}"]
        subprocess.run(command, env={**os.environ, **hidden}, check=True)
        return dict(np.load(path))


def checks():
    """Prints largest differences; returns whether one exceeds the bound."""
    usual, here = numbers(by_keras, project), in_full_precision()
    there = on_cpu()
    pairs = {"device - CPU": (here, there)}
    sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests/reference"))
    try:
        exact = numbers(by_reference, project_by_reference)
    except ImportError:
        print("No NumPy column: tests/reference/mla_reference.py is missing.")
    else:
        pairs |= {
            "device - NumPy": (here, exact),
            "CPU - NumPy": (there, exact),
        }
    print(
        "Largest absolute differences after three steps, in float32, "
        "multiplied in full precision. In the last column, to which the bound "
        "does not apply, the device multiplies float32 as the backend does by "
        "default."
    )
    columns = [*pairs, "default - CPU"]
    print(" " * 30 + "".join(f"{name:>16s}" for name in columns))
    worst = 0.0
    for what in here:
        found = [
            np.abs(first[what] - second[what]).max()
            for first, second in [*pairs.values(), (usual, there)]
        ]
        print(f"  {what:28s}" + "".join(f"{number:16.1e}" for number in found))
        worst = np.max([worst, *found[:-1]])  # NaN if one is NaN.
    within = bool(worst <= FLAGS.bound)
    print(f"{'Within' if within else 'NOT within'} {FLAGS.bound:g}.")
    return not within


def run_compiled(parts):
    """Repeats the timings on PyTorch, compiled: this may fail or hang."""
    gc.collect()
    FRAMEWORK.cuda.empty_cache()
    command = [sys.executable, *sys.argv, "--jit_compile"]
    command.append(f"--parts={','.join(parts)}")
    print("\nOnce more, compiled. A failure here does not count.", flush=True)
    try:
        subprocess.call(command, timeout=FLAGS.compile_seconds)
    except subprocess.TimeoutExpired:
        print(f"Stopped after {FLAGS.compile_seconds} seconds.")


PARTS = {
    "checks": checks,
    "step": step,
    "m3ae": m3ae,
    "projection": projection,
    "micro": micro,
}
flags.register_validator("parts", lambda parts: set(parts) <= set(PARTS))


def main(_):
    """Runs the parts; returns the exit status."""
    if FLAGS.save_numbers:
        np.savez(FLAGS.save_numbers, **in_full_precision())
        return 0
    mode = "compiled" if FLAGS.jit_compile or BACKEND == "jax" else "eager"
    print(
        f"{BACKEND} {FRAMEWORK.__version__}, Keras {keras.__version__}, "
        f"{device_name()}, {mode}"
    )
    failed = False
    for part in FLAGS.parts:
        print(f"\n=== {part} ===", flush=True)
        start = time.perf_counter()
        try:
            failed |= bool(PARTS[part]())
        except Exception:
            failed = True
            traceback.print_exc(file=sys.stdout)
        print(f"{time.perf_counter() - start:.0f} s in all.", flush=True)
    timed = [part for part in FLAGS.parts if part != "checks"]
    again = FLAGS.compile_seconds and not (FLAGS.jit_compile or FLAGS.small)
    if BACKEND == "torch" and again and timed:
        run_compiled(timed)
    return int(failed)


if __name__ == "__main__":
    app.run(main)
