# SPDX-License-Identifier: Apache-2.0
"""Reading and writing clips. Truth is a clip computed in numpy; files are made here with PyAV and Pillow."""

import math
import os
import wave
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch

from pcvideo import video_io
from pcvideo.video_io import VideoError, iter_frames, probe, read_clip, read_window, to_clip_tensor

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")

COUNT, HEIGHT, WIDTH = 40, 48, 64


def moving_waves(count=COUNT, height=HEIGHT, width=WIDTH):
    """Colour frames (T, H, W, 3) uint8 that move and are smooth, so that lossy codecs keep them."""
    t, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    waves = (np.sin(x / 7 + t / 5), np.cos(y / 9 - t / 4), np.sin((x + y) / 11 + t / 3))
    return np.stack([128 + 100 * wave for wave in waves], axis=-1).round().astype(np.uint8)


def encode(path, codec, frames, *, pixels="yuv420p", times=None, options=None, rate=25, container=None):
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.gop_size = 12
        stream.options, stream.bit_rate = options or {}, 4_000_000
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = (index if times is None else times[index]), Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


KINDS = {
    "h264.mp4": ("libx264", {}),
    "h264.mkv": ("libx264", {}),
    "open_gop.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=10:bframes=3"}),
    "h264.avi": ("libx264", {}),
    "mpeg4.avi": ("mpeg4", {"qscale": "2"}),
    "mpeg4.mp4": ("mpeg4", {}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "vp8.webm": ("libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "raw.h264": ("libx264", {}),
}


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for name, (codec, options) in KINDS.items():
        if codec in av.codecs_available:
            made[name] = encode(folder / name, codec, moving_waves(), options=options)
    return made


def of_kind(videos, name):
    if name not in videos:
        pytest.skip(f"this PyAV has no encoder {KINDS[name][0]}")
    return videos[name]


def as_clip(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def damage(path, target, number):
    """Copy the video with the data of packet `number` set to zero."""
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        payload, time = bytes(packets[number]), packets[number].pts
        index = sorted(packet.pts for packet in packets).index(time)
    data = path.read_bytes()
    assert data.count(payload) == 1
    target.write_bytes(data.replace(payload, bytes(len(payload))))
    return target, index


@pytest.mark.parametrize("name", KINDS)
def test_a_video_reads_as_the_frames_that_were_written(videos, name):
    clip = read_clip(of_kind(videos, name))
    assert clip.frames.shape == (COUNT, 3, HEIGHT, WIDTH)
    assert clip.frames.dtype == torch.float32
    error = (clip.frames - as_clip(moving_waves())).abs().mean((1, 2, 3))
    # The neighbouring frame is 0.05 away and more; lossy coding costs less than half of that.
    assert float(error.max()) < 0.025
    assert clip.rate == 25
    assert clip.notes == ()


def test_a_lossless_video_reads_bit_for_bit(tmp_path):
    if "libx264rgb" not in av.codecs_available:
        pytest.skip("this PyAV has no lossless RGB encoder")
    path = encode(tmp_path / "exact.mkv", "libx264rgb", moving_waves(), pixels="rgb24", options={"qp": "0"})
    assert torch.equal(read_clip(path).frames, as_clip(moving_waves()))
    assert torch.equal(read_window(path, 13, 5, step=4), as_clip(moving_waves())[13:33:4])


@pytest.mark.parametrize("name", KINDS)
def test_a_window_after_a_seek_equals_the_full_decode_bit_for_bit(videos, name):
    path = of_kind(videos, name)
    frames = read_clip(path).frames
    source = video_io.open_source(path)
    for start in range(0, COUNT - 2):
        assert torch.equal(read_window(source, start, 3), frames[start : start + 3]), start
    assert torch.equal(read_window(source, 5, 5, step=7), frames[5::7])


def test_a_window_that_reaches_beyond_the_end_is_an_error(videos):
    with pytest.raises(VideoError, match=r"ends before the window.*has 40"):
        read_window(of_kind(videos, "mpeg4.avi"), 38, 3)


def test_start_stop_and_step_are_those_of_a_slice(videos):
    path = of_kind(videos, "mpeg4.mp4")
    frames = read_clip(path).frames
    clip = read_clip(path, start=7, stop=30, step=5)
    assert torch.equal(clip.frames, frames[7:30:5])
    assert clip.rate == 5
    with pytest.raises(VideoError, match="has 40 frames, none is left of start=40"):
        read_clip(path, start=40)


def test_frames_come_one_by_one_and_a_fault_only_when_its_turn_comes(videos, tmp_path):
    path, index = damage(of_kind(videos, "mpeg4.mp4"), tmp_path / "broken.mp4", 17)
    frames = iter_frames(path)
    intact = read_clip(videos["mpeg4.mp4"]).frames
    for expected in intact[:index]:
        assert torch.equal(next(frames), expected)
    with pytest.raises(VideoError, match=f"frame {index} is broken"):
        next(frames)


def test_grey_is_the_bt601_luma(videos):
    path = of_kind(videos, "mpeg4.mp4")
    colour = read_clip(path).frames.numpy()
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    grey = read_clip(path, channels=1, to_grey=True)
    np.testing.assert_allclose(grey.frames[:, 0].numpy(), luma, atol=1e-6)
    assert "made grey" in grey.notes[0]
    with pytest.raises(ValueError, match="expects C=1, got 3; to_grey=True"):
        read_clip(path, channels=1)


def test_grey_content_in_a_colour_format_is_grey_without_asking(tmp_path):
    frames = np.repeat(moving_waves(5)[..., :1], 3, axis=-1)
    clip = read_clip(encode(tmp_path / "grey.mp4", "mpeg4", frames), channels=1)
    assert clip.frames.shape == (5, 1, HEIGHT, WIDTH)
    assert "content grey" in clip.notes[0]


def test_resizing_averages_where_it_shrinks():
    clip = torch.zeros(1, 1, 4, 8)
    clip[..., ::2] = 1
    small = video_io.resize_frames(clip, (2, 2))
    # Stripes of one pixel: without a low-pass the result would be stripes, or all zero.
    torch.testing.assert_close(small, torch.full((1, 1, 2, 2), 0.5), atol=0.1, rtol=0)


def test_probe_counts_the_frames_and_measures_the_upright_size(videos):
    info = probe(of_kind(videos, "h264.mkv"))
    assert (info.frames, info.height, info.width, info.rate) == (COUNT, HEIGHT, WIDTH, 25)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["quarter right", "half", "quarter left"],
)
def test_a_rotation_tag_turns_the_frames_upright(videos, tmp_path, matrix, turns):
    """The matrix stands in the track header box (ISO/IEC 14496-12, 8.3.2), 16.16 fixed point, 40 bytes in."""
    plain = of_kind(videos, "mpeg4.mp4")
    data = bytearray(plain.read_bytes())
    begin = data.find(b"tkhd") + 4 + 40
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[begin + place : begin + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    clip = read_clip(path)
    # numpy counts quarter turns to the left.
    expected = np.rot90(read_clip(plain).frames.numpy(), turns, axes=(2, 3))
    np.testing.assert_array_equal(clip.frames.numpy(), expected)
    assert "turned upright" in clip.notes[0]
    assert (probe(path).height, probe(path).width) == expected.shape[2:]


def test_a_variable_rate_is_noted_with_its_average(tmp_path):
    times = [index + 3 * (index // 5) for index in range(20)]
    clip = read_clip(encode(tmp_path / "variable.mp4", "mpeg4", moving_waves(20), times=times))
    assert len(clip.frames) == 20
    assert clip.rate == pytest.approx(19 / ((times[-1] - times[0]) / 25))
    assert "variable frame rate: 6.25 to 25" in clip.notes[0]


def test_a_wrong_frame_count_in_the_header_is_noted_and_not_believed(videos, tmp_path):
    """AVI keeps the stream's length 32 bytes into the body of its stream header."""
    data = bytearray(of_kind(videos, "mpeg4.avi").read_bytes())
    place = data.find(b"strh") + 8 + 32
    assert int.from_bytes(data[place : place + 4], "little") == COUNT
    data[place : place + 4] = (90).to_bytes(4, "little")
    path = tmp_path / "boasting.avi"
    path.write_bytes(data)
    clip = read_clip(path)
    assert len(clip.frames) == COUNT == probe(path).frames
    assert clip.notes == ("the container promises 90 frames, the file holds 40",)


def test_a_file_cut_off_in_the_middle_is_never_silent(videos, tmp_path):
    for name in ("h264.mkv", "mpeg4.avi", "h264.mp4"):
        data = of_kind(videos, name).read_bytes()
        path = tmp_path / name
        path.write_bytes(data[: len(data) // 2])
        try:
            clip = read_clip(path, on_error="skip")
        except VideoError as error:
            assert name in str(error)  # noqa: PT017 - either outcome is right, silence is not
        else:
            assert len(clip.frames) < COUNT
            assert clip.notes, name


def test_a_broken_frame_is_an_error_that_names_it_and_the_mend(videos, tmp_path):
    for name in ("h264.mp4", "mpeg4.mp4", "mpeg4.avi", "vp8.webm"):
        path, index = damage(of_kind(videos, name), tmp_path / name, 17)
        with pytest.raises(VideoError, match=rf"{name}: frame {index} is broken.*on_error=\"skip\""):
            read_clip(path)


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.mp4", "vp8.webm"])
def test_skip_and_repeat_mend_a_broken_frame_and_note_its_number(videos, tmp_path, name):
    path, index = damage(of_kind(videos, name), tmp_path / name, 17)
    intact = read_clip(videos[name]).frames
    skipped, repeated = read_clip(path, on_error="skip"), read_clip(path, on_error="repeat")
    assert len(skipped.frames) == COUNT - 1
    assert len(repeated.frames) == COUNT
    assert f"broken frames {index} were left out" in skipped.notes[-1]
    assert f"broken frames {index} were replaced" in repeated.notes[-1]
    assert torch.equal(repeated.frames[index], repeated.frames[index - 1])
    # Frame 36 and those after it hang on a new key frame.
    assert torch.equal(repeated.frames[36:], intact[36:])
    assert torch.equal(read_window(path, 36, 4), intact[36:])


def test_frames_lost_at_the_start_are_repeated_from_the_first_good_one(tmp_path):
    for index in range(4):
        Image.fromarray(moving_waves(4)[index]).save(tmp_path / f"{index}.png")
    (tmp_path / "0.png").write_bytes(b"no picture")
    clip = read_clip(tmp_path, on_error="repeat")
    assert torch.equal(clip.frames, as_clip(moving_waves(4))[[1, 1, 2, 3]])


def sound(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def test_files_that_are_no_video_say_what_they_are(tmp_path, videos):
    sound(tmp_path / "sound.wav")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "notes.txt").write_text("just some words\n" * 50)
    (tmp_path / "noise.gif").write_bytes(b"GIF89a, or so it says")
    for name, words in {
        "sound.wav": "sound only",
        "empty.mp4": "is empty",
        "words.mp4": "no video file|text file",
        "noise.mkv": "no video file",
        "notes.txt": "text file|no video file",
        "noise.gif": "no picture that can be read",
    }.items():
        with pytest.raises(VideoError, match=words) as caught:
            read_clip(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"missing.mp4 does not exist"):
        read_clip(tmp_path / "missing.mp4")


def test_a_name_with_a_colon_or_a_per_cent_sign_is_only_a_name(tmp_path):
    for name in ("a:b.mp4", "frame%03d.mp4"):
        path = tmp_path / name
        path.write_bytes(encode(tmp_path / "plain.mp4", "mpeg4", moving_waves(3)).read_bytes())
        assert len(read_clip(path).frames) == 3


def test_a_folder_is_read_in_natural_order_without_hidden_files_and_with_its_gaps_noted(tmp_path):
    for number in (10, 2, 1, 3, 12):
        Image.fromarray(np.full((4, 6), number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / ".3.png").write_bytes(b"")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    clip = read_clip(tmp_path)
    assert (clip.frames[:, 0, 0, 0] * 255).round().tolist() == [1, 2, 3, 10, 12]
    assert clip.frames.shape == (5, 1, 4, 6)
    assert clip.rate is None
    assert clip.notes == ("the numbering of the pictures has gaps: 4-9, 11 missing",)


def test_every_fifth_picture_is_a_numbering_without_gaps(tmp_path):
    for number in range(0, 25, 5):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"frame_{number:04d}.png")
    assert read_clip(tmp_path).notes == ()


def test_pictures_of_other_kinds_become_frames(tmp_path):
    deep = (np.arange(24, dtype=np.uint16) * 2700).reshape(4, 6)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_clip(tmp_path / "deep.png").frames[0, 0].numpy(), deep / 65535, rtol=1e-6)
    colour = moving_waves(1, 4, 6)[0]
    glass = np.concatenate([colour, np.full((4, 6, 1), 90, np.uint8)], axis=-1)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    clip = read_clip(tmp_path / "glass.png")
    assert torch.equal(clip.frames, as_clip(colour[None]))
    assert "alpha" in clip.notes[0]


def test_pictures_of_two_sizes_or_none_at_all_are_errors(tmp_path):
    with pytest.raises(VideoError, match="holds no pictures"):
        read_clip(tmp_path)
    for number, width in enumerate((6, 6, 8)):
        Image.fromarray(np.zeros((4, width), np.uint8)).save(tmp_path / f"{number}.png")
    with pytest.raises(VideoError, match=r"2.png is 4x8, 0.png is 4x6"):
        read_clip(tmp_path)


def test_a_list_of_pictures_arrays_or_paths_is_a_clip(tmp_path):
    frames = moving_waves(3)
    expected = as_clip(frames)
    pictures = [Image.fromarray(frame) for frame in frames]
    paths = [tmp_path / f"{number}.png" for number in (5, 1, 3)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    assert torch.equal(read_clip(pictures).frames, expected)
    assert torch.equal(read_clip(list(frames), layout="THWC").frames, expected)
    assert torch.equal(read_clip(list(expected)).frames, expected)
    assert torch.equal(read_clip([str(path) for path in paths]).frames, expected)
    with pytest.raises(ValueError, match="one size, frame 0 is"):
        read_clip([pictures[0], pictures[1].resize((8, 8))])
    with pytest.raises(ValueError, match="empty list"):
        read_clip([])


def test_a_grey_gif_reads_exactly_and_with_its_rate(tmp_path):
    frames = moving_waves(6)[..., 0]
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "waves.gif", save_all=True, append_images=images[1:], duration=40, loop=0)
    clip = read_clip(tmp_path / "waves.gif", channels=1)
    assert torch.equal(clip.frames[:, 0], torch.from_numpy(frames).float() / 255)
    assert clip.rate == pytest.approx(25)
    assert torch.equal(read_window(tmp_path / "waves.gif", 2, 2, step=2, channels=1, to_grey=True), clip.frames[2:5:2])


@pytest.mark.parametrize("layout", ["".join(axes) for axes in permutations("TCHW")])
def test_a_declared_layout_is_taken_in_any_order(layout):
    sizes = {"T": 5, "C": 3, "H": 7, "W": 9}
    clip = np.random.default_rng(0).random(tuple(sizes.values()), dtype=np.float32)
    shuffled = np.transpose(clip, ["TCHW".index(axis) for axis in layout])
    np.testing.assert_array_equal(to_clip_tensor(shuffled, layout=layout).numpy(), clip)


def test_the_axes_are_guessed_only_where_they_are_clear():
    assert to_clip_tensor(np.zeros((5, 1, 8, 8), np.uint8)).shape == (5, 1, 8, 8)
    assert to_clip_tensor(np.zeros((5, 8, 9), np.uint8)).shape == (5, 1, 8, 9)
    assert to_clip_tensor(np.zeros((2, 5, 3, 8, 8), np.uint8)).shape == (2, 5, 3, 8, 8)
    assert to_clip_tensor(np.zeros((8, 9, 3), np.uint8), layout="HWC").shape == (1, 3, 8, 9)
    assert to_clip_tensor(np.zeros((20, 4, 8, 9), np.uint8), layout="TBHW").shape == (4, 20, 1, 8, 9)
    with pytest.raises(ValueError, match=r'layout="THWC" or layout="TCHW"'):
        to_clip_tensor(np.zeros((5, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r'layout="HWC" or layout="THW"'):
        to_clip_tensor(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="1 or 3 channels at axis 1"):
        to_clip_tensor(np.zeros((5, 8, 8, 8), np.uint8))
    for layout in ("THW", "TCHX", "TTHW", "TCW", ""):
        with pytest.raises(ValueError, match="layout"):
            to_clip_tensor(np.zeros((5, 3, 8, 8), np.uint8), layout=layout)


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1), (np.float16, 1)]
)
def test_every_dtype_spans_zero_to_one(dtype, largest):
    array = np.array([0, largest], dtype).reshape(1, 1, 1, 2)
    for given in (array, torch.from_numpy(array)):
        clip = to_clip_tensor(given)
        assert clip.flatten().tolist() == [0, 1]
        assert clip.dtype == (torch.float64 if dtype is np.float64 else torch.float32)


def test_values_outside_the_range_are_an_error_unless_the_range_is_given():
    array = np.zeros((3, 1, 4, 4), np.float32)
    array[1] = 200
    with pytest.raises(ValueError, match=r"frame 1 ranges over \[200, 200\]"):
        read_clip(array)
    assert float(read_clip(array, value_range=(0, 255)).frames[1].max()) == pytest.approx(200 / 255)
    assert float(read_clip(array - 100, value_range=(-100, 100)).frames[0].max()) == 0
    with pytest.raises(TypeError, match="value_range"):
        read_clip(array.astype(np.int32))
    for wrong in ((1, 0), (0, math.inf)):
        with pytest.raises(ValueError, match="value_range"):
            read_clip(array, value_range=wrong)


def test_nan_is_an_error_that_names_the_frame_or_is_repaired_from_its_neighbours():
    clip = np.random.default_rng(0).random((6, 1, 3, 3), dtype=np.float32)
    holed = clip.copy()
    holed[0, 0, 0, 0] = holed[1, 0, 0, 0] = np.nan
    holed[3, 0, 1, 2] = holed[4, 0, 1, 2] = np.inf
    with pytest.raises(ValueError, match="frame 0 holds NaN"):
        read_clip(holed)
    expected = clip.copy()
    expected[:2, 0, 0, 0] = clip[2, 0, 0, 0]
    expected[3:5, 0, 1, 2] = clip[2, 0, 1, 2]
    mended = read_clip(holed, nan="repair")
    np.testing.assert_array_equal(mended.frames.numpy(), expected)
    assert "frames 0-1, 3-4" in mended.notes[0]
    batch = to_clip_tensor(np.stack([clip, holed]), nan="repair")
    np.testing.assert_array_equal(batch.numpy(), np.stack([clip, expected]))
    holed[:, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="in every frame"):
        read_clip(holed, nan="repair")


def test_channels_are_repeated_dropped_or_refused():
    grey, colour = torch.rand(4, 1, 5, 5), torch.rand(4, 3, 5, 5)
    assert torch.equal(read_clip(grey, channels=3).frames, torch.cat([grey] * 3, dim=1))
    with pytest.raises(ValueError, match="expects C=1, got 3; to_grey=True"):
        read_clip(torch.zeros(4, 3, 5, 5), channels=1)
    glass = torch.cat([colour, grey], dim=1).permute(0, 2, 3, 1)
    clip = read_clip(glass, layout="THWC")
    assert torch.equal(clip.frames, colour)
    assert "alpha" in clip.notes[0]


def test_array_files_read_as_their_arrays_and_pickled_code_is_never_run(tmp_path):
    frames = moving_waves(3).transpose(0, 3, 1, 2)
    np.save(tmp_path / "a.npy", frames)
    np.savez(tmp_path / "b.npz", other=np.zeros(3), frames=frames)
    torch.save(torch.from_numpy(frames.copy()), tmp_path / "c.pt")
    for name in ("a.npy", "b.npz", "c.pt"):
        np.testing.assert_array_equal(read_clip(tmp_path / name).frames.numpy(), (frames / np.float32(255)))
    np.savez(tmp_path / "two.npz", left=frames, right=frames)
    with pytest.raises(VideoError, match="holds left, right"):
        read_clip(tmp_path / "two.npz")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:500])
    with pytest.raises(VideoError, match="can't be read as an array"):
        read_clip(tmp_path / "cut.npy")

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save(Trap(), tmp_path / "trap.pt")
    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    for name in ("trap.pt", "trap.npy"):
        with pytest.raises(VideoError, match=name):
            read_clip(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_bad_arguments_are_refused_by_name():
    clip = torch.zeros(3, 1, 4, 4)
    for wrong in ({"start": -1}, {"step": 0}, {"on_error": "ignore"}, {"nan": "zero"}, {"size": (0, 4)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read_clip(clip, **wrong)
    with pytest.raises(TypeError, match="start"):
        read_clip(clip, start=1.5)
    with pytest.raises(TypeError, match="source must be"):
        read_clip(7)
    with pytest.raises(ValueError, match="at least one frame"):
        read_clip(torch.zeros(0, 1, 4, 4))
    with pytest.raises(ValueError, match="one clip, got a batch"):
        read_clip(torch.zeros(2, 3, 1, 4, 4))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.avi", "out.webm"])
def test_a_written_video_comes_back_nearly_as_it_was(tmp_path, name):
    frames = as_clip(moving_waves(12))
    video_io.write_video(tmp_path / name, frames, 12.5)
    clip = read_clip(tmp_path / name)
    assert clip.frames.shape == frames.shape
    assert clip.rate == pytest.approx(12.5, rel=1e-3)
    assert 10 * math.log10(1 / float(((clip.frames - frames) ** 2).mean())) > 30


def test_an_odd_size_is_padded_by_one_pixel_and_grey_is_taken(tmp_path):
    frames = torch.from_numpy(moving_waves(4, 37, 51)[..., :1]).permute(0, 3, 1, 2)
    video_io.write_video(tmp_path / "odd.mp4", frames, 25)
    clip = read_clip(tmp_path / "odd.mp4", channels=1, to_grey=True)
    assert clip.frames.shape == (4, 1, 38, 52)
    assert float((clip.frames[..., :37, :51] - frames / 255).abs().mean()) < 0.02


def test_floats_outside_the_range_are_clamped_and_nan_is_refused(tmp_path):
    frames = torch.tensor([-1.0, 0.0, 0.5, 3.0]).reshape(1, 1, 2, 2)
    video_io.write_frames(tmp_path / "frames", frames)
    assert np.asarray(Image.open(tmp_path / "frames" / "00000.png")).flatten().tolist() == [0, 0, 128, 255]
    with pytest.raises(ValueError, match="frame 0 holds NaN"):
        video_io.write_gif(tmp_path / "nan.gif", frames * math.nan, 10)


def test_written_pictures_come_back_exactly_and_do_not_mix_with_others(tmp_path):
    frames = as_clip(moving_waves(11))
    video_io.write_frames(tmp_path / "frames", frames)
    assert torch.equal(read_clip(tmp_path / "frames").frames, frames)
    with pytest.raises(ValueError, match="holds pictures already"):
        video_io.write_frames(tmp_path / "frames", frames)


def test_a_written_grey_gif_comes_back_exactly_and_loops_if_asked(tmp_path):
    frames = as_clip(moving_waves(5))[:, :1]
    for loop in (True, False):
        video_io.write_gif(tmp_path / "waves.gif", frames, 10, loop=loop)
        clip = read_clip(tmp_path / "waves.gif", channels=1)
        assert torch.equal(clip.frames, frames)
        assert clip.rate == pytest.approx(10)
        assert ("loop" in Image.open(tmp_path / "waves.gif").info) is loop


@pytest.mark.parametrize("write", [video_io.write_video, video_io.write_gif])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, write):
    path = tmp_path / ("out.gif" if write is video_io.write_gif else "out.mp4")
    path.write_bytes(b"the old one")

    def breaks_off():
        yield from torch.rand(3, 3, 16, 16)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        write(path, breaks_off(), 10)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_not_be_written_is_refused_by_name(tmp_path):
    frames = torch.rand(3, 3, 16, 16)
    for path, given, rate, words in (
        ("out.txt", frames, 10, "path must end in"),
        ("out.mp4", frames, 0, "rate"),
        ("out.mp4", frames[None], 10, "take one clip"),
        ("out.mp4", frames[:0], 10, "at least one frame"),
        ("out.mp4", frames[:, :2], 10, "1 or 3 channels"),
        ("out.mp4", [frames[0], frames[1, :, 1:]], 10, "one size"),
    ):
        with pytest.raises(ValueError, match=words):
            video_io.write_video(tmp_path / path, given, rate)
    assert list(tmp_path.iterdir()) == []
