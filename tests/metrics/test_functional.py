# SPDX-License-Identifier: Apache-2.0
"""Frame metrics against numpy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pcvideo import metrics

SHAPES = [(1, 11, 11), (1, 32, 24), (3, 17, 40), (2, 64, 64)]


def noisy_pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    target = generator.random(shape)
    prediction = target + 0.1 * generator.standard_normal(shape)
    return torch.from_numpy(prediction), torch.from_numpy(target)


def to_skimage(frame: torch.Tensor) -> np.ndarray:
    return frame.numpy().transpose(1, 2, 0)


def test_mse_and_mae_are_sums_over_one_frame_and_their_means_are_averages():
    prediction, target = noisy_pair(2, 3, 3, 5, 4)
    for b in range(2):
        for t in range(3):
            difference = (prediction[b, t] - target[b, t]).numpy()
            assert metrics.mse(prediction, target)[b, t].item() == pytest.approx((difference**2).sum(), rel=1e-12)
            assert metrics.mae(prediction, target)[b, t].item() == pytest.approx(np.abs(difference).sum(), rel=1e-12)
            assert metrics.mse_mean(prediction, target)[b, t].item() == pytest.approx((difference**2).mean(), rel=1e-12)
            assert metrics.mae_mean(prediction, target)[b, t].item() == pytest.approx(
                np.abs(difference).mean(), rel=1e-12
            )


@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_psnr_agrees_with_scikit_image_over_all_channels(data_range):
    prediction, target = noisy_pair(4, 3, 9, 7)
    expected = [
        peak_signal_noise_ratio(t.numpy(), p.numpy(), data_range=data_range)
        for p, t in zip(prediction, target, strict=True)
    ]
    np.testing.assert_allclose(metrics.psnr(prediction, target, data_range=data_range), expected, rtol=1e-12)


def test_identical_frames_give_infinite_psnr_and_an_ssim_of_one():
    frames = torch.rand(2, 3, 16, 16)
    assert metrics.psnr(frames, frames).tolist() == [float("inf")] * 2
    torch.testing.assert_close(metrics.ssim(frames, frames), torch.ones(2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_gaussian_ssim_agrees_with_scikit_image(shape, data_range):
    prediction, target = noisy_pair(*shape)
    expected = structural_similarity(
        to_skimage(prediction),
        to_skimage(target),
        channel_axis=-1,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert metrics.ssim(prediction, target, data_range=data_range).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_ssim_agrees_with_the_defaults_of_scikit_image(shape):
    prediction, target = noisy_pair(*shape)
    expected = structural_similarity(to_skimage(prediction), to_skimage(target), channel_axis=-1, data_range=1.0)
    ours = metrics.ssim(prediction, target, window="uniform", sample_covariance=True)
    assert ours.item() == pytest.approx(expected, abs=1e-12)


def test_ssim_agrees_with_scikit_image_for_other_windows_and_constants():
    prediction, target = noisy_pair(1, 30, 30)
    expected = structural_similarity(
        prediction[0].numpy(), target[0].numpy(), data_range=1.0, gaussian_weights=True, sigma=0.8, K1=0.02, K2=0.05
    )
    ours = metrics.ssim(prediction, target, sigma=0.8, sample_covariance=True, k1=0.02, k2=0.05)
    assert ours.item() == pytest.approx(expected, abs=1e-12)
    expected = structural_similarity(prediction[0].numpy(), target[0].numpy(), data_range=1.0, win_size=5)
    ours = metrics.ssim(prediction, target, window="uniform", window_size=5, sample_covariance=True)
    assert ours.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 20, 13), (3, 16, 16)])
def test_ssim_columns_is_scikit_image_given_a_plane_with_the_multichannel_flag(shape):
    prediction, target = noisy_pair(*shape)
    planes = [
        structural_similarity(p.numpy(), t.numpy(), channel_axis=-1, data_range=1.0)
        for p, t in zip(prediction, target, strict=True)
    ]
    assert metrics.ssim_columns(prediction, target).item() == pytest.approx(np.mean(planes), abs=1e-12)


def test_ssim_columns_knows_no_neighbouring_columns():
    prediction, target = noisy_pair(1, 20, 13)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    shuffled = metrics.ssim_columns(prediction[..., order], target[..., order])
    torch.testing.assert_close(shuffled, metrics.ssim_columns(prediction, target))


def test_each_frame_of_a_batch_scores_as_it_does_alone():
    prediction, target = noisy_pair(2, 3, 3, 16, 12)
    for metric in (metrics.mse, metrics.mae_mean, metrics.psnr, metrics.ssim, metrics.ssim_columns):
        together = metric(prediction, target)
        assert together.shape == (2, 3)
        torch.testing.assert_close(together[1, 2], metric(prediction[1, 2], target[1, 2]), rtol=1e-12, atol=1e-12)


def test_ssim_and_psnr_have_correct_gradients():
    prediction, target = noisy_pair(1, 12, 13)
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: metrics.ssim(p, target), prediction)
    assert torch.autograd.gradcheck(lambda p: metrics.psnr(p, target), prediction)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_frames_are_computed_in_float32(dtype):
    prediction, target = (frames.to(dtype) for frames in noisy_pair(3, 64, 64))
    for metric in (metrics.mse, metrics.mae, metrics.psnr, metrics.ssim):
        value = metric(100 * prediction, 100 * target)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, metric((100 * prediction).float(), (100 * target).float()))


def test_a_window_larger_than_the_frame_is_an_error_that_says_so():
    small = torch.rand(1, 10, 30)
    with pytest.raises(ValueError, match=r"11x11.*got 10x30.*window_size"):
        metrics.ssim(small, small)
    with pytest.raises(ValueError, match="7 pixels high"):
        metrics.ssim_columns(small[:, :6], small[:, :6])


@pytest.mark.parametrize("metric", [metrics.mse, metrics.mae, metrics.psnr, metrics.ssim, metrics.ssim_columns])
def test_unfit_input_is_refused_by_name(metric):
    frames = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match="same shape"):
        metric(frames, frames[:1])
    with pytest.raises(ValueError, match="channel axis"):
        metric(frames[0], frames[0])
    with pytest.raises(TypeError, match=r"target must be float.*divide by 255"):
        metric(frames, (255 * frames).byte())
    with pytest.raises(TypeError, match="prediction must be a tensor"):
        metric(frames.numpy(), frames)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": "gausian"}, "did you mean 'gaussian'"),
        ({"window_size": 8}, "odd"),
        ({"data_range": 0}, "data_range must be above zero"),
        ({"data_range": -1.0}, "data_range"),
        ({"sigma": 0.0}, "sigma"),
    ],
)
def test_impossible_ssim_options_are_refused(options, match):
    frames = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match=match):
        metrics.ssim(frames, frames, **options)
