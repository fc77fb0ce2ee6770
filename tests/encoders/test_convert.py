import keras
import pytest
from utils import mainly_on

from keras_mla.encoders import convert
from tests.encoders import synthetic
from tests.encoders.synthetic import check, inputs


@pytest.fixture
def cavmae(tmp_path):
    path = tmp_path / "cavmae.npz"
    return path, synthetic.write("cavmae.json", path, "module.")


@mainly_on("torch")
def test_command_line(cavmae, tmp_path, capsys):
    path, fixture = cavmae
    output = tmp_path / "encoder.keras"
    arguments = [f"--output={output}", "--input-shape=32,128,1"]
    status = convert.main(
        ["--model=cavmae-audio", f"--input={path}", *arguments]
    )
    assert status == 1  # heads of 64 features do not fit a width of 16
    assert "num_heads" in capsys.readouterr().err
    status = convert.main(
        ["--model=cavmae-audio", f"--input={path}", "--head-dim=8", *arguments]
    )
    assert status == 0
    audio, _ = inputs((2, 32, 128), (2, 32, 32, 3))
    loaded = keras.saving.load_model(output)
    check(loaded(audio[..., None]), fixture["outputs"]["audio_feature"])
    arguments = [f"--input={path}", f"--output={output}"]
    assert convert.main(["--model=m3ae", *arguments]) == 1
    assert "no checkpoint of M3AE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert.main(["--model=bert", *arguments])
    with pytest.raises(ValueError, match="takes no input shape"):
        convert.convert("m3ae-text", path, (1, 2, 3))
    with pytest.raises(ValueError, match="two patch orders"):
        convert.convert("cavmae", path, patch_order="channels_last")
