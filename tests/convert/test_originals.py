# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the published codes: the golden numbers after conversion, and transcriptions where there are none."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict

import numpy as np
import original_checkpoints as published
import pytest
import torch
from golden import golden_input
from safetensors.torch import load_file, save_file
from transcriptions import mspn_forward, ppnv2_forward

import pcvideo
from pcvideo import MSPN, PPNV2
from pcvideo.cli.main import main
from pcvideo.convert import load_original, read_original, to_original
from pcvideo.models import FrameDiscriminator

SMALL = {"channels": (8, 16, 32), "levels": 2, "in_channels": 3}
PPNV2_SMALL = {"channels": (3, 8, 12, 16)}


def save(path, tensors, **beside):
    """As a training script on several devices does: prefixed, in an entry, with numpy's numbers beside it."""
    wrapped = OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items())
    torch.save({"epoch": 17, "model_state": wrapped, "loss": np.float64(0.25), "best": np.float32(0.5), **beside}, path)
    return path


def count(tensors):
    return sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(("_mean", "_var", "_tracked")))


def mean_and_std(frame):
    return frame.mean().item(), frame.std(unbiased=False).item()


def predicted(folder, frames):
    model = pcvideo.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        return model(frames, 3)


# The checkpoints that the tests build are of the published sizes.


def test_the_built_checkpoints_hold_as_much_as_the_published_ones():
    big = {"channels": (64, 128, 256, 512, 1024), "levels": 4, "in_channels": 3, "hidden": 64}
    mnist = {"channels": (64, 128, 256, 512), "levels": 3, "in_channels": 1, "hidden": 32}
    blank = torch.device("meta")

    def nothing(shape):
        return torch.empty(shape, device=blank)

    for options, parameters in (
        (big, 111_135_312),
        (big | {"norm": True}, 111_195_216),
        (mnist, 26_952_422),
        (mnist | {"norm": True}, 26_977_766),
        (mnist | {"latent_sharing": False}, 22_528_742),
        (big | {"ablation": True}, 222_353_104),
        (mnist | {"ablation": True}, 54_230_790),
        (SMALL | {"hidden": 4}, 101_528),
        (SMALL | {"ablation": True}, 199_472),
    ):
        with torch.device("meta"):
            assert count(published.mspn(**options, fill=nothing)) == parameters
    with torch.device("meta"):
        assert len(published.mspn(**mnist, fill=nothing)) == 179
        widths = (3, 64, 128, 256, 512, 512)
        for merge, parameters in (("modulate", 170_162_054), ("concat", 170_159_092), ("add", 170_162_042)):
            assert count(published.ppnv2(channels=widths, merge=merge, fill=nothing)) == parameters
        assert len(published.ppnv2(channels=widths, fill=nothing)) == 213
        wide = published.discriminator(channels=(64, 64, 128, 256, 256, 512), kernel=(4, 4), fill=nothing)
        assert count(wide) == 14_812_609


# Golden numbers: made once with the authors' networks in float64, by the rule in golden.py.


@pytest.mark.parametrize(
    ("options", "first", "third"),
    [
        (
            {"hidden": 4},
            (0.0738184809, 0.0282421921, 0.0449978230, 0.0990659637),
            (0.0738613602, 0.0284529655),
        ),
        (
            {"ablation": True},
            (0.0766541585, 0.0352161873, 0.0436572931, 0.0311256801),
            (0.0770218503, 0.0312711268),
        ),
    ],
    ids=["MSPN", "En-LSTM-De"],
)
def test_a_converted_mspn_gives_the_golden_numbers(tmp_path, capsys, options, first, third):
    checkpoint = save(tmp_path / "best.pth", published.mspn(**SMALL, **options))
    assert main(["convert", str(checkpoint), str(tmp_path / "mine")]) == 0
    told = capsys.readouterr().out
    assert "channels=[8, 16, 32]" in told
    assert "EHcell.en_decoder.scale" in told or "EHcell.scale" in told
    future = predicted(tmp_path / "mine", golden_input(2, 5, 3, 16, 24))
    flat = future[:, 0].flatten()
    assert (*mean_and_std(flat), flat[0].item(), flat[-1].item()) == pytest.approx(first, rel=1e-6)
    assert mean_and_std(future[:, 2]) == pytest.approx(third, rel=1e-6)


