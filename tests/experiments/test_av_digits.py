import numpy as np
import soundfile
from script_runs import read_table, run
from utils import only_on


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
def test_runs_offline_and_goes_on_where_it_stopped(tmp_path, capsys):
    write_data(tmp_path / "data")
    out = tmp_path / "out"
    arguments = (
        "av_digits",
        f"--data_dir={tmp_path / 'data'}",
        f"--out={out}",
        "--epochs=1",
        "--seeds=1",
    )
    assert run(*arguments, "--methods=Concat") == 0, capsys.readouterr().err
    table = read_table(out / "accuracies.md")
    assert table[0] == ["Digits, speaker", "audio", "image", "all"]
    first = (out / "runs.jsonl").read_text()
    capsys.readouterr()
    assert run(*arguments, "--methods=Concat,MLA") == 0
    assert "recording" not in capsys.readouterr().out
    assert (out / "runs.jsonl").read_text().startswith(first)
    again = read_table(out / "accuracies.md")
    assert again[:2] == table and again[2][0] == "MLA"
    assert run(*arguments, "--pairing=official") == 1
    refused = capsys.readouterr().err
    assert "holds runs with other settings: " in refused
    assert "'pairing'" in refused
