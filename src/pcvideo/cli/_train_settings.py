# SPDX-License-Identifier: Apache-2.0
"""The settings of `pcvideo train`, in the order of its help text."""

from __future__ import annotations

from dataclasses import replace

from pcvideo.cli._settings import Setting, constructor_settings
from pcvideo.data import VOXEL_FORMATS
from pcvideo.models import MSPN, PPNV2
from pcvideo.training.engine import ENGINES
from pcvideo.training.schedules import SCHEDULES
from pcvideo.training.trainer import OPTIMIZERS, PRECISIONS

__all__ = ["ADVERSARIAL_SETTINGS", "MODEL_SETTINGS", "SETTINGS"]

_START = "what is trained"
_DATA = "data"
_RUN = "run"
_OPTIMISER = "optimiser"
_REGIME = "regime and loss"
_ADVERSARIAL = "strategy adversarial (the defaults are the published ones, with a cap on a phase)"
_MODEL = "numbers of a new model (the published ones where nothing is said), or other numbers of --init's"

_MODEL_HELP = {
    "in_channels": "mspn: channels of a frame (default: 1 for moving-mnist, else 3)",
    "levels": "mspn: levels of the pyramid (default: 3)",
    "channels": "mspn: widths of the finest level's U-Net, at least one more than levels (default: 64 128 256 512); "
    "ppnv2: of every level's features, the frame's first (default: 3 64 128 256 512 512)",
    "hidden_channels": "channels of a cell's hidden state (mspn, default: 32), or of every level's (ppnv2, default: "
    "as --channels)",
    "norm": "mspn: batch, for batch normalisation",
    "cell": "mspn: ed_lstm (default) or encoder_lstm_decoder",
    "latent_sharing": "mspn: merge each level's latent into the next finer one (default: yes)",
    "fusion": "mspn: how cells take in skip features and latents: concat (default), modulate or add",
    "resample": "mspn: how frames are halved: nearest (default), average, binomial or fir",
    "align_corners": "mspn: of bilinear doubling (default: yes)",
    "patch": "side of the patches that cells see: 2 or 4 make it several times faster (default: 1)",
    "merge": "ppnv2: how a level takes in errors and the coarser prediction: modulate (default), concat or add",
    "legacy": "ppnv2: the published network in every respect (default: no)",
    "fir": "ppnv2: design of the low-pass filters: separable (default), radial or reshaped (published)",
    "bound": "ppnv2: of their cutoffs: max_cutoff (default) or published",
    "interpolation": "ppnv2: kernel that doubles: inverse_distance (default), sinc or published",
    "border": "ppnv2: what doubling extends an image by: replicate (default) or reflect (published)",
    "taps": "ppnv2: length of the low-pass filters (default: 9)",
    "window": "ppnv2: of the low-pass filters: kaiser (default) or hamming",
    "residual": "predict the change from the last frame (default: no)",
    "clamp": "clamp returned frames to [0, 1] (default: no)",
}


def _model_settings() -> tuple[Setting, ...]:
    """One setting for each argument that a model has, in the order of the help texts."""
    settings = {
        setting.name: setting
        for kind in (MSPN, PPNV2)
        for setting in constructor_settings(kind, {}, _MODEL_HELP, group=_MODEL)
    }
    settings["hidden_channels"] = replace(settings["hidden_channels"], kind="int_or_ints")
    return tuple(settings[name] for name in _MODEL_HELP)


MODEL_SETTINGS = _model_settings()

ADVERSARIAL_SETTINGS = (
    Setting("pixel_steps", "int", 0, "so many steps first by the regime's loss alone", group=_ADVERSARIAL),
    Setting("adversarial_weight", "float", 100.0, "of the scores in the model's loss", group=_ADVERSARIAL),
    Setting("pixel_weight", "float", 1.0, "of the regime's loss in the model's loss", group=_ADVERSARIAL),
    Setting(
        "score",
        "text",
        "least_squares",
        "what is made of the discriminator's scores",
        ("least_squares", "hinge", "wasserstein"),
        group=_ADVERSARIAL,
    ),
    Setting("gradient_penalty", "float", 0.0, "on the discriminator's slope; WGAN-GP: 10", group=_ADVERSARIAL),
    Setting("judge_from", "int", None, "first frame that is judged (default: half of --context)", group=_ADVERSARIAL),
    Setting(
        "discriminator_steps",
        "int",
        None,
        "so many of the discriminator, then one of the model (default: balanced by their scores)",
        group=_ADVERSARIAL,
    ),
    Setting("discriminator_rate", "float", 0.01, "its learning rate as a factor of --lr", group=_ADVERSARIAL),
    Setting(
        "discriminator_channels",
        "ints",
        (64, 64, 128, 256, 256, 512),
        "its widths, finest first, with a halving between each two",
        group=_ADVERSARIAL,
    ),
    Setting(
        "discriminator_norm",
        "text",
        "batch",
        "its batch normalisation, which a gradient penalty takes away",
        ("batch", "none"),
        group=_ADVERSARIAL,
    ),
    Setting(
        "published_discriminator",
        "flag",
        False,
        "bound to --size, and frames normalised over the batch, as published",
        group=_ADVERSARIAL,
    ),
    Setting("balance_window", "int", 3, "steps whose mean score decides whose turn it is", group=_ADVERSARIAL),
    Setting(
        "tolerance_enter",
        "float",
        0.02,
        "share by which predictions score lower for the model to go on",
        group=_ADVERSARIAL,
    ),
    Setting(
        "tolerance_leave", "float", 0.01, "share by which they do for the discriminator to stop", group=_ADVERSARIAL
    ),
    Setting("max_phase_steps", "int", 50, "longest turn of either; 0: no cap, as published", group=_ADVERSARIAL),
)

