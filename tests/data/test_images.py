import errno
import io
import os
import struct
import subprocess
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from seenn_jax.config import default_config
from seenn_jax.data import images
from seenn_jax.data.images import (
    Corrupt,
    Framing,
    Record,
    central_box,
    decode,
    random_box,
    record_of,
    resized,
)

sides = st.integers(1, 600)


class TestEvaluationTransform:
    def test_500_by_375_by_hand(self):
        # The shorter side to 256, the other to 341.33, cut to 341; the middle 224 begin at
        # 58.5, rounded to the even 58, and at 16. In pixels of the original, times 500 / 341 and
        # 375 / 256.
        box = central_box(500, 375, 224)
        assert box == pytest.approx((85.044, 23.4375, 413.490, 351.5625), abs=1e-3)

    def test_no_resize_by_hand(self):
        # 8 pixels to 8 * 8 / 7 of 7: a window of 7 x 7 as it is.
        image = np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3)
        box = central_box(16, 8, 7)
        assert box == (4, 0, 11, 7)
        np.testing.assert_array_equal(resized(Image.fromarray(image), box, 7), image[:7, 4:11])

    def test_two_pixels_to_one_by_hand(self):
        # Halved, a pixel weighs its neighbours 1, 3, 3, 1 eighths: in the middle of 16 columns of
        # 10 x, those of 7 (70, 80 near; 60, 90 far) give 75.
        image = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, 0)
        small = resized(Image.fromarray(image.repeat(3, 2)), central_box(16, 16, 7), 7)
        # The middle 7 of 8 begin at 0.5, rounded to 0.
        assert small[3, :, 0].tolist()[1:] == [25, 45, 65, 85, 105, 125]

    @given(width=sides, height=sides, seed=st.integers(0, 100))
    def test_is_a_resize_and_then_a_crop(self, width, height, seed):
        rng = np.random.default_rng(seed)
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        short = min(width, height)
        whole = image.resize(
            (max(32, width * 32 // short), max(32, height * 32 // short)),
            Image.Resampling.BILINEAR,
        )
        left, top = (round((length - 28) / 2) for length in whole.size)
        crop = np.asarray(whole.crop((left, top, left + 28, top + 28)))
        found = resized(image, central_box(width, height, 28), 28)
        # In one step and in two: rounded alike but for a few.
        assert np.abs(found.astype(int) - crop).max() <= 1


class TestRandomBox:
    @given(width=sides, height=sides, seed=st.integers(0, 1000))
    def test_lies_in_the_image(self, width, height, seed):
        left, top, right, bottom = random_box(np.random.default_rng(seed), width, height)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height

    def test_areas_and_shapes(self):
        rng = np.random.default_rng(0)
        boxes = np.array([random_box(rng, 400, 400) for _ in range(4000)])
        across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        share, ratio = across * down / 400**2, across / down
        assert share.min() == pytest.approx(0.08, abs=0.01)
        assert share.max() > 0.95
        assert ratio.min() == pytest.approx(3 / 4, abs=0.01)
        assert ratio.max() == pytest.approx(4 / 3, abs=0.01)
        # Uniform in [0.08, 1] but for the largest, which often do not fit: below 0.5 all do.
        small = share[share < 0.5]
        assert np.mean(small) == pytest.approx(0.29, abs=5 * 0.121 / np.sqrt(len(small)))
        places = boxes[:, 0] / np.maximum(400 - across, 1)
        assert np.mean(places) == pytest.approx(0.5, abs=0.03)

    def test_the_middle_of_what_is_too_long(self):
        # 10 high: 13.33 wide at most.
        assert random_box(np.random.default_rng(0), 1000, 10) == (493, 0, 506, 10)
        assert random_box(np.random.default_rng(0), 10, 1000) == (0, 493, 10, 506)

    def test_other_areas_and_shapes(self):
        rng = np.random.default_rng(0)
        boxes = [random_box(rng, 100, 100, (0.25, 0.25), (1, 1)) for _ in range(50)]
        assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(50, 50)}
        assert len(set(boxes)) > 40
        # What is always too wide: the largest that has the shape.
        assert random_box(rng, 100, 100, (1, 1), (4, 4)) == (0, 37, 100, 62)


class TestFraming:
    def test_the_config_has_the_defaults(self):
        data, framing = default_config().data, Framing(1)
        assert data.crop_area == framing.area
        assert data.crop_ratio == framing.ratio
        assert data.resize == framing.resize
        assert data.interpolation == framing.interpolation

    def test_are_the_boxes(self, picture):
        image = Image.fromarray(picture(0, 40, 60))
        found = Framing(16).middle(image)
        np.testing.assert_array_equal(found, resized(image, central_box(60, 40, 16), 16))
        found = Framing(16).part(image, np.random.default_rng(5))
        box = random_box(np.random.default_rng(5), 60, 40)
        np.testing.assert_array_equal(found, resized(image, box, 16))

    def test_the_whole_of_a_square_as_it_is(self, picture):
        image = Image.fromarray(picture(0, 16, 16))
        framing = Framing(16, area=(1, 1), ratio=(1, 1), resize=1)
        np.testing.assert_array_equal(framing.middle(image), image)
        np.testing.assert_array_equal(framing.part(image, np.random.default_rng(0)), image)

    def test_interpolations_by_hand(self):
        # Of 8 columns one is white, the right one of the two that make the third of 4. Bilinearly,
        # columns weigh 1, 3, 3, 1 eighths, and at the border 1, 3, 3 sevenths.
        image = Image.fromarray(np.uint8([[0, 0, 0, 0, 0, 255, 0, 0]] * 8)).convert("RGB")
        shown = {
            kind: Framing(4, resize=1, interpolation=kind).middle(image)[2, :, 0].tolist()
            for kind in ("nearest", "box", "bilinear")
        }
        assert shown["nearest"] == [0, 0, 255, 0]
        assert shown["box"] == [0, 0, 128, 0]
        assert shown["bilinear"] == [0, 0, 96, 36]


class TestDecode:
    def test_colours_are_kept(self, encoded):
        image = np.full((6, 5, 3), [200, 30, 60], np.uint8)
        record = Record(encoded(image, "PNG"), 0, "a/b.png")
        np.testing.assert_array_equal(decode(record), image)

    @pytest.mark.parametrize(
        ("mode", "format"),
        [
            ("L", "JPEG"),
            ("CMYK", "JPEG"),
            ("P", "PNG"),
            ("RGBA", "PNG"),
            ("1", "PNG"),
            ("LA", "PNG"),
        ],
    )
    def test_any_number_of_channels_becomes_rgb(self, encoded, picture, mode, format):
        image = Image.fromarray(picture(0)).convert(mode)
        found = decode(Record(encoded(image, format), 0, "a/b"))
        assert found.mode == "RGB"
        assert found.size == image.size
        difference = np.asarray(found, int) - np.asarray(image.convert("RGB"), int)
        assert np.abs(difference).mean() < 5  # JPEG

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_is_upright(self, picture, format, orientation):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        file = io.BytesIO()
        Image.fromarray(picture(0)).save(file, format, exif=exif)
        found = decode(Record(file.getvalue(), 0, "a/b"))
        upright = ImageOps.exif_transpose(Image.open(file))
        assert found.size == ((32, 24) if orientation < 5 else (24, 32))
        np.testing.assert_array_equal(found, upright)

    def test_with_damaged_tags(self, picture, monkeypatch):
        file = io.BytesIO()
        Image.fromarray(picture(0)).save(file, "PNG", exif=b"Exif\0\0II*\0nonsense")
        np.testing.assert_array_equal(decode(Record(file.getvalue(), 0, "a/b")), picture(0))

    @pytest.mark.parametrize("format", ["EPS", "GIF", "TIFF", "PPM"])
    def test_other_formats_are_not_opened(self, encoded, picture, format, monkeypatch):
        def start(*_, **__):
            raise AssertionError("a program was started")

        monkeypatch.setattr(subprocess, "Popen", start)
        record = Record(encoded(picture(0), format), 0, "dogs/1.jpg")
        with pytest.raises(
            Corrupt, match=r"1\.jpg can't be read \(it is no JPEG, PNG, BMP, WEBP\)"
        ):
            decode(record)

    def test_too_large(self, encoded, monkeypatch):
        record = Record(encoded(Image.new("1", (100, 50)), "PNG"), 0, "a/b.png")
        monkeypatch.setattr(images, "MOST_PIXELS", 5000)
        assert decode(record).size == (100, 50)
        monkeypatch.setattr(images, "MOST_PIXELS", 4999)
        with pytest.raises(Corrupt, match="it has 100 x 50 pixels, more than 4,999"):
            decode(record)

    def test_far_too_large(self, encoded):
        record = Record(encoded(Image.new("1", (20_000, 10_000)), "PNG"), 0, "a/b.png")
        with pytest.raises(Corrupt, match="pixels"):  # as Pillow says
            decode(record)

    @pytest.mark.parametrize(("format", "last"), [("JPEG", 20), ("PNG", 200), ("WEBP", 20)])
    def test_truncated(self, encoded, picture, format, last):
        data = encoded(picture(0, 60, 80), format)
        for length in (10, len(data) // 2, len(data) - last):
            with pytest.raises(Corrupt, match=r"image dogs/1\.jpg can't be read"):
                decode(Record(data[:length], 0, "dogs/1.jpg"))

    def test_empty(self):
        with pytest.raises(Corrupt, match=r"dogs/1\.jpg can't be read \(it is empty\)"):
            decode(Record(b"", 0, "dogs/1.jpg"))

    @pytest.mark.parametrize(("colours", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
    def test_sixteen_bits(self, colours, channels):
        """Grey and in colours, with transparency and without."""
        size, pixels = struct.pack(">II", 4, 4), bytes(4 * (1 + 4 * 2 * channels))
        parts = [
            (b"IHDR", size + bytes((16, colours, 0, 0, 0))),
            (b"IDAT", zlib.compress(pixels)),
            (b"IEND", b""),
        ]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in parts
        )
        assert Image.open(io.BytesIO(data)).size == (4, 4)
        with pytest.raises(Corrupt, match="more than 8 bits a channel"):
            decode(Record(data, 0, "a/b.png"))

    def test_every_flipped_bit_of_a_png_is_seen(self, encoded, picture):
        data = bytearray(encoded(picture(0, 6, 5), "PNG"))
        for place in range(len(data)):
            data[place] ^= 4
            with pytest.raises(Corrupt, match=r"a/b\.png can't be read"):
                decode(Record(bytes(data), 0, "a/b.png"))
            data[place] ^= 4

    def test_transparent_colours_of_a_palette(self, encoded):
        image = Image.new("P", (2, 2), 1)
        image.putpalette([0, 0, 0, 200, 30, 60])
        image.info["transparency"] = b"\x80\x80"
        found = decode(Record(encoded(image, "PNG"), 0, "a/b.png"))
        assert found.getpixel((0, 0)) == (200, 30, 60)

    def test_what_a_decoder_did_not_think_of(self, encoded, picture, monkeypatch):
        def fail(*_, **__):
            raise KeyError("<_io.BytesIO object at 0x7f00> at 0x12")

        monkeypatch.setattr(images.Image, "open", fail)
        with pytest.raises(Corrupt, match=r"a/b can't be read \('? ?at 0x12'\)"):
            decode(Record(encoded(picture(0)), 0, "a/b"))


class TestContent:
    def test_a_pipe_is_no_image(self, tmp_path):
        os.mkfifo(tmp_path / "a.jpg")
        found = record_of(tmp_path / "a.jpg", 3, "dogs/a.jpg")
        assert found == Record(b"", 3, "dogs/a.jpg", "it is no regular file")
        with pytest.raises(Corrupt, match=r"dogs/a\.jpg can't be read \(it is no regular file\)"):
            decode(found)

    def test_a_file_that_is_too_large(self, tmp_path, monkeypatch):
        (tmp_path / "a.jpg").write_bytes(b"12345")
        assert record_of(tmp_path / "a.jpg", 0, "a").data == b"12345"
        monkeypatch.setattr(images, "MOST_BYTES", 4)
        assert record_of(tmp_path / "a.jpg", 0, "a").problem == "it has 5 bytes, more than 4"

    def test_a_file_that_is_gone(self, tmp_path):
        assert record_of(tmp_path / "a.jpg", 0, "a").problem == "No such file or directory"

    def test_what_is_of_the_system_is_no_fault_of_the_file(self, tmp_path, monkeypatch):
        def open_too_many(*_):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.jpg")

        monkeypatch.setattr(images.os, "open", open_too_many)
        with pytest.raises(OSError, match="Too many open files"):  # and it is not left out
            record_of(tmp_path / "a.jpg", 0, "a")
