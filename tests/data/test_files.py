import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seenn_jax.data.files import Files, find_images, fitted
from seenn_jax.errors import UserError

sides = st.integers(1, 300)


class TestFindImages:
    @pytest.fixture
    def tree(self, tmp_path):
        for name in ("b.png", "a/2.JPG", "a/10.jpeg", "a/x/1.webp", "notes.txt", ".hidden.png"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git" / "c.png").touch()
        (tmp_path / "folder.png").mkdir()
        return tmp_path

    def names(self, tree, *paths):
        return [str(path.relative_to(tree)) for path in find_images(paths)]

    def test_a_folder_is_all_images_in_it_sorted(self, tree):
        assert self.names(tree, tree) == ["a/10.jpeg", "a/2.JPG", "a/x/1.webp", "b.png"]

    def test_files_and_folders_stay_in_the_order_that_they_are_given_in(self, tree):
        found = self.names(tree, tree / "b.png", str(tree / "a" / "x"), tree / "b.png")
        assert found == ["b.png", "a/x/1.webp", "b.png"]

    def test_a_file_that_is_named_need_not_look_like_an_image(self, tree):
        assert self.names(tree, tree / "notes.txt") == ["notes.txt"]

    def test_symlinks_are_followed_once(self, tree, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (elsewhere / "3.bmp").touch()
        (tree / "a" / "x" / "more").symlink_to(elsewhere)
        (tree / "a" / "x" / "up").symlink_to(tree)
        (tree / "a" / "x" / "higher").symlink_to(tree.parent)
        (tree / "a" / "x" / "gone.png").symlink_to(tree / "nowhere.png")
        found = self.names(tree, tree)
        # And one that leads nowhere is an image that can't be read.
        found.remove("a/x/gone.png")
        assert found == ["a/10.jpeg", "a/2.JPG", "a/x/1.webp", "a/x/more/3.bmp", "b.png"]

    def test_nothing_there(self, tree):
        with pytest.raises(UserError, match=r"nowhere is no file and no folder: give image files"):
            find_images([tree, tree / "nowhere"])
        with pytest.raises(UserError, match=r"folder\.png has no image \(\.jpg, .*give another"):
            find_images([tree / "folder.png"])


class TestFitted:
    @given(height=st.integers(1, 40), width=st.integers(1, 40), grey=st.booleans())
    def test_an_image_of_the_size_stays_as_it_is(self, height, width, grey):
        shape = (height, width, 1 if grey else 3)
        pixels = np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)
        rgb = Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).copy())
        np.testing.assert_array_equal(fitted(rgb, shape), pixels)

    def test_the_middle_by_hand(self):
        # 4 x 8 pixels, each pair of columns alike: the middle four columns are 20, 20, 30, 30.
        row = np.repeat(np.array([10, 20, 30, 40], np.uint8), 2)
        image = Image.fromarray(np.broadcast_to(row, (4, 8))).convert("RGB")
        np.testing.assert_array_equal(fitted(image, (4, 4, 1))[..., 0], [[20, 20, 30, 30]] * 4)
        # Twice as wide as high is the shape of the whole image.
        assert fitted(image, (2, 4, 3)).shape == (2, 4, 3)
        # Upright, of 8 rows by 4 columns wanted: 2 columns of the middle.
        found = fitted(image, (4, 2, 1))[..., 0]
        np.testing.assert_array_equal(found, [[20, 30]] * 4)

    @given(width=sides, height=sides, to=st.tuples(sides, sides, st.sampled_from([1, 3])))
    def test_any_image_gets_the_shape(self, width, height, to):
        image = Image.new("RGB", (width, height), (90, 90, 90))
        found = fitted(image, to)
        assert found.shape == to
        assert found.dtype == np.uint8
        assert (found == 90).all()


class TestFiles:
    @pytest.fixture
    def paths(self, tmp_path, picture):
        paths = [tmp_path / f"{number}.png" for number in range(5)]
        for number, path in enumerate(paths):
            Image.fromarray(picture(number)).save(path)
        return paths

    def test_a_stretch_is_decoded_when_it_is_indexed(self, paths, picture):
        images = Files(paths, np.asarray, (24, 32, 3))
        assert (len(images), images.shape, images.dtype) == (5, (5, 24, 32, 3), np.uint8)
        paths[0].unlink()  # nothing has read it
        np.testing.assert_array_equal(images[1:4], [picture(n) for n in (1, 2, 3)])
        assert images.unreadable == set()
        assert images[5:9].shape == (0, 24, 32, 3)

    def test_what_cannot_be_read_is_zeros_and_named_once(self, paths, picture, caplog):
        paths[1].write_text("no image")
        paths[2].unlink()
        images = Files(paths, np.asarray, (24, 32, 3))
        found = images[:]
        np.testing.assert_array_equal(found[[1, 2]], 0)
        np.testing.assert_array_equal(found[[0, 3, 4]], [picture(n) for n in (0, 3, 4)])
        assert images.unreadable == {1, 2}
        assert caplog.text.count("left out: image ") == 2
        assert "1.png can't be read" in caplog.text
        assert "2.png can't be read (No such file or directory)" in caplog.text