SETTINGS = (
    Setting("model", "text", None, "architecture of a new model (default: mspn)", group=_START),
    Setting("init", "text", None, "go on from weights: a name (see pcvideo models) or a folder", group=_START),
    Setting("model_config", "text", None, "the model's numbers as a JSON file, or as JSON itself", group=_START),
    Setting(
        "data", "text", "moving-mnist", "a folder of videos or of frames, an array file, or moving-mnist", group=_DATA
    ),
    Setting("dataset", "text", "clips", "voxel4d: scenes of voxels in --data", ("clips", "voxel4d"), group=_DATA),
    Setting("format", "text", "80/4", "voxel4d: frames of a scene / step", tuple(VOXEL_FORMATS), group=_DATA),
    Setting("include", "texts", (), "train only on videos of these names", group=_DATA),
    Setting("exclude", "texts", (), "don't train on videos of these names", group=_DATA),
    Setting(
        "val_data", "text", None, "what to validate on (default: none; moving-mnist: its test digits)", group=_DATA
    ),
    Setting("val_include", "texts", (), "validate only on these; of --data if there is no --val-data", group=_DATA),
    Setting("val_exclude", "texts", (), "don't validate on these", group=_DATA),
    Setting(
        "val_share",
        "float",
        0.1,
        "share of --data that is held out to validate on where nothing is named; 0: none",
        group=_DATA,
    ),
    Setting(
        "size",
        "size",
        None,
        "resize frames to (default: that of --init's card, else their own; moving-mnist: 64 64)",
        group=_DATA,
    ),
    Setting("stride", "int", None, "from one window's start to the next one's (default: no overlap)", group=_DATA),
    Setting("interval", "int", 1, "take every n-th frame", group=_DATA),
    Setting("flip", "flag", False, "mirror half of the clips, left to right", group=_DATA),
    Setting("cache", "flag", False, "keep all frames in memory, as 8 bit", group=_DATA),
    Setting("on_error", "text", "error", "for a file that can't be read", ("error", "skip"), group=_DATA),
    Setting("digits", "text", None, "moving-mnist: folder with MNIST's IDX files", group=_DATA),
    Setting("clips", "int", 10_000, "moving-mnist: different clips to train on", group=_DATA),
    Setting("num_digits", "int", 2, "moving-mnist: digits per clip", group=_DATA),
    Setting("speed", "float", 0.1, "moving-mnist: step per frame, as a share of the free canvas", group=_DATA),
    Setting("context", "int", 10, "true frames before the prediction", group=_REGIME),
    Setting("horizon", "int", 10, "frames to predict", group=_REGIME),
    Setting(
        "strategy",
        "text",
        "self-feeding",
        "past the context the model is fed its own predictions; or true frames throughout; or a discriminator joins in",
        ("self-feeding", "teacher-forced", "adversarial"),
        group=_REGIME,
    ),
    Setting(
        "loss_norm",
        "text",
        "sum_of_squares",
        "norm of the pyramid loss; the first is the published one",
        ("sum_of_squares", "euclidean", "mean"),
        group=_REGIME,
    ),
    Setting(
        "batch_mean",
        "flag",
        True,
        "divide the loss by the batch; --no-batch-mean adds it up, as MSPN is published",
        group=_REGIME,
    ),
    Setting(
        "level_weights",
        "weights",
        None,
        "equal, linear, shared_above, or a number for each level (default: as published)",
        group=_REGIME,
    ),
    Setting(
        "step_weights",
        "weights",
        None,
        "skip_first, damp_first, or a number for each step (default: as published)",
        group=_REGIME,
    ),
    Setting(
        "encoding_loss",
        "flag",
        None,
        "ppnv2, self-feeding: compare the features of frames that are fed back, too (default: yes)",
        group=_REGIME,
    ),
    Setting("perceptual", "flag", False, "add the squared LPIPS of the frames to the loss, as ppnv2", group=_REGIME),
    Setting("detach_targets", "flag", False, "ppnv2: no gradient through the features to predict", group=_REGIME),
    Setting("detach", "flag", False, "no gradient through the frames that are fed back", group=_REGIME),
    Setting(
        "true_frames",
        "schedule",
        0.0,
        "probability of a true frame past the context all the same (scheduled sampling): a number, START END STEPS "
        "[AFTER], exponential BASE or inverse_sigmoid SCALE",
        group=_REGIME,
    ),
    Setting(
        "growth",
        "schedule",
        None,
        "frames past the context that are trained on: START END STEPS [AFTER] (default: all)",
        group=_REGIME,
    ),
    Setting(
        "truncate",
        "int",
        None,
        "steps of a clip that gradients go back through at a time (default: all)",
        group=_REGIME,
    ),
    Setting("recompute", "flag", False, "recompute activations in the backward pass, to save memory", group=_REGIME),
    Setting("steps", "int", 10_000, "optimiser steps of the whole run", group=_OPTIMISER),
    Setting("epochs", "int", None, "go so many times through the clips, in place of --steps", group=_OPTIMISER),
    Setting("batch", "int", 8, "clips per step, of all processes together", group=_OPTIMISER),
    Setting("accumulate", "int", 1, "parts of each process's share, one after another", group=_OPTIMISER),
    Setting("lr", "float", 1e-3, "peak learning rate", group=_OPTIMISER),
    Setting(
        "rate", "rates", None, "learning rates of parts as factors of --lr, such as 'cells.0=0.1'", group=_OPTIMISER
    ),
    Setting("freeze", "texts", (), "parts that are not trained, such as 'cells.0' or '*.bias'", group=_OPTIMISER),
    Setting("optimizer", "text", "adam", "", tuple(OPTIMIZERS), group=_OPTIMISER),
    Setting("schedule", "text", "cosine", "", SCHEDULES, group=_OPTIMISER),
    Setting("warmup", "int", 0, "steps of linear rise", group=_OPTIMISER),
    Setting("weight_decay", "float", 0.0, "of the optimiser", group=_OPTIMISER),
    Setting("clip_norm", "float", None, "clip the gradient's norm to this (default: don't)", group=_OPTIMISER),
    Setting(
        "ema", "float", None, "average the weights with this decay, such as 0.999 (default: don't)", group=_OPTIMISER
    ),
    Setting("precision", "text", "float32", "", tuple(PRECISIONS), group=_OPTIMISER),
    Setting("compile", "flag", False, "compile the model's step", group=_OPTIMISER),
    Setting(
        "engine",
        "text",
        "auto",
        "under torchrun: a whole model in each process, or one cut among them",
        ENGINES,
        group=_RUN,
    ),
    Setting("seed", "int", 0, "of the weights, the order of clips and generated clips", group=_OPTIMISER),
    Setting("run_dir", "text", "runs/pcvideo", "folder of the run", group=_RUN),
    Setting("validate_every", "int", 500, "steps between two validations; 0: only at the end", group=_RUN),
    Setting("checkpoint_every", "int", 500, "steps between two checkpoints; 0: only at the end", group=_RUN),
    Setting("validation_clips", "int", 256, "validate on at most so many clips", group=_RUN),
    Setting("keep", "int", 2, "checkpoints to keep", group=_RUN),
    Setting("keep_every", "int", 0, "keep besides those whose step it divides; 0: no others", group=_RUN),
    Setting("on_save_error", "text", "raise", "where a checkpoint can't be written", ("raise", "warn"), group=_RUN),
    Setting("grace", "float", 25.0, "seconds from SIGTERM or Ctrl-C to the end, whatever hangs", group=_RUN),
    Setting("tensorboard", "flag", None, "event files (default: where tensorboard is installed)", group=_RUN),
    Setting("wandb", "text", None, "project of Weights & Biases to log to (pip install wandb)", group=_RUN),
    Setting("pictures", "int", 2, "validation clips to draw as strip and GIF each time", group=_RUN),
    Setting("max_bad_steps", "int", 5, "steps in a row whose loss may be NaN or infinite", group=_RUN),
    Setting("num_workers", "int", 0, "processes that load clips", group=_RUN),
    Setting("data_timeout", "float", 300.0, "seconds to wait for one of them; 0: for ever", group=_RUN),
    Setting("rank_timeout", "float", 600.0, "seconds to wait for another process of torchrun's", group=_RUN),
    Setting("device", "text", None, "cpu, cuda, ... (default: a GPU if there is one)", group=_RUN),
    Setting("threads", "int", None, "CPU threads (default: torch's own choice)", group=_RUN),
    *ADVERSARIAL_SETTINGS,
    *MODEL_SETTINGS,
)
