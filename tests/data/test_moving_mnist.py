# SPDX-License-Identifier: Apache-2.0
import logging
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pcvideo.data.drawn_digits import procedural_digits
from pcvideo.data.moving_mnist import MovingMNIST, MovingMNISTFile, _hash, read_moving_mnist_test

WHITE = np.full((3, 8, 8), 255, dtype=np.uint8)
SHARED = Path(os.environ.get("PCVIDEO_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_mnist = pytest.mark.skipif(
    not (SHARED / "mnist" / "t10k-images-idx3-ubyte.gz").is_file(), reason="needs MNIST's t10k images"
)


def random_digits(count=7, height=9, width=6):
    return np.random.default_rng(0).integers(0, 256, (count, height, width), dtype=np.uint8)


def write_idx(path, images):
    header = bytes([0, 0, 8, images.ndim]) + b"".join(side.to_bytes(4, "big") for side in images.shape)
    path.write_bytes(header + images.tobytes())
    return path


# An independent generator: whole numbers of Python, loops, slices


def splitmix(counter):
    mask = 2**64 - 1
    value = (counter * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def looped_clip(digits, index, *, frames, size, num_digits, speed, seed, split):
    stream = splitmix(splitmix(splitmix(seed) + split) + index)
    free = [size[0] - digits.shape[1], size[1] - digits.shape[2]]
    clip = np.zeros((frames, 1, *size), dtype=np.uint8)
    for number in range(num_digits):
        which, *position, turn = (splitmix(stream + 4 * number + draw) / 2**64 for draw in range(4))
        digit = digits[int(which * len(digits))]
        angle = 2 * math.pi * int(turn * 65536) / 65536
        velocity = [speed * math.sin(angle), speed * math.cos(angle)]
        for frame in range(frames):
            for axis in range(2):
                position[axis] += velocity[axis]
                if position[axis] <= 0:
                    position[axis], velocity[axis] = 0, -velocity[axis]
                elif position[axis] >= 1:
                    position[axis], velocity[axis] = 1, -velocity[axis]
            top, left = (int(share * side) for share, side in zip(position, free, strict=True))
            part = clip[frame, 0, top : top + digit.shape[0], left : left + digit.shape[1]]
            np.maximum(part, digit, out=part)
    return (clip / np.float32(255)).astype(np.float32)


def test_hash_gives_the_published_outputs_of_splitmix64():
    outputs = [int(value) & (2**64 - 1) for value in _hash(torch.arange(3))]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("num_digits", [1, 2, 5])
@pytest.mark.parametrize("size", [(64, 64), (31, 50), (9, 6)])
def test_clips_equal_those_of_a_plain_loop(num_digits, size):
    digits = random_digits()
    numbers = {"frames": 30, "size": size, "num_digits": num_digits, "speed": 0.13, "seed": 2**63 - 5}
    dataset = MovingMNIST(digits, clips=2**40, split="test", **numbers)
    indices = [0, 1, 17, 2**40 - 1]
    clips = dataset.batch(indices)
    assert clips.dtype == torch.float32
    assert clips.shape == (4, 30, 1, *size)
    for clip, index in zip(clips, indices, strict=True):
        np.testing.assert_array_equal(clip.numpy(), looped_clip(digits, index, split=1, **numbers))


def test_a_clip_does_not_depend_on_its_batch_or_on_the_data_set_length():
    dataset = MovingMNIST(WHITE, clips=20, seed=3)
    batch = dataset.batch(torch.tensor([5, 11, 5, 0]))
    longer = MovingMNIST(WHITE, clips=1000, seed=3)
    for clip, index in zip(batch, [5, 11, 5, 0], strict=True):
        assert torch.equal(clip, dataset[index])
        assert torch.equal(clip, longer[index])
    assert torch.equal(dataset[-1], dataset[19])


def test_a_longer_or_fuller_clip_begins_with_the_shorter_one():
    one = MovingMNIST(WHITE, frames=5, num_digits=1)[4]
    two = MovingMNIST(WHITE, frames=9, num_digits=2)[4]
    assert torch.equal(torch.maximum(one, two[:5]), two[:5])
    assert torch.equal(MovingMNIST(WHITE, frames=9, num_digits=1)[4][:5], one)


def test_workers_and_pickled_copies_give_the_same_clips():
    dataset = MovingMNIST(random_digits(), clips=6, frames=4, size=20)
    expected = dataset.batch(range(6))
    loaded = torch.cat(list(DataLoader(dataset, batch_size=2, num_workers=2)))
    assert torch.equal(loaded, expected)
    assert torch.equal(pickle.loads(pickle.dumps(dataset)).batch(range(6)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_makes_the_same_bits():
    dataset = MovingMNIST(random_digits(), clips=4096, num_digits=3, seed=1)
    assert torch.equal(dataset.batch(range(4096), device="cuda").cpu(), dataset.batch(range(4096)))
    assert dataset.batch(torch.arange(3, device="cuda")).device.type == "cuda"


def test_seed_split_and_index_each_give_another_clip():
    clips = [
        MovingMNIST(WHITE)[0],
        MovingMNIST(WHITE)[1],
        MovingMNIST(WHITE, seed=1)[0],
        MovingMNIST(WHITE, split="test")[0],
    ]
    for number, clip in enumerate(clips):
        assert all(not torch.equal(clip, other) for other in clips[:number])


def test_random_numbers_are_uniform_and_independent():
    draws = MovingMNIST(WHITE)._uniforms(torch.arange(20_000)).flatten(1)
    assert draws.dtype == torch.float64
    assert draws.shape == (20_000, 8)
    for column in draws.T:
        counts = torch.histc(column, bins=20, min=0, max=1)
        # Chi-square with 19 degrees of freedom: above 52 once in 10000.
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 52
    correlation = torch.corrcoef(torch.cat([draws[:-1], draws[1:]], 1).T) - torch.eye(16)
    assert float(correlation.abs().max()) < 5 / math.sqrt(20_000)


def test_float_digits_give_the_clips_of_uint8_ones():
    digits = random_digits()
    expected = MovingMNIST(digits)[3]
    torch.testing.assert_close(MovingMNIST(digits / 255.0)[3], expected)
    torch.testing.assert_close(MovingMNIST(torch.from_numpy(digits).double() / 255)[3], expected)
    assert torch.equal(MovingMNIST(torch.from_numpy(digits))[3], expected)


def test_the_callers_array_can_change_afterwards():
    digits = random_digits()
    dataset = MovingMNIST(digits)
    before = dataset[0]
    digits[:] = 0
    assert torch.equal(dataset[0], before)


@needs_mnist
def test_standard_generator_scores_as_published_for_copy_last_and_black():
    dataset = MovingMNIST(SHARED / "mnist", clips=1000, split="test")
    assert dataset.source == "MNIST t10k (folder)"
    copy_last = black = 0.0
    for start in range(0, 1000, 50):
        clips = dataset.batch(range(start, start + 50))
        context, future = clips[:, :10], clips[:, 10:]
        copy_last += float(((future - context[:, -1:]) ** 2).sum()) / 10_000
        black += float((future**2).sum()) / 10_000
    # The standard error over 1000 clips is 2.1 and 1.4.
    assert copy_last == pytest.approx(286, abs=8)
    assert black == pytest.approx(173, abs=5)


# Where the digits come from


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A home without MNIST."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("PCVIDEO_DATA", raising=False)
    return tmp_path


def test_without_mnist_procedural_digits_are_used_and_one_warning_says_so(bare, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = MovingMNIST()
    assert dataset.source == "procedural digits"
    assert len(caplog.records) == 1
    assert "download_mnist" in caplog.text
    assert "PCVIDEO_DATA" in caplog.text
    np.testing.assert_array_equal(dataset.digits.numpy(), procedural_digits(seed=0))


def test_mnist_is_found_by_the_environment_variable_before_the_cache(bare, monkeypatch, caplog):
    cache = bare / "home" / ".cache" / "pcvideo" / "mnist"
    cache.mkdir(parents=True)
    write_idx(cache / "train-images-idx3-ubyte", WHITE)
    assert MovingMNIST().source == "MNIST train (cache)"
    (bare / "data" / "mnist").mkdir(parents=True)
    write_idx(bare / "data" / "mnist" / "train-images.idx3-ubyte", random_digits())
    monkeypatch.setenv("PCVIDEO_DATA", str(bare / "data"))
    dataset = MovingMNIST()
    assert dataset.source == "MNIST train (PCVIDEO_DATA)"
    np.testing.assert_array_equal(dataset.digits.numpy(), random_digits())
    assert not caplog.records


def test_a_folder_gives_the_digits_of_the_split(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", random_digits())
    dataset = MovingMNIST(tmp_path, split="test")
    assert dataset.source == "MNIST t10k (folder)"
    np.testing.assert_array_equal(dataset.digits.numpy(), random_digits())
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.*download_mnist"):
        MovingMNIST(tmp_path, split="train")


def test_one_idx_file_is_taken_whatever_its_name(tmp_path):
    path = write_idx(tmp_path / "letters.idx", random_digits())
    dataset = MovingMNIST(str(path))
    assert dataset.source == "letters.idx (file)"
    np.testing.assert_array_equal(dataset.digits.numpy(), random_digits())


def test_a_file_of_labels_is_refused_by_name(tmp_path):
    path = write_idx(tmp_path / "labels.idx", np.arange(9, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"\(N, h, w\).*labels\.idx"):
        MovingMNIST(path)


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"clips": 0}, ValueError, "clips must"),
        ({"clips": 2.5}, TypeError, "clips must"),
        ({"frames": 0}, ValueError, "frames must"),
        ({"num_digits": 0}, ValueError, "num_digits must"),
        ({"num_digits": True}, TypeError, "num_digits must"),
        ({"size": 7}, ValueError, "at least the digits' 8x8, got 7x7"),
        ({"size": (64, 7)}, ValueError, "got 64x7"),
        ({"size": (64, 64, 1)}, ValueError, "size must"),
        ({"size": 64.0}, TypeError, "size must"),
        ({"speed": 0}, ValueError, "speed must lie above 0"),
        ({"speed": 1}, ValueError, "speed must lie above 0 and below 1"),
        ({"speed": float("nan")}, ValueError, "speed must"),
        ({"speed": "fast"}, TypeError, "speed must"),
        ({"seed": -1}, ValueError, "seed must"),
        ({"seed": 2**63}, ValueError, "seed must"),
        ({"split": "tset"}, ValueError, "did you mean 'test'"),
        ({"digits": WHITE[:0]}, ValueError, "at least one image"),
        ({"digits": WHITE[0]}, ValueError, r"digits must be \(N, h, w\)"),
        ({"digits": WHITE.astype(np.int64)}, TypeError, "uint8, or float"),
        ({"digits": WHITE.astype(np.float32)}, ValueError, "divide by 255"),
        ({"digits": np.full((1, 8, 8), np.nan)}, ValueError, r"lie in \[0, 1\]"),
        ({"digits": [1, 2]}, TypeError, "digits must be"),
        ({"digits": WHITE.astype(object)}, TypeError, "uint8, or float"),
        ({"digits": torch.ones(1, 8, 8, dtype=torch.bool)}, TypeError, "uint8, or float"),
        ({"digits": "/nowhere/at/all"}, FileNotFoundError, "/nowhere/at/all"),
    ],
)
def test_bad_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        MovingMNIST(**{"digits": WHITE, **options})


@pytest.mark.parametrize(
    ("index", "error"), [(10, IndexError), (-11, IndexError), (1.0, TypeError), ("1", TypeError), (slice(2), TypeError)]
)
def test_bad_indices_are_refused(index, error):
    with pytest.raises(error, match="index must"):
        MovingMNIST(WHITE, clips=10)[index]


@pytest.mark.parametrize(
    ("indices", "error"),
    [
        ([10], IndexError),
        ([0, -1], IndexError),
        ([], ValueError),
        (3, ValueError),
        ([[1, 2]], ValueError),
        ([0.5], TypeError),
        (torch.tensor([True]), TypeError),
    ],
)
def test_bad_batches_are_refused(indices, error):
    with pytest.raises(error, match="indices must"):
        MovingMNIST(WHITE, clips=10).batch(indices)


def test_iterating_ends_after_the_last_clip():
    assert len(list(MovingMNIST(WHITE, clips=3, frames=2, size=10))) == 3


# The standard test file


@pytest.fixture
def sequences(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, (20, 5, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", content)
    return tmp_path / "mnist_test_seq.npy", content


def test_the_standard_file_gives_clips_with_time_first(sequences):
    path, content = sequences
    dataset = read_moving_mnist_test(path)
    assert isinstance(dataset, MovingMNISTFile)
    assert len(dataset) == 5
    assert dataset[3].shape == (20, 1, 64, 64)
    assert dataset[3].dtype == torch.float32
    np.testing.assert_allclose(dataset[3][:, 0].numpy() * 255, content[:, 3], rtol=1e-6)
    assert torch.equal(dataset.batch([4, 0]), torch.stack([dataset[-1], dataset[0]]))
    with pytest.raises(IndexError, match="index must"):
        dataset[5]


def test_a_pickled_standard_file_carries_its_path_and_not_its_content(sequences):
    dataset = read_moving_mnist_test(sequences[0])
    packed = pickle.dumps(dataset)
    assert len(packed) < 1000
    assert torch.equal(pickle.loads(packed)[2], dataset[2])


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((5, 20, 64, 64), dtype=np.uint8),
        np.zeros((20, 0, 64, 64), dtype=np.uint8),
        np.zeros((20, 5, 64, 64), dtype=np.float32),
        np.zeros((20, 64, 64), dtype=np.uint8),
        np.array([{"a": "pickled object"}], dtype=object),
    ],
)
def test_other_arrays_are_refused_as_the_standard_file(tmp_path, content):
    np.save(tmp_path / "other.npy", content, allow_pickle=True)
    with pytest.raises(ValueError, match=r"other\.npy"):
        read_moving_mnist_test(tmp_path / "other.npy")


def test_a_cut_short_foreign_or_missing_standard_file_is_refused(sequences, tmp_path):
    path, _ = sequences
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"mnist_test_seq\.npy"):
        read_moving_mnist_test(path)
    np.savez(tmp_path / "packed.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"packed\.npz"):
        read_moving_mnist_test(tmp_path / "packed.npz")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_moving_mnist_test(tmp_path / "absent.npy")
