import numpy as np
import soundfile
from script_runs import read_table, run
from utils import long, only_on


def write_data(folder):
    rng = np.random.default_rng(0)
    (folder / "recordings").mkdir(parents=True)
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    for digit in range(3):
        for speaker in speakers:
            for index in (0, 5):
                name = f"recordings/{digit}_{speaker}_{index}.wav"
                soundfile.write(
                    folder / name, 0.1 * rng.standard_normal(3000), 8000
                )
    images = rng.integers(0, 256, (90, 28, 28), np.uint8)
    labels = np.arange(90) % 3
    np.savez(folder / "mnist_10k.npz", image=images, label=labels)


@only_on("torch")
@long()
def test_runs_offline_and_goes_on_where_it_stopped(tmp_path):
    write_data(tmp_path / "data")
    arguments = ("av_digits", tmp_path / "data", tmp_path / "out")
    first = run(*arguments, "--methods=Concat,MLA")
    table = read_table(tmp_path / "out")
    assert table[0] == ["Digits, speaker", "audio", "image", "all"]
    methods = [row[0] for row in table[1:]]
    assert methods == ["Concat", "MLA"]
    assert (tmp_path / "out" / "table.md").read_text() in first
    figure = (tmp_path / "out" / "history.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    (tmp_path / "out" / "MLA-0.001-seed0" / "result.json").unlink()
    again = run(*arguments, "--methods=MLA")
    assert "recording" not in again
    assert read_table(tmp_path / "out") == [table[0], table[2]]
    refused = run(*arguments, "--pairing=official", code=1)
    assert "holds runs with other flags" in refused
