#!/usr/bin/env python3
"""Writes the files of pictures and arrays that the tests read.

    python generate.py

Needs numpy, Pillow and safetensors; writes beside the script:

kinds/    the same picture, 32 wide and 16 high, as each kind of file: a quarter red, green, blue
          and white each, from left to right and top to bottom. What says so in its name is as a
          camera writes it that was held otherwise (EXIF's orientation 1 to 8).
broken/   what can't be read.
same/     one data set, 12 training and 6 test images of 32×32×3 in three classes, as folders of
          PNG files, .npz, .npy, CSV, CIFAR-10's and CIFAR-100's binary, IDX and safetensors.
arrays/   other layouts and types of NumPy's, and what can't be read.
emnist/   EMNIST's names and ways with IDX; qmnist/, kmnist/ likewise.
"""

import gzip
import os
import struct

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))


def path(*names):
    result = os.path.join(HERE, *names)
    os.makedirs(os.path.dirname(result), exist_ok=True)
    return result


def write(data, *names):
    with open(path(*names), "wb") as file:
        file.write(data)


def zipped(data):
    return gzip.compress(data, mtime=0)


# ---- kinds and broken ---------------------------------------------------------------------------

RED, GREEN, BLUE, WHITE = (230, 20, 20), (20, 200, 20), (20, 20, 230), (255, 255, 255)


