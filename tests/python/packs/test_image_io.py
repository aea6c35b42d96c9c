"""The built-in pack image-io: what its nodes read, write and refuse."""

import importlib.util
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

PACK = Path(__file__).parents[3] / "packs" / "image-io"
MODULE = "airlock_test_pack_image_io"


@pytest.fixture(scope="module")
def pack() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(MODULE, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name == MODULE or name.startswith(f"{MODULE}.")]:
        del sys.modules[name]


@dataclass(frozen=True)
class Folders:
    input: Path
    output: Path
    temp: Path


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    made = Folders(tmp_path / "in", tmp_path / "out", tmp_path / "temp")
    for name in ("input", "output", "temp"):
        getattr(made, name).mkdir()
        monkeypatch.setenv(f"AIRLOCK_{name.upper()}_DIR", str(getattr(made, name)))
    return made


def load(pack: ModuleType, name: str) -> tuple[np.ndarray, np.ndarray]:
    image, mask = pack.NODE_CLASS_MAPPINGS["LoadImage"]().load_image(name)
    return np.asarray(image), np.asarray(mask)


def save(pack: ModuleType, images: Any, prefix: str = "test", **hidden: Any) -> list[dict[str, str]]:
    return pack.NODE_CLASS_MAPPINGS["SaveImage"]().save_images(images, prefix, **hidden)["ui"]["images"]


def names(written: list[dict[str, str]]) -> list[str]:
    return [entry["filename"] for entry in written]


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def reopen(path: Path) -> Image.Image:
    """The picture in full, with its text chunks in `info`, its file closed."""
    with Image.open(path) as picture:
        return picture.copy()


def grey(batch: int = 1, height: int = 4, width: int = 6, channels: int = 3) -> np.ndarray:
    return np.full((batch, height, width, channels), 0.5, dtype=np.float32)


