"""A table of real files, with empty cells, and what a comparison takes."""

import csv

import numpy as np

COLUMNS = ("id", "sound", "photo", "title", "price", "shop", "kind")
FLAGS = (
    "--label=kind",
    "--id=id",
    "--audio=sound",
    "--image=photo",
    "--text=title",
    "--numeric=price",
    "--categorical=shop",
)
MODALITIES = ("photo", "sound", "title", "table")


def write(folder, rows=40, seed=0):
    """Writes `table.csv` and its files; returns the path of the table."""
    import soundfile
    from PIL import Image

    rng = np.random.default_rng(seed)
    path = folder / "table.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(rows):
            kind = i % 2
            picture = np.full((12, 16, 3), 60 + 120 * kind, np.uint8)
            Image.fromarray(picture).save(folder / f"{i}.png")
            wave = np.sin(np.arange(3000) * (0.1 + 0.5 * kind))
            soundfile.write(folder / f"{i}.wav", wave.astype("float32"), 16000)
            words = "warm red sun" if kind else "cold blue rain"
            title = f"{words} and {rng.choice(['one', 'two'])} more words here"
            row = [f"{i}.wav", f"{i}.png", title]
            row += [f"{rng.normal(20 * kind, 5):.2f}", rng.choice(["a", "b"])]
            row = [cell if rng.random() < 0.85 else "" for cell in row]
            if not any(row):
                row[2] = title
            writer.writerow([f"row {i}", *row, ["<b>no</b>", "yes"][kind]])
    return path