@pytest.mark.parametrize(
    ("merge", "first", "third"),
    [
        (
            "modulate",
            (0.0797554808, 0.0344597727, 0.0438474958, 0.0818230064),
            (0.0796942583, 0.0283748576),
        ),
        (
            "add",
            (0.1010876447, 0.0904006355, 0.0090062761, 0.1170213622),
            (0.1477630118, 0.1665563193),
        ),
    ],
)
def test_a_converted_ppnv2_gives_the_golden_numbers(tmp_path, capsys, merge, first, third):
    checkpoint = save(tmp_path / "best.pth", published.ppnv2(**PPNV2_SMALL, merge=merge), info="a text")
    assert main(["convert", str(checkpoint), str(tmp_path / "mine")]) == 0
    assert f"merge='{merge}'" in capsys.readouterr().out
    future = predicted(tmp_path / "mine", golden_input(1, 7, 3, 32, 40))
    flat = future[:, 0].flatten()
    assert (*mean_and_std(flat), flat[0].item(), flat[-1].item()) == pytest.approx(first, rel=1e-6)
    assert mean_and_std(future[:, 2]) == pytest.approx(third, rel=1e-6)


def test_a_converted_discriminator_gives_the_golden_scores(tmp_path):
    tensors = published.discriminator(channels=(4, 8, 16), kernel=(4, 6))
    assert count(tensors) == 662_185
    torch.save({"epoch": 1, "d_img_model": tensors, "loss": 0.5}, tmp_path / "both.pth")
    assert main(["convert", str(tmp_path / "both.pth"), str(tmp_path / "critic")]) == 0
    content = json.loads((tmp_path / "critic" / "config.json").read_text())
    assert content["model"] == "FrameDiscriminator"
    judge = FrameDiscriminator(**content["config"]).double().eval()
    judge.load_state_dict(load_file(tmp_path / "critic" / "model.safetensors"))
    frames = golden_input(3, 3, 16, 24)
    scores = judge(frames)
    found = (scores.mean().item(), scores[0].item(), scores[-1].item())
    assert found == pytest.approx((0.4964733446, 0.4966198119, 0.4963101675), rel=1e-6)
    assert judge.train()(frames).mean().item() == pytest.approx(0.4969406455, rel=1e-6)


# Transcriptions of the published forward passes, on tensors no two of which are alike.

MSPN_KINDS = {
    "plain": {"hidden": 3},
    "batch norm": {"hidden": 3, "norm": True},
    "no latent sharing": {"hidden": 3, "latent_sharing": False},
    "En-LSTM-De": {"ablation": True},
    "En-LSTM-De, batch norm": {"ablation": True, "norm": True},
}


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("kind", MSPN_KINDS)
def test_a_converted_mspn_predicts_what_the_published_steps_do(tmp_path, kind, levels):
    options = {"channels": (3, 4, 5, 6, 7)[: levels + 1], "levels": levels, "in_channels": 2} | MSPN_KINDS[kind]
    tensors = published.mspn(**options, fill=published.Drawn())
    model = load_original(save(tmp_path / "a.pt", tensors), dtype=torch.float64)
    assert isinstance(model, MSPN)
    assert (model.levels, model.channels, model.in_channels) == (levels, options["channels"], 2)
    frames = golden_input(2, 3, 2, 16, 32)
    expected = mspn_forward(tensors, frames, 2, levels=levels, stages=levels, hidden=3)
    assert expected.std() > 0.01
    torch.testing.assert_close(model(frames, 2), expected, rtol=1e-9, atol=1e-11)


def test_a_u_net_with_more_stages_than_levels_is_seen(tmp_path):
    tensors = published.mspn(channels=(2, 3, 4, 5), levels=2, in_channels=1, hidden=2, fill=published.Drawn())
    model = load_original(save(tmp_path / "a.pt", tensors), dtype=torch.float64)
    frames = golden_input(1, 2, 1, 16, 16)
    expected = mspn_forward(tensors, frames, 2, levels=2, stages=3, hidden=2)
    torch.testing.assert_close(model(frames, 2), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("merge", ["modulate", "concat", "add"])
def test_a_converted_ppnv2_predicts_what_the_published_steps_do(tmp_path, merge, wrapped):
    channels, hidden = (3, 5, 5), None if wrapped else (4, 3, 6)
    tensors = published.ppnv2(channels=channels, merge=merge, hidden=hidden, fill=published.Drawn(), wrapped=wrapped)
    model = load_original(save(tmp_path / "a.pt", tensors), dtype=torch.float64)
    assert isinstance(model, PPNV2)
    frames = golden_input(1, 4, 3, 16, 20)
    expected = ppnv2_forward(tensors, frames, 3, channels=channels, hidden=hidden)
    assert expected.std() > 0.01
    torch.testing.assert_close(model(frames, 3), expected, rtol=1e-9, atol=1e-11)


# What a file may look like


def test_every_form_of_a_file_gives_the_same_model(tmp_path):
    tensors = published.mspn(**SMALL, hidden=4, fill=published.Drawn())
    narrow = {name: tensor.float() for name, tensor in tensors.items()}
    torch.save(narrow, tmp_path / "bare.pt")
    torch.save(narrow, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in narrow.items()}}, tmp_path / "nested.pth")
    save_file({f"_orig_mod.module.{name}": tensor for name, tensor in narrow.items()}, tmp_path / "a.safetensors")
    frames = golden_input(1, 2, 3, 16, 16).float()
    futures = [load_original(path)(frames, 2) for path in sorted(tmp_path.iterdir())]
    assert len(futures) == 4
    for future in futures:
        assert torch.equal(future, futures[0])


