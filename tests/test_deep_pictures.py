# SPDX-License-Identifier: Apache-2.0
"""Pictures of 16 bits and floats: TIFF, PNG and camera RAW. Truth are the numbers that the tests put into the files."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch

from pcvideo.video_io import VideoError, iter_frames, open_source, read_clip, read_window, write_picture

tifffile = pytest.importorskip("tifffile")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("av")

HEIGHT, WIDTH = 7, 9


def numbers(*shape):
    """Whole numbers over all of 16 bits, both ends among them."""
    values = np.random.default_rng(sum(shape)).integers(0, 65536, shape, dtype=np.uint16)
    values.flat[:2] = 0, 65535
    return values


def as_numbers(frames):
    """(T, C, H, W) in [0, 1] as the numbers of 16 bits that they stand for, exactly, or not at all."""
    scaled = frames.double().numpy() * 65535
    assert np.abs(scaled - scaled.round()).max() < 0.01
    return scaled.round().astype(np.uint16)


def png(picture, *, colour_type):
    """A 16-bit PNG by the standard (ISO/IEC 15948), without any library for pictures."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = picture.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in picture)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_page_of_a_16_bit_tiff_is_read_exactly(tmp_path, compression, byteorder):
    grey, colour = numbers(5, HEIGHT, WIDTH), numbers(5, HEIGHT, WIDTH, 3)
    options = {"compression": compression, "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="minisblack", **options)
    tifffile.imwrite(tmp_path / "colour.tiff", colour, photometric="rgb", **options)
    planes = np.ascontiguousarray(np.moveaxis(colour, -1, 1))
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate", **options)
    for name, truth in (("grey.tif", grey[:, None]), ("colour.tiff", planes), ("planes.tif", planes)):
        source = open_source(tmp_path / name)
        assert (source.count, source.height, source.width, source.bit_depth) == (5, HEIGHT, WIDTH, 16)
        frames = read_clip(tmp_path / name).frames
        np.testing.assert_array_equal(as_numbers(frames), truth)
        assert torch.equal(read_window(source, 1, 2, step=2), frames[1:4:2])


def test_a_tiff_of_many_pages_is_read_page_by_page(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "long.tif", numbers(40, HEIGHT, WIDTH), photometric="minisblack")
    read = []
    original = tifffile.TiffPage.asarray
    monkeypatch.setattr(
        tifffile.TiffPage, "asarray", lambda page, *rest: read.append(page.index) or original(page, *rest)
    )
    monkeypatch.setattr(
        tifffile.TiffFrame, "asarray", lambda page, *rest: read.append(page.index) or original(page, *rest)
    )
    frames = iter_frames(tmp_path / "long.tif", start=10)
    assert read == []
    next(frames), next(frames)
    assert sorted(set(read)) == [10, 11]


def test_a_folder_of_16_bit_pictures_is_read_in_natural_order_and_exactly(tmp_path):
    values = numbers(12, HEIGHT, WIDTH, 3)
    for index, picture in enumerate(values):
        if index % 2:
            tifffile.imwrite(tmp_path / f"frame{index}.tif", picture, photometric="rgb")
        else:
            (tmp_path / f"frame{index}.png").write_bytes(png(picture, colour_type=2))
    clip = read_clip(tmp_path)
    np.testing.assert_array_equal(as_numbers(clip.frames), np.moveaxis(values, -1, 1))
    assert open_source(tmp_path).bit_depth == 16


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_16_bit_png_is_read_exactly_without_its_alpha(tmp_path, colour_type, channels):
    values = numbers(HEIGHT, WIDTH, channels)
    (tmp_path / "one.png").write_bytes(png(values, colour_type=colour_type))
    clip = read_clip(tmp_path / "one.png")
    truth = values[..., : 3 if channels > 2 else 1]
    np.testing.assert_array_equal(as_numbers(clip.frames)[0], np.moveaxis(truth, -1, 0))
    assert any("alpha" in note for note in clip.notes) == (channels in {2, 4})


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_in_16_or_8_bits_comes_back_exactly(tmp_path, suffix, channels):
    for depth in (16, 8):
        most = 2**depth - 1
        values = numbers(channels, HEIGHT, WIDTH) // (65535 // most)
        path = tmp_path / f"{depth}{suffix}"
        write_picture(path, torch.from_numpy(values.astype(np.float32)) / most, bit_depth=depth)
        # Read by those who have no part in writing it.
        if suffix == ".png" and channels == 1:
            found = np.asarray(Image.open(path))
        elif suffix == ".png":
            found = np.round(read_clip(path).frames[0].double().numpy().transpose(1, 2, 0) * most)
        else:
            found = tifffile.imread(path)
        np.testing.assert_array_equal(found, np.moveaxis(values, 0, -1).squeeze())


def test_floats_are_taken_as_they_are_and_others_refused_by_what_they_hold(tmp_path):
    floats = np.random.default_rng(0).random((HEIGHT, WIDTH), dtype=np.float32)
    tifffile.imwrite(tmp_path / "float.tif", floats)
    np.testing.assert_array_equal(read_clip(tmp_path / "float.tif").frames[0, 0].numpy(), floats)
    for name, values, words in [
        ("wide", 10 * floats, r"range over \[.*expected \[0, 1\]"),
        ("nan", np.where(floats > 0.5, np.nan, floats), "range over"),
        ("long", numbers(HEIGHT, WIDTH).astype(np.uint32), "no known range"),
    ]:
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
        with pytest.raises(VideoError, match=words):
            read_clip(tmp_path / f"{name}.tif")


def test_white_that_is_zero_is_turned_over(tmp_path):
    values = numbers(HEIGHT, WIDTH)
    tifffile.imwrite(tmp_path / "negative.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(as_numbers(read_clip(tmp_path / "negative.tif").frames)[0, 0], 65535 - values)


def test_what_is_damaged_is_named_by_its_frame_and_can_be_repeated(tmp_path):
    values = numbers(5, HEIGHT, WIDTH)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, values, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        place = file.pages[2].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[place + 20 : place + 60] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"stack\.tif: frame 2 is broken"):
        read_clip(path)
    clip = read_clip(path, on_error="repeat")
    np.testing.assert_array_equal(as_numbers(clip.frames)[:, 0], values[[0, 1, 1, 3, 4]])

    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(numbers(3, HEIGHT, WIDTH, 3)):
        whole = png(picture, colour_type=2)
        (tmp_path / "pictures" / f"{index}.png").write_bytes(whole[: len(whole) // 2] if index == 1 else whole)
    with pytest.raises(VideoError, match=r"frame 1 is broken \(1\.png"):
        read_clip(tmp_path / "pictures")


def test_a_tiff_that_is_cut_off_is_never_silent(tmp_path):
    tifffile.imwrite(tmp_path / "whole.tif", numbers(6, HEIGHT, WIDTH), photometric="minisblack", metadata=None)
    content = (tmp_path / "whole.tif").read_bytes()
    for share in (0.001, 0.3, 0.6, 0.95):
        (tmp_path / "cut.tif").write_bytes(content[: int(share * len(content))])
        assert "cut off" in told_of(tmp_path / "cut.tif") or "breaks off" in told_of(tmp_path / "cut.tif")


def told_of(path):
    try:
        return " ".join(read_clip(path).notes)
    except VideoError as error:
        return str(error)


def test_frames_behind_a_single_page_are_refused_not_dropped(tmp_path):
    tifffile.imwrite(tmp_path / "block.tif", numbers(6, HEIGHT, WIDTH), photometric="minisblack", truncate=True)
    with pytest.raises(VideoError, match="one block behind a single page"):
        open_source(tmp_path / "block.tif")


def test_pages_of_two_sizes_are_an_error_and_thumbnails_are_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "thumbnail.tif") as file:
        for values, kind in ((numbers(HEIGHT, WIDTH), 0), (numbers(3, 4), 1), (numbers(HEIGHT, WIDTH) // 2, 0)):
            file.write(values, photometric="minisblack", subfiletype=kind)
    clip = read_clip(tmp_path / "thumbnail.tif")
    assert len(clip.frames) == 2
    assert "1 reduced pages" in clip.notes[0]
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(numbers(HEIGHT, WIDTH), photometric="minisblack")
        file.write(numbers(HEIGHT, WIDTH + 1), photometric="minisblack")
    with pytest.raises(VideoError, match="page 1 is 7x10, the first 7x9"):
        read_clip(tmp_path / "mixed.tif")


def dng(path, level, orientation=1):
    """A raw picture: a mosaic of one grey `level` of 16 bits, RGGB, 64x96, white balance 1."""
    mosaic = np.full((64, 96), level, np.uint16)
    one = (1, 1)
    tags = [
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, "s", 0, "pcvideo test", True),  # UniqueCameraModel
        (50714, "H", 1, 0, True),  # BlackLevel
        (50717, "H", 1, 65535, True),  # WhiteLevel
        (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),  # ColorMatrix1
        (50728, "2I", 3, one * 3, True),  # AsShotNeutral
    ]
    tifffile.imwrite(path, mosaic, photometric="cfa", extratags=tags, metadata=None)


def test_camera_raw_is_developed_alike_in_every_frame(tmp_path):
    pytest.importorskip("rawpy", reason="needs rawpy: pip install pcvideo[raw]")
    for number, level in enumerate((6000, 12000, 24000)):
        dng(tmp_path / f"IMG_{9 + number}.dng", level)
    source = open_source(tmp_path)
    assert (source.count, source.height, source.width, source.bit_depth) == (3, 64, 96, 16)
    frames = read_clip(tmp_path).frames
    assert frames.shape == (3, 3, 64, 96)
    # LibRaw's default curve is that of BT.709: 1.099 L ** 0.45 - 0.099. Fitted to each frame, all would be as bright.
    for frame, level in zip(frames, (6000, 12000, 24000), strict=True):
        expected = 1.099 * (level / 65535) ** 0.45 - 0.099
        assert frame[1].mean().item() == pytest.approx(expected, abs=0.02)


def test_camera_raw_that_lies_on_its_side_is_turned_upright(tmp_path):
    pytest.importorskip("rawpy", reason="needs rawpy: pip install pcvideo[raw]")
    dng(tmp_path / "turned.dng", 9000, orientation=6)
    source = open_source(tmp_path / "turned.dng")
    assert (source.height, source.width) == (96, 64)
    assert read_clip(tmp_path / "turned.dng").frames.shape == (1, 3, 96, 64)


def test_beside_other_pictures_camera_raw_is_left_out(tmp_path):
    write_picture(tmp_path / "IMG_1.png", torch.zeros(3, 4, 4))
    (tmp_path / "IMG_1.CR2").write_bytes(b"raw")
    assert open_source(tmp_path).count == 1


def test_without_rawpy_the_error_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / "IMG_1.dng").write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(ImportError, match=r'pip install "pcvideo\[raw\]"'):
        read_clip(tmp_path)


def test_what_write_picture_can_not_write_is_refused_by_name(tmp_path):
    for path, frame, options, words in [
        ("a.jpg", torch.zeros(1, 2, 2), {}, r"must end in \.png"),
        ("a.png", torch.zeros(1, 2, 2), {"bit_depth": 12}, "bit_depth must be one of 8, 16"),
        ("a.png", torch.zeros(2, 2, 2), {}, "1 or 3 channels"),
        ("a.tif", torch.full((1, 2, 2), torch.nan), {}, "NaN"),
    ]:
        with pytest.raises(ValueError, match=words):
            write_picture(tmp_path / path, frame, **options)
    with pytest.raises(TypeError, match=r"float in \[0, 1\]"):
        write_picture(tmp_path / "a.png", torch.zeros(1, 2, 2, dtype=torch.uint8), bit_depth=16)
    assert list(tmp_path.iterdir()) == []
