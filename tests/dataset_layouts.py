"""Makes small folders in the published layouts of the data sets."""

import json

from dataset_media import write_frames, write_jpeg, write_video, write_wav

EMOTIONS = {"ANG": "Angry", "SAD": "Sad", "NEU": "Neutral"}
WORDS = ("a", "pinch", "of", "salt")


def crema_d(root, actors=6):
    """Clips of some actors, with every emotion of `EMOTIONS` each."""
    clips = []
    for actor in range(1001, 1001 + actors):
        for i, emotion in enumerate(EMOTIONS):
            clip = f"{actor}_DFA_{emotion}_XX"
            write_wav(root / f"AudioWAV/{clip}.wav", 0.2, frequency=300 + i)
            write_frames(root / "Image-01-FPS" / clip)
            clips.append(clip)
    test = clips[::4]
    train = [clip for clip in clips if clip not in test]
    words = {clip: EMOTIONS[clip.split("_")[2]] for clip in clips}
    (root / "train.txt").write_text(
        "".join(f"{clip}.flv {words[clip]}\n" for clip in train)
    )
    (root / "test.csv").write_text(
        "".join(f"{clip},{clip.split('_')[2]}\n" for clip in test)
    )
    return train, test


def kinetics_sounds(root, count=6):
    names = ("bowling", "playing piano", "tap dancing")
    lines = []
    for i in range(count):
        clip = f"-x_y{i:07d}_000010_000020"
        if i % 2:
            write_video(root / f"videos/{clip}.mp4", frames=4)
        else:
            write_wav(root / f"audio/{clip}.wav", 0.2)
            write_frames(root / "Image-01-FPS" / clip)
        lines.append(f"{clip},10,{names[i % 3]}\n")
    (root / "train.csv").write_text("".join(lines[:-1]))
    (root / "test.csv").write_text(lines[-1])


def food101(root, layout="jsonl", per_class=3):
    """Two classes; the last sample of each is in the test split."""
    rows = {"train": [], "test": []}
    for name in ("apple_pie", "waffles"):
        for i in range(per_class):
            split = "test" if i == per_class - 1 else "train"
            key = f"{name}_{i}"
            write_jpeg(root / f"images/{split}/{name}/{key}.jpg")
            rows[split].append((key, name, split, f"{WORDS[i]}, {name}"))
    for split, entries in rows.items():
        if layout == "jsonl":
            lines = [
                json.dumps(
                    {
                        "id": key,
                        "label": name,
                        "text": text,
                        "img": f"images/{part}/{name}/{key}.jpg",
                    }
                )
                for key, name, part, text in entries
            ]
            path = root / f"{split}.jsonl"
        elif layout == "titles":
            lines = [f'{k}.jpg,"{text}",{n}' for k, n, _, text in entries]
            path = root / f"texts/{split}_titles.csv"
        else:
            lines = [f"{key}.jpg {name}" for key, name, _, _ in entries]
            path = root / f"{split}.txt"
            for key, name, _, text in entries:
                file = root / f"texts_txt/{name}/{key}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def mvsa(root, count=10):
    labels = ("positive", "negative", "neutral")
    table = ["ID\ttext,image"]
    records = []
    for i in range(count):
        write_jpeg(root / f"data/{i}.jpg", (20 * i, 0, 0))
        (root / f"data/{i}.txt").write_bytes(b"salt no. %d \xff\n" % i)
        a, b = labels[i % 3], labels[i // 3 % 3]
        table.append(f"{i}\t{a},{b}")
        records.append(
            {"id": str(i), "label": a, "text": f"t{i}", "img": f"data/{i}.jpg"}
        )
    (root / "labelResultAll.txt").write_text("\n".join(table) + "\n")
    for name, part in {
        "train": records[:6],
        "dev": records[6:8],
        "test": records[8:],
    }.items():
        lines = [json.dumps(record) for record in part]
        (root / f"{name}.jsonl").write_text("\n".join(lines))


def iemocap(root, turns=("ang", "exc", "hap", "neu", "sad", "fru", "xxx")):
    for number in range(1, 6):
        base = root / f"Session{number}"
        name = f"Ses0{number}F_impro01"
        write_video(base / f"dialog/avi/DivX/{name}.avi", 12, sound=False)
        labels = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
        spoken = []
        for i, emotion in enumerate(turns):
            key = f"{name}_{'FM'[i % 2]}{i:03d}"
            start, end = 0.25 * i, 0.25 * i + 0.75
            labels.append(
                f"[{start:.4f} - {end:.4f}]\t{key}\t{emotion}\t[2.5, 2.5, 2]\n"
            )
            labels.append("C-E2:\tNeutral;\t()\n")
            spoken.append(
                f"{key} [{start:08.4f}-{end:08.4f}]: Salt {emotion}.\n"
            )
            write_wav(base / f"sentences/wav/{name}/{key}.wav", 0.2)
        for folder, lines in (
            ("EmoEvaluation", labels),
            ("transcriptions", spoken),
        ):
            path = base / "dialog" / folder / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines))
            (path.parent / f"._{name}.txt").write_bytes(b"\0\1junk")