def test_the_folder_keeps_the_dtype_of_the_checkpoint(tmp_path):
    tensors = published.mspn(**SMALL, hidden=4)
    for dtype in (torch.float16, torch.float32, torch.float64):
        torch.save({name: tensor.to(dtype) for name, tensor in tensors.items()}, tmp_path / "a.pt")
        assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "out")]) == 0
        assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}


def test_an_adversarial_checkpoint_gives_the_predictor_and_on_request_the_discriminator(tmp_path, capsys):
    both = {
        "epoch": np.int64(3),
        "g_model": published.mspn(**SMALL, hidden=4),
        "d_img_model": published.discriminator(channels=(4, 8, 16), kernel=(4, 6)),
        "loss": np.float64(1.5),
    }
    torch.save(both, tmp_path / "both.pth")
    original = read_original(tmp_path / "both.pth")
    assert (original.system, original.part) == ("mspn", "g_model")
    assert original.others == (("mspn-discriminator", "d_img_model"),)
    assert main(["convert", str(tmp_path / "both.pth"), str(tmp_path / "out")]) == 0
    assert "--system mspn-discriminator" in capsys.readouterr().out
    assert isinstance(load_original(tmp_path / "both.pth", system="mspn-discriminator"), FrameDiscriminator)


def test_what_is_never_used_is_dropped_by_name(tmp_path):
    original = read_original(save(tmp_path / "a.pt", published.mspn(**SMALL, hidden=4)))
    assert sorted(original.dropped) == [
        "EHcell.en_decoder.merge_conv1.0.bias",
        "EHcell.en_decoder.merge_conv1.0.weight",
        "EHcell.en_decoder.scale",
        "ELcell.en_decoder.merge_conv0.0.bias",
        "ELcell.en_decoder.merge_conv0.0.weight",
        "ELcell.en_decoder.scale",
    ]
    # Without them, as another tool may have saved it, it converts too.
    kept = {key: tensor for key, tensor in published.mspn(**SMALL, hidden=4).items() if key not in original.dropped}
    assert read_original(save(tmp_path / "a.pt", kept)).dropped == ()
    ppnv2 = read_original(save(tmp_path / "b.pt", published.ppnv2(**PPNV2_SMALL)))
    assert {name.split(".")[0] for name in ppnv2.dropped} == {"MergePred3"}


def test_an_argument_that_the_shapes_do_not_tell_can_be_given(tmp_path):
    checkpoint = save(tmp_path / "a.pt", published.mspn(**SMALL, hidden=4))
    settings = '{"clamp": true, "align_corners": false}'
    assert main(["convert", str(checkpoint), str(tmp_path / "out"), "--config", settings]) == 0
    model = pcvideo.from_pretrained(tmp_path / "out")
    assert (model.clamp, model.align_corners) == (True, False)
    critic = published.discriminator(channels=(2, 3), kernel=(4, 6))
    torch.save(critic, tmp_path / "critic.pt")
    assert load_original(tmp_path / "critic.pt").size == (8, 12)
    assert load_original(tmp_path / "critic.pt", config={"size": [9, 13]}).size == (9, 13)


# And back


@pytest.mark.parametrize("kind", MSPN_KINDS)
def test_an_mspn_goes_back_to_the_published_names(tmp_path, kind):
    options = {"channels": (2, 3, 4, 5), "levels": 3, "in_channels": 1} | MSPN_KINDS[kind]
    tensors = published.mspn(**options, fill=published.Drawn())
    original = read_original(save(tmp_path / "a.pt", tensors))
    back = to_original(original.model)
    assert back.keys() == tensors.keys() - set(original.dropped)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in back.items())