def png_header(width: int, height: int) -> bytes:
    """A well-formed PNG that claims that size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


class TestMappings:
    def test_nodes_have_comfyuis_names_and_an_entry_point(self, pack: ModuleType) -> None:
        assert set(pack.NODE_CLASS_MAPPINGS) == {"LoadImage", "SaveImage", "PreviewImage"}
        assert set(pack.NODE_DISPLAY_NAME_MAPPINGS) == set(pack.NODE_CLASS_MAPPINGS)
        for node in pack.NODE_CLASS_MAPPINGS.values():
            assert callable(getattr(node, node.FUNCTION))
            assert "required" in node.INPUT_TYPES()

    def test_input_types_lists_the_images_of_the_input_folder(self, pack: ModuleType, folders: Folders) -> None:
        for name in ("b.png", "a.JPG", "notes.txt"):
            (folders.input / name).touch()
        (folders.input / "folder.png").mkdir()
        choices, options = pack.NODE_CLASS_MAPPINGS["LoadImage"].INPUT_TYPES()["required"]["image"]
        assert choices == ["a.JPG", "b.png"]
        assert options["image_upload"] is True

    def test_input_types_works_without_folders(self, pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRLOCK_INPUT_DIR", raising=False)
        assert pack.NODE_CLASS_MAPPINGS["LoadImage"].INPUT_TYPES()["required"]["image"][0] == []


class TestLoad:
    def test_opaque_image_has_comfyuis_blank_mask(self, pack: ModuleType, folders: Folders) -> None:
        pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
        Image.fromarray(pixels).save(folders.input / "a.png")
        image, mask = load(pack, "a.png")
        assert image.dtype == np.float32 and image.shape == (1, 5, 7, 3)
        assert mask.dtype == np.float32 and mask.shape == (1, 64, 64) and not mask.any()
        np.testing.assert_array_equal(image[0], pixels.astype(np.float32) / 255.0)

    def test_mask_is_one_minus_alpha(self, pack: ModuleType, folders: Folders) -> None:
        pixels = np.zeros((2, 3, 4), dtype=np.uint8)
        pixels[..., 3] = [[0, 51, 255], [255, 255, 0]]
        Image.fromarray(pixels).save(folders.input / "a.png")
        image, mask = load(pack, "a.png")
        assert image.shape == (1, 2, 3, 3)
        np.testing.assert_allclose(mask[0], [[1.0, 0.8, 0.0], [0.0, 0.0, 1.0]], atol=1e-6)

    def test_palette_transparency_becomes_the_mask(self, pack: ModuleType, folders: Folders) -> None:
        picture = Image.new("P", (2, 1))
        picture.putpalette([255, 0, 0, 0, 0, 255])
        picture.putdata([0, 1])
        picture.save(folders.input / "a.png", transparency=0)
        image, mask = load(pack, "a.png")
        np.testing.assert_array_equal(mask[0], [[1.0, 0.0]])
        np.testing.assert_array_equal(image[0, 0], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

    def test_exif_orientation_is_applied(self, pack: ModuleType, folders: Folders) -> None:
        picture = Image.new("RGB", (8, 4), (255, 255, 255))
        picture.paste((0, 0, 0), (0, 0, 4, 4))
        exif = Image.Exif()
        exif[0x0112] = 6  # Turn a quarter clockwise to see it upright.
        picture.save(folders.input / "a.png", exif=exif)
        image, _ = load(pack, "a.png")
        assert image.shape == (1, 8, 4, 3)
        assert not image[0, :4].any() and (image[0, 4:] == 1.0).all()

    def test_frames_become_a_batch(self, pack: ModuleType, folders: Folders) -> None:
        frames = [Image.new("RGB", (3, 2), colour) for colour in ("red", "lime", "blue")]
        frames[0].save(folders.input / "a.tiff", save_all=True, append_images=frames[1:])
        image, mask = load(pack, "a.tiff")
        assert image.shape == (3, 2, 3, 3) and mask.shape == (3, 64, 64)
        np.testing.assert_array_equal(image[:, 0, 0], np.eye(3))

    def test_frames_of_another_size_are_left_out(self, pack: ModuleType, folders: Folders) -> None:
        frames = [Image.new("RGB", size) for size in ((3, 2), (5, 5), (3, 2))]
        frames[0].save(folders.input / "a.tiff", save_all=True, append_images=frames[1:])
        assert load(pack, "a.tiff")[0].shape == (2, 2, 3, 3)

    def test_opaque_frame_beside_a_transparent_one_has_a_mask_of_its_size(
        self, pack: ModuleType, folders: Folders
    ) -> None:
        frames = [Image.new("RGBA", (3, 2), (0, 0, 0, 0)), Image.new("RGB", (3, 2))]
        frames[0].save(folders.input / "a.tiff", save_all=True, append_images=frames[1:])
        mask = load(pack, "a.tiff")[1]
        assert mask.shape == (2, 2, 3) and mask[0].all() and not mask[1].any()

    def test_sixteen_bit_grey_keeps_its_range(self, pack: ModuleType, folders: Folders) -> None:
        Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(folders.input / "a.png")
        image, _ = load(pack, "a.png")
        np.testing.assert_allclose(image[0, 0, :, 0], [0.0, 32768 / 65535, 1.0], atol=1e-6)

    def test_subfolder_and_annotated_folder(self, pack: ModuleType, folders: Folders) -> None:
        (folders.input / "deep").mkdir()
        Image.new("RGB", (2, 2)).save(folders.input / "deep" / "a.png")
        Image.new("RGB", (5, 5)).save(folders.output / "made.png")
        assert load(pack, "deep/a.png")[0].shape == (1, 2, 2, 3)
        assert load(pack, "made.png [output]")[0].shape == (1, 5, 5, 3)

    def test_is_changed_follows_the_content(self, pack: ModuleType, folders: Folders) -> None:
        node = pack.NODE_CLASS_MAPPINGS["LoadImage"]
        (folders.input / "a.png").write_bytes(b"one")
        first = node.IS_CHANGED("a.png")
        assert node.IS_CHANGED("a.png") == first
        (folders.input / "a.png").write_bytes(b"two")
        assert node.IS_CHANGED("a.png") != first


class TestLoadRefuses:
    @pytest.mark.parametrize(
        "name", ["../a.png", "x/../../a.png", "/etc/hostname", "..\\a.png", "C:\\a.png", "a\0.png"]
    )
    def test_names_that_leave_the_folder(self, pack: ModuleType, folders: Folders, name: str) -> None:
        Image.new("RGB", (2, 2)).save(folders.input.parent / "a.png")
        with pytest.raises(ValueError, match="inside the input folder"):
            load(pack, name)
        assert "inside the input folder" in pack.NODE_CLASS_MAPPINGS["LoadImage"].VALIDATE_INPUTS(name)

    def test_links_that_leave_the_folder(self, pack: ModuleType, folders: Folders) -> None:
        Image.new("RGB", (2, 2)).save(folders.output / "a.png")
        (folders.input / "file.png").symlink_to(folders.output / "a.png")
        (folders.input / "folder").symlink_to(folders.output)
        for name in ("file.png", "folder/a.png"):
            with pytest.raises(ValueError, match="symbolic link"):
                load(pack, name)

    def test_missing_file_says_where_it_looked_and_what_is_there(self, pack: ModuleType, folders: Folders) -> None:
        for index in range(11):
            (folders.input / f"{index:02}.png").touch()
        with pytest.raises(FileNotFoundError) as caught:
            load(pack, "gone.png")
        text = str(caught.value)
        assert "'gone.png'" in text and str(folders.input) in text and "AIRLOCK_INPUT_DIR" in text
        assert "00.png" in text and "07.png and 3 more" in text and "08.png" not in text

    def test_missing_file_in_an_empty_folder(self, pack: ModuleType, folders: Folders) -> None:
        with pytest.raises(FileNotFoundError, match="it has no images"):
            load(pack, "gone.png")

    def test_folder_that_was_never_set(self, pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRLOCK_INPUT_DIR", raising=False)
        with pytest.raises(RuntimeError, match="AIRLOCK_INPUT_DIR is not set"):
            load(pack, "a.png")

    @pytest.mark.parametrize("content", [b"", b"no image at all", png_header(4, 4)], ids=["empty", "text", "no pixels"])
    def test_what_is_not_an_image(self, pack: ModuleType, folders: Folders, content: bytes) -> None:
        (folders.input / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png .*image"):
            load(pack, "a.png")

    @pytest.mark.parametrize("side", [10_000, 60_000], ids=["over our bound", "over Pillow's"])
    def test_decompression_bomb(self, pack: ModuleType, folders: Folders, side: int) -> None:
        (folders.input / "a.png").write_bytes(png_header(side, side))
        with pytest.raises(ValueError, match=r"a\.png is too large"):
            load(pack, "a.png")

    def test_too_many_frames(self, pack: ModuleType, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.modules[f"{MODULE}.codec"], "BATCH_PIXELS_MAX", 20)
        frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "lime", "blue")]
        frames[0].save(folders.input / "a.tiff", save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match="frames have over 20 pixels"):
            load(pack, "a.tiff")


class TestSave:
    def test_counter_starts_at_one_and_counts_the_batch(self, pack: ModuleType, folders: Folders) -> None:
        written = save(pack, grey(batch=3))
        assert written[0] == {"filename": "test_00001_.png", "subfolder": "", "type": "output"}
        assert names(written) == ["test_00001_.png", "test_00002_.png", "test_00003_.png"]
        assert listing(folders.output) == names(written)

    def test_counter_goes_on_after_the_last_and_fills_no_gap(self, pack: ModuleType, folders: Folders) -> None:
        for name in ("test_00041_.png", "test_00003_.png", "test_abc_.png", "testing_00099_.png", "other_00100_.png"):
            (folders.output / name).write_bytes(b"kept")
        assert names(save(pack, grey())) == ["test_00042_.png"]
        assert (folders.output / "test_00041_.png").read_bytes() == b"kept"

    def test_name_taken_meanwhile_is_not_overwritten(
        self, pack: ModuleType, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folders.output / "test_00001_.png").write_bytes(b"kept")
        monkeypatch.setattr(sys.modules[f"{MODULE}.folders"].Series, "_counters", lambda series, stem: iter(()))
        assert names(save(pack, grey())) == ["test_00002_.png"]
        assert (folders.output / "test_00001_.png").read_bytes() == b"kept"

    def test_dangling_link_under_the_next_name_is_not_followed(self, pack: ModuleType, folders: Folders) -> None:
        target = folders.output.parent / "elsewhere.png"
        (folders.output / "test_00001_.png").symlink_to(target)
        save(pack, grey())
        assert not target.exists()

    def test_file_that_cannot_be_written_whole_is_removed(
        self, pack: ModuleType, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class FullDisk:
            def __init__(self, path: Path) -> None:
                path.touch(exist_ok=False)

            def __enter__(self) -> "FullDisk":
                return self

            def __exit__(self, *exc: object) -> None:
                return None

            def write(self, content: bytes) -> int:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "open", lambda path, mode: FullDisk(path))
        with pytest.raises(OSError, match="No space left"):
            save(pack, grey())
        assert listing(folders.output) == []

    def test_every_level_survives_a_round_trip(self, pack: ModuleType, folders: Folders) -> None:
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        Image.fromarray(np.stack([levels] * 3, axis=2)).save(folders.input / "a.png")
        (entry,) = save(pack, load(pack, "a.png")[0])
        np.testing.assert_array_equal(np.asarray(reopen(folders.output / entry["filename"]))[..., 0], levels)

    def test_values_outside_the_range_are_clipped_and_nan_is_black(self, pack: ModuleType, folders: Folders) -> None:
        images = np.array([[[[-1.0, 2.0, np.nan]]]], dtype=np.float32)
        (entry,) = save(pack, images)
        assert reopen(folders.output / entry["filename"]).getpixel((0, 0)) == (0, 255, 0)

    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
    def test_channels_choose_the_mode(self, pack: ModuleType, folders: Folders, channels: int, mode: str) -> None:
        (entry,) = save(pack, grey(channels=channels))
        picture = reopen(folders.output / entry["filename"])
        assert picture.mode == mode and picture.size == (6, 4)

    def test_prompt_and_workflow_lie_in_the_text_chunks(self, pack: ModuleType, folders: Folders) -> None:
        prompt = {"1": {"class_type": "SaveImage", "inputs": {"title": "Kaffee · 咖啡"}}}
        workflow = {"nodes": [1, 2]}
        (entry,) = save(pack, grey(), prompt=prompt, extra_pnginfo={"workflow": workflow})
        texts = reopen(folders.output / entry["filename"]).info
        assert json.loads(texts["prompt"]) == prompt and json.loads(texts["workflow"]) == workflow

    def test_prefix_names_subfolders_and_sizes(self, pack: ModuleType, folders: Folders) -> None:
        (entry,) = save(pack, grey(), "a/b/%width%x%height%")
        assert entry == {"filename": "6x4_00001_.png", "subfolder": "a/b", "type": "output"}
        assert (folders.output / "a" / "b" / "6x4_00001_.png").is_file()

    def test_batch_number_in_the_prefix(self, pack: ModuleType, folders: Folders) -> None:
        assert names(save(pack, grey(batch=2), "f%batch_num%")) == ["f0_00001_.png", "f1_00001_.png"]

    def test_output_folder_is_made(self, pack: ModuleType, folders: Folders) -> None:
        folders.output.rmdir()
        assert names(save(pack, grey())) == ["test_00001_.png"]

    def test_empty_batch_writes_nothing(self, pack: ModuleType, folders: Folders) -> None:
        assert save(pack, grey(batch=0)) == [] and listing(folders.output) == []


class TestSaveRefuses:
    @pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/tmp/x", "..\\x", "C:\\x", "a/..", "a\0b"])
    def test_prefixes_that_leave_the_folder(self, pack: ModuleType, folders: Folders, prefix: str) -> None:
        with pytest.raises(ValueError, match="inside the output folder"):
            save(pack, grey(), prefix)
        assert listing(folders.output) == []

    def test_links_that_leave_the_folder(self, pack: ModuleType, folders: Folders) -> None:
        (folders.output / "link").symlink_to(folders.input)
        with pytest.raises(ValueError, match="symbolic link"):
            save(pack, grey(), "link/x")
        assert listing(folders.input) == []

    @pytest.mark.parametrize("prefix", ["", "a/"])
    def test_prefix_without_a_file_name(self, pack: ModuleType, folders: Folders, prefix: str) -> None:
        with pytest.raises(ValueError, match="does not end in a file name"):
            save(pack, grey(), prefix)

    @pytest.mark.parametrize("shape", [(4, 6, 3), (1, 4, 6, 2)])
    def test_what_is_not_an_image_batch(self, pack: ModuleType, folders: Folders, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="images must be"):
            save(pack, np.zeros(shape, dtype=np.float32))


class TestPreview:
    def test_writes_into_the_temp_folder_under_a_prefix_of_its_own(self, pack: ModuleType, folders: Folders) -> None:
        node = pack.NODE_CLASS_MAPPINGS["PreviewImage"]
        first, second = (node().save_images(grey())["ui"]["images"][0] for _ in range(2))
        assert first["type"] == "temp" and first["filename"].startswith("ComfyUI_temp_")
        assert first["filename"] != second["filename"]
        assert listing(folders.temp) == sorted([first["filename"], second["filename"]])
        assert listing(folders.output) == []
