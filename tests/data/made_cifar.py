"""A small CIFAR in its official forms, of 6 x `EACH` images."""

import pickle
import struct
import tarfile

import numpy as np

EACH = 4  # images in a batch
NAMES = {
    "cifar10": [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ],
    "cifar100": [f"class_{i}" for i in range(100)],
}
FOLDERS = {
    ("cifar10", "python"): "cifar-10-batches-py",
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar100", "python"): "cifar-100-python",
    ("cifar100", "binary"): "cifar-100-binary",
}
ARCHIVES = {(name, form): f"{name[:5]}-{name[5:]}-{form}.tar.gz" for name, form in FOLDERS}


def pictures(name):
    """{batch: (images uint8 [n, 32, 32, 3], labels)}, the last the test batch."""
    random = np.random.default_rng(3)
    names = [f"data_batch_{i}" for i in range(1, 6)] if name == "cifar10" else ["train"]
    sizes = {n: EACH * (1 if name == "cifar10" else 5) for n in names}
    sizes["test_batch" if name == "cifar10" else "test"] = EACH
    return {
        batch: (
            random.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8),
            random.integers(0, len(NAMES[name]), size).tolist(),
        )
        for batch, size in sizes.items()
    }


def python2(value):
    """A pickle of protocol 2 as Python 2 and NumPy 1 wrote it, strings as byte strings."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value):
    if isinstance(value, np.ndarray):
        shape = b"(" + b"".join(_python2(n) for n in value.shape) + b"t"
        dtype = b"cnumpy\ndtype\n(" + _python2("u1") + b"K\x00K\x01tR"
        dtype += b"(K\x03" + _python2("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + _python2("b")
        return made + b"tR(K\x01" + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"
    if isinstance(value, dict):
        pairs = b"".join(_python2(k) + _python2(v) for k, v in value.items())
        return b"}(" + pairs + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    data = value.encode() if isinstance(value, str) else value
    return b"T" + struct.pack("<i", len(data)) + data


def python3(value):
    """The same of Python 3, as it writes for Python 2, with text for strings."""
    return pickle.dumps(value, protocol=2)


def python_files(name, dump=python2):
    """{file: its bytes} of the "python version"."""
    labels, key = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "")
    files = {
        batch: dump(
            {
                "batch_label": batch,
                labels: found,
                "coarse_labels": [0] * len(found),
                "data": images.transpose(0, 3, 1, 2).reshape(len(images), -1).copy(),
                "filenames": [f"{i}.png" for i in range(len(found))],
            }
        )
        for batch, (images, found) in pictures(name).items()
    }
    meta = {key or "fine_label_names": NAMES[name], "coarse_label_names": ["x"]}
    return files | {"batches.meta" if name == "cifar10" else "meta": dump(meta)}


def binary_files(name):
    """{file: its bytes} of the "binary version"."""
    files = {}
    for batch, (images, labels) in pictures(name).items():
        columns = [[label] if name == "cifar10" else [7, label] for label in labels]
        pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        rows = np.concatenate([np.array(columns, np.uint8), pixels], 1)
        files[f"{batch}.bin"] = rows.tobytes()
    names = "batches.meta.txt" if name == "cifar10" else "fine_label_names.txt"
    return files | {names: ("\n".join(NAMES[name]) + "\n\n").encode()}


def files_of(name, form):
    return python_files(name) if form == "python" else binary_files(name)


def unpacked(place, name, form, files=None):
    """The folder that the archive unpacks to, in `place`."""
    folder = place / FOLDERS[name, form]
    folder.mkdir(parents=True)
    for file, data in (files or files_of(name, form)).items():
        (folder / file).write_bytes(data)
    return folder


def packed(place, name, form, files=None):
    """The archive, in `place`."""
    scratch = place / "scratch"
    folder = unpacked(scratch, name, form, files)
    archive = place / ARCHIVES[name, form]
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    for path in (*folder.iterdir(), folder, scratch):
        path.rmdir() if path.is_dir() else path.unlink()
    return archive