def quarters():
    x = np.zeros((16, 32, 3), np.uint8)
    x[:8, :16], x[:8, 16:], x[8:, :16], x[8:, 16:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(x)


def kinds():
    image = quarters()
    for name in ["rgb.png", "rgb.bmp", "rgb.ppm"]:
        image.save(path("kinds", name))
    image.save(path("kinds", "rgb.jpg"), quality=95)
    image.save(path("kinds", "progressive.jpeg"), quality=95, progressive=True)
    image.save(path("kinds", "lossy.webp"), quality=95)
    image.save(path("kinds", "lossless.webp"), lossless=True)
    image.save(path("kinds", "no-ending"), format="PNG")
    image.quantize(8).save(path("kinds", "palette.png"))
    image.quantize(8).save(path("kinds", "palette.bmp"))
    image.convert("CMYK").save(path("kinds", "cmyk.jpg"), quality=95)
    # White that is only seen because nothing is there.
    clear = np.dstack([np.asarray(image), np.full((16, 32), 255, np.uint8)])
    clear[8:, 16:] = 0
    Image.fromarray(clear).save(path("kinds", "alpha.png"))
    Image.fromarray(clear).save(path("kinds", "alpha.webp"), lossless=True)
    wide = (np.asarray(image).astype(">u2") * 257).astype(">u2")
    write(b"P6\n# sixteen bits\n32 16\n65535\n" + wide.tobytes(), "kinds", "wide.ppm")
    write(png16(wide), "kinds", "wide.png")
    image.save(path("kinds", "first-of-two.png"), save_all=True,
               append_images=[image.rotate(180)])
    for kind in ["jpg", "png", "webp"]:
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            options = {"jpg": {"quality": 95}, "png": {}, "webp": {"lossless": True}}[kind]
            stored(image, orientation).save(
                path("kinds", f"turned-{orientation}.{kind}"), exif=exif, **options)


def stored(image, orientation):
    """What is stored so that turning it by the orientation gives the image."""
    way = Image.Transpose
    back = {1: None, 2: way.FLIP_LEFT_RIGHT, 3: way.ROTATE_180, 4: way.FLIP_TOP_BOTTOM,
            5: way.TRANSPOSE, 6: way.ROTATE_90, 7: way.TRANSVERSE, 8: way.ROTATE_270}
    return image if orientation == 1 else image.transpose(back[orientation])


def png16(x):
    """Pillow writes no colours of 16 bits."""
    import zlib

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + row.tobytes() for row in x)
    head = struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 16, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def broken():
    def bytes_of(name):
        with open(path("kinds", name), "rb") as file:
            return file.read()

    for name in ["rgb.png", "rgb.jpg", "lossy.webp", "rgb.bmp", "rgb.ppm"]:
        data = bytes_of(name)
        write(data[:len(data) * 3 // 5], "broken", "cut-" + name)
    write(bytes_of("rgb.jpg")[:-30], "broken", "cut-end.jpg")
    write(b"", "broken", "empty.png")
    write(b"This is no picture.\n", "broken", "text.jpg")
    write(bytes_of("rgb.jpg")[:3] + b"\xe0", "broken", "start.jpg")
    Image.new("1", (20000, 20000)).save(path("broken", "huge.png"))
    bmp = bytearray(bytes_of("rgb.bmp"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    write(bytes(bmp), "broken", "huge.bmp")
    image = quarters()
    image.save(path("broken", "animated.webp"), save_all=True,
               append_images=[image.rotate(180)], lossless=True)
    image.save(path("broken", "picture.gif"))


# ---- one set in all kinds -----------------------------------------------------------------------

NAMES = ["cat", "dog", "eel"]


def images():
    """Training and test images with labels, sorted by class; black but for a mark."""
    random = np.random.default_rng(7)
    sets = []
    for count in [4, 2]:
        x = np.zeros((3 * count, 32, 32, 3), np.uint8)
        y = np.repeat(np.arange(3), count)
        for image, label in zip(x, y):
            row, column = random.integers(2, 18, 2)
            shape = [(10, 4), (4, 10), (8, 8)][label]
            part = random.integers(60, 255, (*shape, 3))
            image[row:row + shape[0], column:column + shape[1]] = part
        sets += [x, y]
    return sets


def idx(x, kind=8):
    head = struct.pack(">BBBB", 0, 0, kind, x.ndim)
    return head + struct.pack(f">{x.ndim}I", *x.shape) + x.tobytes()


def same():
    x_train, y_train, x_test, y_test = images()
    for part, x, y in [("train", x_train, y_train), ("test", x_test, y_test)]:
        for number, (image, label) in enumerate(zip(x, y)):
            Image.fromarray(image).save(
                path("same", "folders", part, NAMES[label], f"{number:02}.png"), optimize=True)
        rows = [",".join(map(str, [label, *image.ravel()])) for image, label in zip(x, y)]
        header = ",".join(["label"] + [f"pixel{i}" for i in range(32 * 32 * 3)])
        write("\n".join([header, *rows, ""]).encode(), "same", "csv", part + ".csv")
        planes = x.transpose(0, 3, 1, 2)
        ten = b"".join(bytes([label]) + image.tobytes() for image, label in zip(planes, y))
        hundred = b"".join(bytes([7, label]) + image.tobytes() for image, label in zip(planes, y))
        batch = "data_batch_1.bin" if part == "train" else "test_batch.bin"
        write(ten, "same", "cifar-10-batches-bin", batch)
        write(hundred, "same", "cifar-100-binary", part + ".bin")
        first = "train" if part == "train" else "t10k"
        write(zipped(idx(x)), "same", "idx", f"{first}-images-idx4-ubyte.gz")
        write(zipped(idx(y.astype(np.uint8))), "same", "idx", f"{first}-labels-idx1-ubyte.gz")
        np.save(path("same", "npy", f"x_{part}.npy"), x)
        np.save(path("same", "npy", f"y_{part}.npy"), y)
    names = "".join(name + "\n" for name in NAMES).encode()
    write(names + b"\n", "same", "cifar-10-batches-bin", "batches.meta.txt")
    write(names, "same", "cifar-100-binary", "fine_label_names.txt")
    write(b"animals\n", "same", "cifar-100-binary", "coarse_label_names.txt")
    np.savez_compressed(
        path("same", "set.npz"), x_train=x_train, y_train=y_train[:, None], x_test=x_test,
        y_test=y_test[:, None])
    save_file({"train_images": x_train, "train_labels": y_train.astype(np.int64),
               "test_images": x_test, "test_labels": y_test.astype(np.int32)},
              path("same", "set.safetensors"))


# ---- arrays -------------------------------------------------------------------------------------

def arrays():
    x_train, y_train, x_test, y_test = images()
    small, test = x_train[:, ::4, ::4], x_test[:, ::4, ::4]
    floats = {"x_train": small / 255, "x_test": test / 255}
    labels = {"y_train": y_train, "y_test": y_test}

    def save(name, **arrays):
        np.savez_compressed(path("arrays", name + ".npz"), **arrays)

    save("plain", x_train=small, x_test=test, **labels)
    save("float64", **floats, **labels)
    save("float32", **{k: (x * 255).astype(np.float32) for k, x in floats.items()}, **labels)
    save("float16", x_train=small.astype(np.float16), x_test=test.astype(np.float16), **labels)
    save("big-endian", x_train=small.astype(">i4"), x_test=test.astype(">u2"),
         y_train=y_train.astype(">i8"), y_test=y_test.astype(np.int8))
    save("planes", x_train=small.transpose(0, 3, 1, 2).copy(),
         x_test=test.transpose(0, 3, 1, 2).copy(), **labels)
    save("one-hot", x_train=small, x_test=test, y_train=np.eye(3)[y_train],
         y_test=np.eye(3, dtype=bool)[y_test])
    save("grey", x_train=small[..., 0], x_test=test[..., 0], **labels)
    save("rows", x_train=small[..., 0].reshape(12, 64), x_test=test[..., 0].reshape(6, 64),
         **labels)
    save("named", train_images=small, train_labels=y_train, val_images=test, val_labels=y_test,
         test_images=test, test_labels=y_test, class_names=np.array(NAMES))
    save("whole", images=small, labels=y_train)
    np.savez(path("arrays", "stored.npz"), x_train=small, x_test=test, **labels)
    # Numbers to predict: the mean of all pixels, and of the first channel, not rounded.
    means = lambda x: np.stack([x.mean((1, 2, 3)), x[..., 0].mean((1, 2))], 1)
    save("targets", x_train=small, x_test=test, y_train=means(small), y_test=means(test))
    holes = np.where(means(small) == means(small)[4, 1], np.nan, means(small))
    save("nan-targets", x_train=small, x_test=test, y_train=holes, y_test=means(test))

    bad = lambda name, **arrays: np.savez_compressed(path("arrays", "bad", name), **arrays)
    bad("objects", x_train=np.array([small[0], None], object), x_test=test, **labels)
    bad("negative", x_train=small / 127.5 - 1, x_test=test, **labels)
    bad("nan", x_train=np.where(small == 0, np.nan, small), x_test=test, **labels)
    bad("numbers", x_train=small, x_test=test, y_train=y_train[:5], y_test=y_test)
    bad("half-label", x_train=small, x_test=test, y_train=y_train + 0.5, y_test=y_test)
    bad("columns", x_train=np.asfortranarray(small), x_test=test, **labels)
    bad("no-labels", x_train=small, x_test=test)
    bad("complex", x_train=small.astype(complex), x_test=test, **labels)
    bad("dimensions", x_train=small[0, 0, 0], x_test=test, **labels)
    with open(path("arrays", "plain.npz"), "rb") as file:
        data = file.read()
    write(data[:len(data) // 2], "arrays", "bad", "cut.npz")
    write(data[:200] + b"\0" * 40 + data[240:], "arrays", "bad", "changed.npz")


def digits():
    """As EMNIST, QMNIST and KMNIST name and store theirs."""
    x_train, y_train, x_test, y_test = images()
    for part, x, y in [("train", x_train, y_train), ("test", x_test, y_test)]:
        # Upright 8 high and 6 wide; EMNIST's rows are columns.
        grey = x[:, ::4, ::4, 0][:, :, :6]
        turned = grey.transpose(0, 2, 1)
        write(zipped(idx(turned)), "emnist", f"emnist-letters-{part}-images-idx3-ubyte.gz")
        write(zipped(idx((y + 1).astype(np.uint8))), "emnist",
              f"emnist-letters-{part}-labels-idx1-ubyte.gz")
        write(zipped(idx(turned)), "emnist", f"emnist-digits-{part}-images-idx3-ubyte.gz")
        write(zipped(idx(y.astype(np.uint8))), "emnist",
              f"emnist-digits-{part}-labels-idx1-ubyte.gz")
        rows = np.zeros((len(y), 8), ">i4")
        rows[:, 0], rows[:, 1:] = y, 9
        write(zipped(idx(grey)), "qmnist", f"qmnist-{part}-images-idx3-ubyte.gz")
        write(zipped(idx(rows, 12)), "qmnist", f"qmnist-{part}-labels-idx2-int.gz")
        np.savez_compressed(path("kmnist", f"kmnist-{part}-imgs.npz"), grey)
        np.savez_compressed(path("kmnist", f"kmnist-{part}-labels.npz"), y.astype(np.uint8))
        name = "train" if part == "train" else "t10k"
        write(idx((grey / np.float32(255)).astype(">f4"), 13), "floats",
              f"{name}-images-idx3-float")
        write(idx(y.astype(np.uint8)), "floats", f"{name}-labels-idx1-ubyte")
    write(b"1 65 97\n2 66 98\n3 67 99\n", "emnist", "emnist-letters-mapping.txt")
    write(b"0 48\n1 49\n2 50\n", "emnist", "emnist-digits-mapping.txt")


if __name__ == "__main__":
    kinds()
    broken()
    same()
    arrays()
    digits()
