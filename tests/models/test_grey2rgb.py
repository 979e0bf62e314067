# SPDX-License-Identifier: Apache-2.0
"""Grey2RGB: golden numbers and sizes of the published networks, what keeping the luminance means, and clips."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden import fill_golden, golden_input
from PIL import Image
from skimage.color import rgb2ycbcr, ycbcr2rgb

from pcvideo import create_model
from pcvideo.models import Grey2RGB
from pcvideo.models.grey2rgb import colour_with_luma

FORMS = [{}, {"batch_norm": True}, {"keep_luminance": True}, {"keep_luminance": True, "chroma_stride": 4}]


def grey(batch=2, size=(16, 24), seed=0):
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(seed)).double()


def luma(colour):
    return (colour * torch.tensor([0.299, 0.587, 0.114], dtype=colour.dtype).view(3, 1, 1)).sum(-3, keepdim=True)


def make(**options):
    torch.manual_seed(0)
    return Grey2RGB(**options).double().eval()


def test_it_gives_the_published_numbers():
    with torch.no_grad():
        colour = fill_golden(Grey2RGB().double())(golden_input(2, 1, 16, 24))
    assert colour.mean().item() == pytest.approx(0.5214737998, rel=1e-6)
    assert colour.std(correction=0).item() == pytest.approx(0.0496952464, rel=1e-6)
    assert colour.flatten()[0].item() == pytest.approx(0.5167679318, rel=1e-6)
    assert colour.flatten()[-1].item() == pytest.approx(0.5028222472, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("grey2rgb-published", 6_144, 6_187),
        ("grey2rgb-published-v3", 3_564, 3_465),
        ("grey2rgb-published-v2", 6_000, 6_057),
        ("grey2rgb-published-v1", 370_560, 370_953),
    ],
)
def test_the_published_networks_have_the_published_sizes(name, encoder, decoder):
    with torch.device("meta"):
        model = create_model(name)
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder)]
    assert counts == [encoder, decoder]


def test_tensors_have_the_published_names():
    assert {name.rsplit(".", 1)[0] for name in Grey2RGB().state_dict()} == {
        f"{part}.{layer}" for part in ("encoder", "decoder") for layer in (0, 2, 4, 6)
    }
    with_norms = {name.rsplit(".", 1)[0] for name in Grey2RGB(channels=(8, 16, 32), batch_norm=True).state_dict()}
    assert with_norms == {f"{part}.{layer}" for part in ("encoder", "decoder") for layer in (0, 1, 3, 4, 6, 7)}


def test_keeping_the_luminance_takes_as_many_parameters_within_one_percent():
    count = sum(parameter.numel() for parameter in Grey2RGB(keep_luminance=True).parameters())
    assert count == pytest.approx(12_331, rel=0.01)


@pytest.mark.parametrize("options", FORMS[2:])
def test_the_luma_of_the_output_is_the_input_whatever_the_weights(options):
    model, frames = make(**options), grey()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
        colour = model(frames)
    assert colour.min() >= 0
    assert colour.max() <= 1
    torch.testing.assert_close(luma(colour), frames, rtol=0, atol=1e-12)
    # And they are colours.
    assert (colour.amax(1) - colour.amin(1)).max() > 0.1


@pytest.mark.parametrize("options", FORMS[2:])
def test_a_fresh_network_that_keeps_the_luminance_gives_faint_colours_and_loses_no_signal(options):
    ramp = torch.linspace(0.1, 0.9, 64).expand(1, 1, 64, 64)
    for seed in range(4):
        torch.manual_seed(seed)
        model = Grey2RGB(**options)
        with torch.no_grad():
            assert (model(ramp) - ramp).abs().max() < 0.2
            # With torch's own initialisation a thirtieth is left of a signal.
            assert model.encoder(ramp).std((2, 3)).mean() > 0.1 * ramp.std()


def test_colours_that_can_be_are_those_of_full_range_bt601():
    rng = np.random.default_rng(0)
    true = rng.random((3, 8, 8, 3))
    # scikit-image's are in the range of video: Y from 16 to 235, Cb and Cr from 16 to 240 around 128.
    ycbcr = rgb2ycbcr(true)
    chroma = torch.from_numpy((ycbcr[..., 1:] - 128) / 224).movedim(-1, 1)
    found = colour_with_luma(torch.from_numpy((ycbcr[..., :1] - 16) / 219).movedim(-1, 1), chroma)
    expected = torch.from_numpy(ycbcr2rgb(ycbcr)).movedim(-1, 1)
    # Its matrix has three decimals.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_colours_that_can_not_be_are_made_greyer_in_the_same_hue_up_to_the_limit():
    level, chroma = torch.tensor(0.9).double().view(1, 1, 1, 1), torch.tensor([-0.3, 0.4]).double().view(1, 2, 1, 1)
    colour = colour_with_luma(level, chroma)
    wanted = torch.tensor([1.402 * 0.4, (0.114 * 1.772 * 0.3 - 0.299 * 1.402 * 0.4) / 0.587, -1.772 * 0.3]).double()
    share = 0.1 / (1.402 * 0.4)
    torch.testing.assert_close(colour.flatten(), 0.9 + share * wanted)
    assert colour.max() == pytest.approx(1)
    assert torch.equal(colour_with_luma(torch.ones(1, 1, 1, 1), chroma.float()), torch.ones(1, 3, 1, 1))
    assert torch.equal(colour_with_luma(torch.zeros(1, 1, 1, 1), chroma.float()), torch.zeros(1, 3, 1, 1))


def test_each_pixel_of_the_published_network_sees_seventeen_pixels_and_a_stride_of_four_sees_further():
    # Enlarging adds a neighbour's view.
    for options, side in ((FORMS[0], 17), (FORMS[3], 17 * 4 + 4)):
        model, frames = make(**options), grey(1, (96, 96)).requires_grad_()
        colour = model(frames)
        # The luma is the pixel itself.
        ((colour - luma(colour).detach()) * torch.tensor([1, 0, -1]).view(3, 1, 1))[..., 48, 48].sum().backward()
        seen = frames.grad[0, 0].abs().amax(0).nonzero().flatten()
        assert seen.max() - seen.min() + 1 == side


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (59, 31)])
def test_it_takes_any_size(options, size):
    frames = grey(size=size)
    with torch.no_grad():
        colour = make(**options)(frames)
    assert colour.shape == (2, 3, *size)
    assert colour.isfinite().all()


@pytest.mark.parametrize("options", FORMS)
def test_a_batch_gives_what_its_frames_give_alone(options):
    model, frames = make(**options), grey()
    with torch.no_grad():
        torch.testing.assert_close(model(frames), torch.cat([model(frame[None]) for frame in frames]))


@pytest.mark.parametrize("options", FORMS)
def test_every_parameter_gets_a_gradient(options):
    model = make(**options).train()
    target = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)).double()
    (model(grey()) - target).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # What a normalisation takes away again has a gradient of rounding.
        if not (options.get("batch_norm") and name.endswith("bias")):
            assert parameter.grad.abs().max() > 0, name


def test_black_and_white_have_finite_gradients():
    model = make(keep_luminance=True)
    model(torch.stack((torch.zeros(1, 8, 8), torch.ones(1, 8, 8))).double()).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("options", FORMS)
def test_saved_and_loaded_it_gives_the_same(options, tmp_path):
    model, frames = make(**options).float(), grey().float()
    model.save_pretrained(tmp_path / "weights")
    loaded = Grey2RGB.from_pretrained(tmp_path / "weights")
    assert loaded.config == model.config
    assert Grey2RGB.from_config(json.loads(json.dumps(model.config))).config == model.config
    with torch.no_grad():
        torch.testing.assert_close(loaded(frames), model(frames))


def test_it_compiles_whole():
    model, frames = make(keep_luminance=True, chroma_stride=4), grey(size=(18, 30))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(frames), model(frames))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_colours_have_the_dtype_of_the_frames(dtype):
    frames = grey().to(dtype)
    with torch.no_grad():
        colour = make(keep_luminance=True).float()(frames)
    assert colour.dtype == dtype
    torch.testing.assert_close(luma(colour), frames, rtol=0, atol=2 * torch.finfo(dtype).eps)


# Clips


def test_numpy_uint8_batches_and_folders_are_coloured_alike(tmp_path):
    model = make(keep_luminance=True).float()
    eight_bit = (255 * grey(3)).to(torch.uint8)
    expected = model(eight_bit / 255)
    for number, frame in enumerate(eight_bit[:, 0].numpy()):
        Image.fromarray(frame).save(tmp_path / f"{8 + number}.png")
    for clip, options in [
        (eight_bit, {}),
        (eight_bit.numpy(), {}),
        (eight_bit[:, 0], {}),
        (eight_bit.float(), {"value_range": (0, 255)}),
        (eight_bit.permute(0, 2, 3, 1).numpy(), {"layout": "THWC"}),
        (tmp_path, {}),
    ]:
        found = model.colourise(clip, **options)
        assert not found.requires_grad
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.colourise(eight_bit[None]), expected[None])


def test_frames_are_coloured_one_at_a_time():
    model, taken = make().float(), []

    def source():
        for number, frame in enumerate(grey(4).float()):
            taken.append(number)
            yield frame

    for number, colour in enumerate(model.stream(source())):
        assert colour.shape == (3, 16, 24)
        assert taken == list(range(number + 1))


def test_a_colour_clip_is_made_grey_on_request_alone():
    model = make(keep_luminance=True).float()
    colour = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="to_grey=True"):
        model.colourise(colour)
    torch.testing.assert_close(model.colourise(colour, to_grey=True), model(luma(colour)))


def test_colourise_leaves_modes_and_graph_alone():
    model = make(batch_norm=True).float().train()
    model.colourise(grey().float())
    assert all(module.training for module in model.modules())
    next(iter(model.stream(grey().float())))
    assert torch.is_grad_enabled()


# What is refused


def test_frames_of_other_forms_are_refused():
    model, frames = make(), grey()
    for wrong, error, words in [
        (frames[0], ValueError, r"grey must be \(B, C, H, W\)"),
        (frames.expand(2, 3, 16, 24), ValueError, "expects C=1 channels, got 3"),
        (frames[:0], ValueError, "at least one sample"),
        ((255 * frames).to(torch.uint8), TypeError, "grey must be float"),
        (frames.numpy(), TypeError, "grey must be a tensor"),
        (255 * frames, ValueError, r"sample 0 ranges over .* colourise\(\.\.\., value_range"),
        (frames * torch.tensor([1, float("nan")]).view(2, 1, 1, 1), ValueError, "sample 1 holds NaN"),
    ]:
        with pytest.raises(error, match=words):
            model(wrong)
    with pytest.raises(ValueError, match="frame 1 holds NaN"):
        list(model.stream([frames[0], frames[1] * float("nan")]))
    with pytest.raises(TypeError, match="frame 0 must be a float tensor"):
        list(model.stream([None]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": "4"}, "channels"),
        ({"channels": (4, 0)}, r"channels\[1\]"),
        ({"batch_norm": 1}, "batch_norm"),
        ({"keep_luminance": "yes"}, "keep_luminance"),
        ({"chroma_stride": 2}, "chroma_stride=2 is for keep_luminance=True"),
        ({"chroma_stride": 0, "keep_luminance": True}, "chroma_stride"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Grey2RGB(**options)
