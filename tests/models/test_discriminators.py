# SPDX-License-Identifier: Apache-2.0
"""The frame discriminator: the published counts, a transcription in numpy, and what the form for any size promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pcvideo.models import MSPN, PPNV2, FrameDiscriminator
from pcvideo.rollout import rollout

TINY = {"channels": (2, 3, 4), "in_channels": 3}
PUBLISHED = {"size": (12, 8), "normalize": "batch"}
ANY_SIZE = {"size": None, "normalize": "frame"}
FORMS = pytest.mark.parametrize("form", [PUBLISHED, ANY_SIZE], ids=["published", "any size"])


def make(seed=0, **options):
    """A tiny one in float64 whose every tensor is drawn, those of batch normalisation too."""
    generator = torch.Generator().manual_seed(seed)
    discriminator = FrameDiscriminator(**(TINY | options)).double()
    for name, tensor in discriminator.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return discriminator


def frames_of(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The published numbers.


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(**options):
    with torch.device("meta"):
        return FrameDiscriminator(**options)


@pytest.mark.parametrize(
    ("size", "published"), [((128, 128), 14_812_609), ((128, 160), 16_909_761), ((96, 128), 12_715_457)]
)
def test_the_published_sizes_have_the_published_number_of_parameters(size, published):
    assert count(on_meta(size=size)) == published


def test_the_wider_published_one_has_the_published_number_of_parameters():
    assert count(on_meta(channels=(32, 64, 128, 256, 512, 1024), size=(128, 160))) == 40_812_097


def test_the_published_parts_have_the_published_number_of_parameters():
    discriminator = on_meta(size=(128, 128))
    parts = [getattr(discriminator, name) for name in ("stem", "stages", "gather", "head")]
    assert [count(part) for part in parts] == [9_472, 6_150_848, 8_389_632, 262_657]


def test_the_form_for_any_size_differs_in_one_convolution_alone():
    assert count(on_meta()) == 9_472 + 6_150_848 + (512 + 1) * 1024 + 262_657 == 6_948_289


# The whole forward pass once more, in numpy.


def convolve(image, weight, bias):
    """A convolution of (B, C, H, W) with (O, C, k, k) that keeps the size, as a sum over the filter's places."""
    reach = weight.shape[-1] // 2
    height, width = image.shape[2:]
    padded = np.pad(image, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    total = np.zeros((len(image), len(weight), height, width)) + bias[:, None, None]
    for row in range(weight.shape[-1]):
        for column in range(weight.shape[-1]):
            window = padded[:, :, row : row + height, column : column + width]
            total += np.einsum("bchw,oc->bohw", window, weight[:, :, row, column])
    return total


def leaky(values):
    return np.where(values > 0, values, 0.01 * values)


def normalise(image, weights, name, training):
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    if training:
        mean, variance = image.mean(axis=(0, 2, 3)), image.var(axis=(0, 2, 3))
    scaled = (image - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    return scaled * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def halve(image):
    height, width = image.shape[2] // 2, image.shape[3] // 2
    corners = [image[:, :, row : 2 * height : 2, column : 2 * width : 2] for row in (0, 1) for column in (0, 1)]
    return np.maximum.reduce(corners)


def transcribed(frames, weights, *, stages, published, training):
    def convolved(image, name):
        return convolve(image, weights[f"{name}.weight"], weights[f"{name}.bias"])

    if published:
        frames = (frames - frames.mean()) / frames.std(ddof=1)
    else:
        frames = np.stack([(frame - frame.mean()) / frame.std(ddof=1) for frame in frames])
    image = convolved(frames, "stem")
    for index in range(0, 2 * stages, 2):
        block = f"stages.{index}"
        main = leaky(normalise(convolved(image, f"{block}.main.0"), weights, f"{block}.main.1", training))
        main = normalise(convolved(main, f"{block}.main.3"), weights, f"{block}.main.4", training)
        beside = normalise(convolved(image, f"{block}.shortcut.0"), weights, f"{block}.shortcut.1", training)
        image = halve(leaky(main + beside))
    if published:
        features = np.einsum("bchw,ochw->bo", image, weights["gather.weight"]) + weights["gather.bias"]
    else:
        features = leaky(convolved(image, "gather.0")).mean(axis=(2, 3))
    hidden = leaky(features @ weights["head.0.weight"].T + weights["head.0.bias"])
    return (hidden @ weights["head.2.weight"].T + weights["head.2.bias"])[:, 0]


@FORMS
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_scores_are_those_of_the_transcription_in_numpy(form, training):
    discriminator, frames = make(**form).train(training), frames_of(3, 3, 12, 8)
    weights = {name: tensor.clone().numpy() for name, tensor in discriminator.state_dict().items()}
    expected = transcribed(frames.numpy(), weights, stages=2, published=form["size"] is not None, training=training)
    assert expected.std() > 0.01
    np.testing.assert_allclose(discriminator(frames).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


# Who may look at whom, and what a score depends on.


@FORMS
def test_a_published_score_depends_on_the_batch_and_one_normalised_by_its_frame_does_not(form):
    discriminator = make(**form).eval()
    frames = frames_of(4, 3, 12, 8) * torch.tensor([0.2, 0.5, 0.8, 1.0]).double()[:, None, None, None]
    together = discriminator(frames)
    alone = torch.cat([discriminator(frame[None]) for frame in frames])
    assert together.shape == (4,)
    if form["normalize"] == "frame":
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    else:
        assert (together - alone).abs().max() > 1e-3


def test_without_batch_normalisation_a_score_depends_on_its_frame_alone_in_training_too():
    discriminator, frames = make(norm=None).train(), frames_of(3, 3, 9, 9)
    alone = torch.cat([discriminator(frame[None]) for frame in frames])
    torch.testing.assert_close(discriminator(frames), alone, rtol=1e-12, atol=1e-12)
    assert not list(discriminator.buffers())


def test_brightness_and_contrast_count_only_where_frames_are_not_normalised():
    frames = frames_of(2, 3, 8, 8)
    changed = 0.5 * frames + 0.1
    by_frame, as_it_is = make(normalize="frame").eval(), make(normalize=None).eval()
    torch.testing.assert_close(by_frame(frames), by_frame(changed), rtol=1e-10, atol=1e-10)
    assert (as_it_is(frames) - as_it_is(changed)).abs().min() > 1e-3


def test_running_statistics_move_in_training_and_stay_in_evaluation():
    discriminator, frames = make(), frames_of(2, 3, 8, 8)
    before = discriminator.stages[0].main[1].running_mean.clone()
    discriminator.eval()(frames)
    assert torch.equal(discriminator.stages[0].main[1].running_mean, before)
    discriminator.train()(frames)
    assert not torch.equal(discriminator.stages[0].main[1].running_mean, before)


@pytest.mark.parametrize("normalize", ["frame", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_frames_have_finite_scores_and_gradients(normalize, dtype):
    discriminator = make(normalize=normalize).to(dtype).eval()
    # In float32 the mean of 0.3 is not quite 0.3, so the deviation is not quite zero.
    frames = torch.full((2, 3, 13, 13), 0.3, dtype=dtype, requires_grad=True)
    scores = discriminator(frames)
    (gradient,) = torch.autograd.grad(scores.sum(), frames)
    assert scores.isfinite().all()
    assert gradient.isfinite().all()
    black = discriminator(torch.zeros(2, 3, 13, 13, dtype=dtype))
    torch.testing.assert_close(scores, black, rtol=1e-3, atol=1e-3)


# Sizes.


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (13, 4), (31, 17)])
def test_the_form_for_any_size_scores_odd_sizes(size):
    discriminator, frames = make().eval(), frames_of(2, 3, *size).requires_grad_()
    scores = discriminator(frames)
    (gradient,) = torch.autograd.grad(scores.sum(), frames)
    assert scores.shape == (2,)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_the_published_form_takes_a_size_that_halving_leaves_a_remainder_of():
    discriminator = make(size=(11, 6))
    assert discriminator.gather.kernel_size == (2, 1)
    assert discriminator(frames_of(2, 3, 11, 6)).shape == (2,)


# Training.


@FORMS
def test_gradients_reach_every_parameter_and_every_frame(form):
    # In training mode batch normalisation takes the mean out, and with it the biases of the convolutions before it.
    discriminator, frames = make(**form).eval(), frames_of(2, 3, 12, 8).requires_grad_()
    ((discriminator(frames) - 1) ** 2).mean().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert (frames.grad.flatten(1).abs().amax(1) > 0).all()


@FORMS
def test_the_gradient_by_the_frames_is_the_numerical_one(form):
    discriminator = make(**form).eval()
    assert torch.autograd.gradcheck(discriminator, frames_of(2, 3, 12, 8).requires_grad_(), fast_mode=True)


def test_a_penalty_on_the_gradient_reaches_the_parameters():
    discriminator, frames = make(norm=None), frames_of(2, 3, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(frames).sum(), frames, create_graph=True)
    ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean().backward()
    assert discriminator.stem.weight.grad.isfinite().all()
    assert discriminator.stem.weight.grad.abs().max() > 0


@FORMS
def test_it_learns_to_tell_bright_squares_from_noise(form):
    torch.manual_seed(0)
    discriminator = FrameDiscriminator(**(TINY | form))
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    squares = 0.1 * frames_of(8, 3, 12, 8).float()
    squares[:, :, 3:7, 2:6] += 0.9
    noise = frames_of(8, 3, 12, 8, seed=2).float()
    for _ in range(30):
        loss = ((discriminator(squares) - 1) ** 2).mean() + ((discriminator(noise) + 1) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert discriminator(squares).min() > discriminator(noise).max()


PREDICTORS = {
    "MSPN": lambda: MSPN(in_channels=3, levels=2, channels=(4, 6, 8), hidden_channels=3),
    "PPNV2": lambda: PPNV2(channels=(3, 4, 4)),
}


@FORMS
@pytest.mark.parametrize("name", PREDICTORS)
def test_the_score_of_predictions_reaches_every_weight_of_the_predictor(name, form):
    torch.manual_seed(0)
    predictor = PREDICTORS[name]().double()
    discriminator = make(**form).eval()
    pyramids = rollout(predictor, frames_of(2, 5, 3, 12, 8)).pyramids
    scores = discriminator(torch.cat([pyramid[0] for pyramid in pyramids]))
    assert scores.shape == (2 * len(pyramids),)
    ((scores - 1) ** 2).mean().backward()
    for parameter_name, parameter in predictor.named_parameters():
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


def test_it_compiles_without_a_break_in_its_graph():
    discriminator, frames = make().eval(), frames_of(2, 3, 9, 7)
    compiled = torch.compile(discriminator, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(frames), discriminator(frames))


# Arguments.


def test_arguments_are_kept_and_survive_json():
    options = {"channels": (2, 3, 4), "in_channels": 1, "size": (8, 12), "normalize": "batch", "norm": None}
    built = FrameDiscriminator(**json.loads(json.dumps(options)))
    assert {name: getattr(built, name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"channels": 64}, TypeError, "channels must be a sequence"),
        ({"channels": (64,)}, ValueError, "channels must hold at least two widths"),
        ({"channels": (2, 0)}, ValueError, r"channels\[1\]"),
        ({"in_channels": 0}, ValueError, "in_channels"),
        ({"size": 128}, TypeError, r"size must be None or \(height, width\)"),
        ({"size": (128, 12.5)}, TypeError, r"size\[1\]"),
        ({"size": (31, 64)}, ValueError, "size must be at least 32x32, got 31x64"),
        ({"normalize": "frames"}, ValueError, "did you mean 'frame'"),
        ({"norm": "layer"}, ValueError, "norm must be one of 'batch', None"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(options, kind, words):
    with pytest.raises(kind, match=words):
        on_meta(**options)


@pytest.mark.parametrize(
    ("form", "frames", "kind", "words"),
    [
        (ANY_SIZE, np.zeros((1, 3, 8, 8)), TypeError, "must be a tensor"),
        (ANY_SIZE, torch.zeros(3, 8, 8), ValueError, r"frames\[None\]"),
        (ANY_SIZE, torch.zeros(1, 2, 3, 8, 8), ValueError, r"clips.flatten\(0, 1\)"),
        (ANY_SIZE, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "divide uint8 by 255"),
        (ANY_SIZE, torch.zeros(0, 3, 8, 8), ValueError, "at least one frame"),
        (ANY_SIZE, torch.zeros(1, 1, 8, 8), ValueError, "in_channels=1"),
        (ANY_SIZE, torch.zeros(1, 3, 8, 3), ValueError, "at least 4x4, got 8x3"),
        (PUBLISHED, torch.zeros(1, 3, 8, 12), ValueError, "must be 12x8.*built for, got 8x12"),
    ],
)
def test_frames_that_do_not_fit_are_told_the_mend(form, frames, kind, words):
    with pytest.raises(kind, match=words):
        make(**form)(frames)
