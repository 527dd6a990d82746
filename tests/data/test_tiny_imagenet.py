"""Tiny ImageNet, as its archive has it."""

import numpy as np
import pytest
from PIL import Image

from seenn_jax.data import load_dataset
from seenn_jax.errors import UserError

NUMBERS = ("n02", "n01", "n03")  # in this order in wnids.txt
WORDS = "n01\tant, pismire\nn02\tbee\nn03\tbee, spelling bee\nn99\tnothing here\n"


def flat(value):
    return Image.fromarray(np.full((64, 64, 3), value, np.uint8))


@pytest.fixture
def small(data_dir):
    """Number i of class c is of grey 10 c + i, for training; 200 + c to report."""
    folder = data_dir / "tiny_imagenet" / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(NUMBERS) + "\n")
    (folder / "words.txt").write_text(WORDS)
    rows = []
    for label, number in enumerate(sorted(NUMBERS)):
        (folder / "train" / number / "images").mkdir(parents=True)
        (folder / "train" / number / f"{number}_boxes.txt").write_text("")
        for i in range(4):
            path = folder / "train" / number / "images" / f"{number}_{i}.JPEG"
            flat(10 * label + i).save(path)
        flat(200 + label).save(folder / "val" / "images" / f"val_{2 - label}.JPEG")
        rows.append(f"val_{2 - label}.JPEG\t{number}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(rows)))
    return folder


def load(**changes):
    return load_dataset("tiny_imagenet", **({"validation": 3} | changes))


def test_images_and_classes(small):
    for _ in range(2):  # decoded, from the cache
        dataset = load()
        assert [split.size for split in dataset[1:4]] == [9, 3, 3]
        assert dataset.classes == ("ant", "n02", "n03")  # two are called bee
        assert dataset.test.images.shape == (3, 64, 64, 3)
        assert dataset.test.labels.tolist() == [2, 1, 0]
        assert dataset.test.images[:, 5, 5, 0].tolist() == [202, 201, 200]
        grey = np.concatenate([dataset.train.images, dataset.validation.images])[:, 0, 0, 0]
        labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
        assert sorted(grey.tolist()) == [10 * c + i for c in range(3) for i in range(4)]
        assert (grey // 10 == labels).all()


def test_labels_and_words_that_change_are_followed(small):
    load()
    table = small / "val" / "val_annotations.txt"
    names = [line.split("\t")[0] for line in table.read_text().splitlines()]
    rows = zip(reversed(names), ("n03", "n02", "n01"), strict=True)
    table.write_text("".join(f"{name}\t{number}\t0\t0\t63\t63\n" for name, number in rows))
    dataset = load()
    assert dataset.test.labels.tolist() == [2, 1, 0]
    assert dataset.test.images[:, 5, 5, 0].tolist() == [200, 201, 202]
    (small / "words.txt").write_text(WORDS.replace("ant", "cat"))
    assert load().classes == ("cat", "n02", "n03")
    (small / "wnids.txt").write_text("n01\nn02\n")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    (small / "val" / "images" / names[-1]).unlink()
    dataset = load()
    assert dataset.classes == ("cat", "bee")
    assert [split.size for split in dataset[1:4]] == [5, 3, 2]


def test_what_can_not_be_read_is_named_and_counted(small, caplog):
    (small / "train" / "n01" / "images" / "n01_2.JPEG").write_bytes(b"")
    other = small / "train" / "n02" / "images" / "n02_1.JPEG"
    flat(0).resize((32, 32)).save(other)
    with pytest.raises(UserError, match=r"n01_2\.JPEG can't be read \(it is empty\).*skip_corrupt"):
        load()
    dataset = load(skip_corrupt=True)
    assert [split.size for split in dataset[1:4]] == [7, 3, 3]
    assert "n02_1.JPEG can't be read (it has 32 x 32 pixels" in caplog.text
    assert "2 of 15 images are corrupt and left out" in caplog.text


@pytest.mark.parametrize("part", ["train/n02/images", "val/images"])
def test_a_class_that_is_lost_is_named(small, part):
    for path in (small / part).iterdir():
        path.write_bytes(b"")
    top = part.partition("/")[0]
    with pytest.raises(UserError, match=rf"no image of class .* in .*{top} can be read: extract"):
        load(skip_corrupt=True)


def test_labels_that_do_not_match_files_are_named(small):
    table = small / "val" / "val_annotations.txt"
    whole = table.read_text()
    table.write_text(whole.replace("n01", "n77"))
    with pytest.raises(UserError, match=r"val_2\.JPEG is of class 'n77', and wnids\.txt has no"):
        load()
    table.write_text(whole + "val_9.JPEG\tn01\n")
    with pytest.raises(UserError, match=r"val_9\.JPEG is of class 'n01', and there is no "):
        load()
    table.write_text("".join(whole.splitlines(keepends=True)[:1]))
    with pytest.raises(UserError, match=r"no class for val_1\.JPEG \(2 such images\)"):
        load()
    table.unlink()
    with pytest.raises(UserError, match=r"there is no .*val_annotations\.txt: extract"):
        load()


def test_folders_that_are_missing_are_named(small):
    for path in (small / "train" / "n03" / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"train/n03/images has no image, and wnids\.txt names"):
        load()
    (small / "wnids.txt").write_text("n01\nn01\n")
    with pytest.raises(UserError, match=r"wnids\.txt has no classes, or one twice"):
        load()
    (small / "wnids.txt").unlink()
    with pytest.raises(
        UserError, match=r"there is no .*wnids\.txt: extract tiny-imagenet-200\.zip"
    ):
        load()
