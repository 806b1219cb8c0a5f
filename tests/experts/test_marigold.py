"""A small random Marigold, saved to disk, against the library's own pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgekit_experts.expert import Batch
from edgekit_experts.learned.compiled import cache_folder
from edgekit_experts.learned.marigold import MarigoldDepth, noise_seed
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
    return np.stack([cv2.resize(frame, (90, 60), interpolation=cv2.INTER_CUBIC) for frame in noise])


@pytest.fixture(scope="module")
def marigold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("marigold")
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        in_channels=8,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    )
    text = transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=1, vocab_size=8
    )
    tokens = ("a", "a</w>", "<|startoftext|>", "<|endoftext|>")
    pipeline = diffusers.MarigoldDepthPipeline(
        unet=unet,
        vae=vae,
        scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer(
            vocab={token: n for n, token in enumerate(tokens)}, merges=[], model_max_length=77
        ),
        prediction_type="depth",
        default_denoising_steps=2,
        default_processing_resolution=64,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


# The parts of the pipeline agree to 1e-5. How several answers are brought to one scale is the library's search for a
# minimum, which small differences may end elsewhere.
@pytest.mark.parametrize(("ensemble", "tolerance"), [(1, 1e-3), (3, 0.08)])
def test_depth_is_that_of_the_librarys_pipeline(
    marigold: Path, frames: np.ndarray, ensemble: int, tolerance: float
) -> None:
    expert = MarigoldDepth(str(marigold), steps=3, ensemble=ensemble, seed=5, size=48, device="cpu")
    modality = expert.produces({})
    assert (modality.kind, modality.unit, modality.range) == (Kind.DEPTH, "affine-invariant", (0, 1))
    assert not modality.near_is_high
    depth = expert.compute(Batch(frames[1:2], {}, 7))
    assert (depth.shape, depth.dtype) == ((1, 60, 90, 1), np.float16)

    pipeline = diffusers.MarigoldDepthPipeline.from_pretrained(marigold)
    expected = pipeline(
        Image.fromarray(frames[1]),
        num_inference_steps=3,
        ensemble_size=ensemble,
        processing_resolution=48,
        generator=torch.Generator().manual_seed(noise_seed(5, 7)),
    ).prediction
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(depth, expected, atol=tolerance)
    assert np.corrcoef(depth.ravel().astype(float), expected.ravel())[0, 1] > 0.97


def test_its_networks_run_compiled_on_a_cpu(marigold: Path, frames: np.ndarray) -> None:
    expert = MarigoldDepth(str(marigold), device="cpu")
    expert.compute(Batch(frames[:1], {}, 0))
    folder = cache_folder()
    assert folder is not None
    for part in ("unet", "encoder", "decoder"):
        assert list(folder.glob(f"marigold_{part}-{expert.identity}-*.xml")), part


def test_noise_is_of_the_seed_and_the_frames_number(marigold: Path, frames: np.ndarray) -> None:
    expert = MarigoldDepth(str(marigold))
    together = expert.compute(Batch(frames, {}, 0))
    np.testing.assert_array_equal(expert.compute(Batch(frames[2:], {}, 2)), together[2:])
    assert (expert.compute(Batch(frames[2:], {}, 3)) != together[2:]).any()
    assert (MarigoldDepth(str(marigold), seed=1).compute(Batch(frames[2:], {}, 2)) != together[2:]).any()


def test_disparity_is_nearer_where_it_is_larger(marigold: Path, tmp_path: Path) -> None:
    shutil.copytree(marigold, tmp_path / "other")
    index = json.loads((marigold / "model_index.json").read_text(encoding="utf-8"))
    (tmp_path / "other" / "model_index.json").write_text(
        json.dumps({**index, "prediction_type": "disparity"}), encoding="utf-8"
    )
    expert = MarigoldDepth(str(tmp_path / "other"))
    assert expert.produces({}).near_is_high
    assert expert.identity != MarigoldDepth(str(marigold)).identity


def test_what_is_no_such_checkpoint_or_could_run_code_is_refused(marigold: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match="no checkpoint of diffusers"):
        MarigoldDepth(str(tmp_path)).produces({})
    pickled = tmp_path / "pickled"
    shutil.copytree(marigold, pickled)
    (pickled / "text_encoder" / "model.safetensors").rename(pickled / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(ExpertError, match="text_encoder in safetensors"):
        MarigoldDepth(str(pickled)).produces({})
    shutil.copytree(marigold, tmp_path / "other")
    (tmp_path / "other" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    with pytest.raises(ExpertError, match="of StableDiffusionPipeline, not"):
        MarigoldDepth(str(tmp_path / "other")).produces({})
    with pytest.raises(ExpertError, match="size 50"):
        MarigoldDepth(size=50)