def test_a_ppnv2_goes_back_to_the_published_names(tmp_path):
    tensors = published.ppnv2(channels=(3, 4, 5), fill=published.Drawn())
    original = read_original(save(tmp_path / "a.pt", tensors))
    back = to_original(original.model)
    assert back.keys() == tensors.keys() - set(original.dropped)
    # The lowest level's share of errors is never used; it goes back as it is at first.
    tensors["error_factor"][0] = 1
    assert all(torch.equal(tensor, tensors[name].view_as(tensor)) for name, tensor in back.items())
    with pytest.raises(ValueError, match="knows fir='reshaped' alone"):
        to_original(PPNV2(channels=(3, 4)))
    with pytest.raises(ValueError, match="knows patch=1 alone"):
        to_original(MSPN(in_channels=1, levels=2, channels=(2, 3, 4), patch=2))


# Faults


def broken(tmp_path, change):
    tensors = published.mspn(**SMALL, hidden=4)
    change(tensors)
    return save(tmp_path / "broken.pt", tensors)


def test_missing_unexpected_and_misshaped_tensors_are_named_as_in_the_file(tmp_path):
    def change(tensors):
        del tensors["EHcell.en_decoder.upsample0.2.res.bias"]
        tensors["EHcell.en_decoder.extra.weight"] = torch.ones(1)
        tensors["ELcell.en_decoder.in_conv.0.weight"] = torch.ones(8, 15, 5, 5)

    with pytest.raises(ValueError, match="does not fit MSPN") as caught:
        read_original(broken(tmp_path, change))
    words = str(caught.value)
    assert "missing: EHcell.en_decoder.upsample0.2.res.bias" in words
    assert "unexpected: EHcell.en_decoder.extra.weight" in words
    assert "ELcell.en_decoder.in_conv.0.weight: the file has (8, 15, 5, 5), the model (8, 16, 5, 5)" in words


def test_whole_or_complex_numbers_in_the_place_of_weights_are_named(tmp_path):
    for dtype in (torch.int64, torch.complex64):

        def change(tensors, dtype=dtype):
            tensors["EHcell.out_conv.0.bias"] = torch.ones(3, dtype=dtype)

        words = f"wrong dtypes: EHcell.out_conv.0.bias: the file has {dtype}, the model torch.float32"
        with pytest.raises(ValueError, match=words):
            read_original(broken(tmp_path, change))


@pytest.mark.parametrize(
    ("name", "replacement", "words"),
    [
        ("EHcell.out_conv.0.weight", None, "EHcell.out_conv.0.weight is missing, by whose shape"),
        ("EHcell.out_conv.0.weight", torch.ones(3), "must have 4 axes, got the shape \\(3,\\)"),
        ("ELcell.en_decoder.in_conv.0.bias", None, "missing: ELcell.en_decoder.in_conv.0.bias"),
    ],
)
def test_a_tensor_that_tells_the_configuration_is_named(tmp_path, name, replacement, words):
    def change(tensors):
        del tensors[name]
        if replacement is not None:
            tensors[name] = replacement

    with pytest.raises(ValueError, match=words):
        read_original(broken(tmp_path, change))


def test_a_file_of_another_system_and_a_wrong_argument_are_told(tmp_path, capsys):
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"not a checkpoint of mspn, ppnv2.*begin with layer\.weight"):
        read_original(tmp_path / "a.pt")
    checkpoint = save(tmp_path / "b.pt", published.mspn(**SMALL, hidden=4))
    with pytest.raises(ValueError, match="not a checkpoint of ppnv2"):
        read_original(checkpoint, system="ppnv2")
    with pytest.raises(ValueError, match="did you mean 'mspn'"):
        read_original(checkpoint, system="mspm")
    for settings, words in (
        ('{"clmp": true}', "did you mean 'clamp'"),
        ("{clamp}", "--config must be a JSON object"),
        ("[1]", "--config must be a JSON object"),
        ('{"hidden_channels": 5}', "wrong shapes"),
    ):
        assert main(["convert", str(checkpoint), str(tmp_path / "out"), "--config", settings]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_converting_logs_and_prints_nothing_in_python(tmp_path, capsys, caplog):
    with caplog.at_level(logging.WARNING):
        load_original(save(tmp_path / "a.pt", published.mspn(**SMALL, hidden=4)))
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
