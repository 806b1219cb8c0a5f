"""Small random networks of the real architectures, saved to disk, against the library's own pipelines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny import HALVES, save, tiny_dpt, tiny_segformer

from edgekit_experts.expert import Batch
from edgekit_experts.learned.preparation import Preparation
from edgekit_experts.learned.pretrained import PretrainedDepth, PretrainedLabels, _mask_classification, taxonomy_of
from edgekit_experts.taxonomies import ADE20K, CITYSCAPES
from edgekit_runtime.errors import ExpertError

transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    return cv2.resize(noise, (192, 128), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_dpt(tmp_path_factory.mktemp("dpt"))


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_segformer(tmp_path_factory.mktemp("segformer"))


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(2)
    backbone = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=10,
        id2label={0: "one", 1: "two", 2: "three", 3: "two"},
        label2id={"one": 0, "two": 1, "three": 2},
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    size = {"size": {"shortest_edge": 64, "longest_edge": 128}, "size_divisor": 32, "resample": 2}
    return save(tmp_path_factory.mktemp("mask2former"), model, "Mask2FormerImageProcessor", **size, **HALVES)


@pytest.fixture(scope="module")
def oneformer(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("oneformer")
    letters = sorted({*"the task is semantic"} - {" "})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={token: n for n, token in enumerate(tokens)}, merges=[])
    config = transformers.OneFormerConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        num_attention_heads=2,
        num_queries=10,
        max_seq_len=32,
        task_seq_len=32,
        text_encoder_vocab_size=len(tokens),
        text_encoder_context_length=32,
        text_encoder_width=64,
        text_encoder_num_layers=1,
        is_training=True,  # as some are published
        id2label={0: "one", 1: "two", 2: "three"},
        label2id={"one": 0, "two": 1, "three": 2},
    )
    names = {str(number): {"name": name, "isthing": 1} for number, name in enumerate(["one", "two", "three"])}
    (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    size = {"shortest_edge": 64, "longest_edge": 128}
    pictures = transformers.OneFormerImageProcessorPil(
        size=size, repo_path=str(folder), class_info_file="classes.json", num_text=6, **HALVES
    )
    processor = transformers.OneFormerProcessor(pictures, tokenizer, max_seq_length=32, task_seq_length=32)
    processor.save_pretrained(folder)
    return save(
        folder,
        transformers.OneFormerForUniversalSegmentation(config),
        "OneFormerImageProcessor",
        size=size,
        resample=2,
        repo_path=str(folder),
        class_info_file="classes.json",
        **HALVES,
    )


def answer(expert: Any, frame: np.ndarray) -> np.ndarray:
    modality = expert.produces({})
    computed = expert.compute(Batch(frame[None], {}, 0))
    assert computed.shape == (1, *frame.shape[:2], modality.channels)
    assert computed.dtype.name == modality.dtype
    return computed[0, ..., 0]


def test_depth_is_that_of_the_librarys_pipeline(dpt: str, frame: np.ndarray) -> None:
    pipeline = transformers.pipeline("depth-estimation", model=dpt, device="cpu")
    expected = pipeline(Image.fromarray(frame))["predicted_depth"].squeeze().numpy()
    depth = answer(PretrainedDepth(dpt), frame).astype(np.float32)
    expected = cv2.resize(expected, depth.shape[::-1], interpolation=cv2.INTER_CUBIC)
    spread = np.percentile(expected, 99) - np.percentile(expected, 1)
    assert spread > 0
    # Pillow and OpenCV shrink a picture differently: two per cent of the range.
    assert np.abs(depth - expected).mean() < 0.02 * spread
    assert np.corrcoef(depth.ravel(), expected.ravel())[0, 1] > 0.99


def test_compiled_is_torch_to_the_fifth_digit_and_pictures_need_not_be_square(dpt: str, frame: np.ndarray) -> None:
    expert = PretrainedDepth(dpt, size=96)
    assert expert.network_size(*frame.shape[:2]) == (64, 96)
    tensor = expert.preparation.tensor(frame, (64, 96))
    with torch.no_grad():
        expected = expert.load()(torch.from_numpy(tensor)).numpy()
    compiled = expert._network("dpt", expert.load, tensor.shape)(tensor)[0]
    assert compiled.shape == expected.shape
    np.testing.assert_allclose(compiled, expected, atol=1e-4 * np.abs(expected).max())
    assert np.isfinite(answer(expert, frame)).all()


@pytest.mark.parametrize("name", ["segformer", "mask2former"])
def test_classes_are_those_of_the_librarys_pipeline(
    name: str, frame: np.ndarray, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    kind = {
        "segformer": transformers.AutoModelForSemanticSegmentation,
        "mask2former": transformers.AutoModelForUniversalSegmentation,
    }[name]
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = model(pixel_values=processor(images=Image.fromarray(frame), return_tensors="pt")["pixel_values"])
    (expected,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[frame.shape[:2]])
    labels = answer(PretrainedLabels(folder), frame)
    assert len(np.unique(labels)) > 1
    # The library goes by way of masks of 384×384, and random masks are all border.
    assert (labels == expected.numpy()).mean() > {"segformer": 0.95, "mask2former": 0.85}[name]


def test_oneformer_is_told_its_task_as_the_library_tells_it(oneformer: str, frame: np.ndarray) -> None:
    processor = transformers.OneFormerProcessor.from_pretrained(oneformer, max_seq_length=32, task_seq_length=32)
    model = transformers.OneFormerForUniversalSegmentation.from_pretrained(oneformer, is_training=False).eval()
    inputs = processor(Image.fromarray(frame), ["semantic"], return_tensors="pt")
    with torch.no_grad():
        told, untold = (
            model(pixel_values=inputs["pixel_values"], task_inputs=tokens)
            for tokens in (inputs["task_inputs"], torch.zeros_like(inputs["task_inputs"]))
        )
    (expected,) = processor.post_process_semantic_segmentation(told, target_sizes=[frame.shape[:2]])
    expert = PretrainedLabels(oneformer)
    assert (answer(expert, frame) == expected.numpy()).mean() > 0.95
    picture = inputs["pixel_values"].numpy()
    (evidence,) = expert._network("pretrained_labels", expert.load, picture.shape)(picture)
    right, wrong = (_mask_classification(outputs).numpy() for outputs in (told, untold))
    np.testing.assert_allclose(evidence, right, atol=1e-4 * np.abs(right).max())
    assert np.abs(evidence - wrong).max() > 0.01 * np.abs(right).max()  # the task makes a difference


def test_known_classes_carry_the_taxonomy_that_tables_speak(segformer: str, mask2former: str) -> None:
    assert PretrainedLabels(segformer).produces({}).taxonomy == CITYSCAPES
    unknown = PretrainedLabels(mask2former).produces({}).taxonomy
    assert unknown is not None
    assert unknown.classes == ("one", "two 1", "three", "two 3")
    assert taxonomy_of("x", {n: f" {name}" for n, name in enumerate(ADE20K.classes)}) == ADE20K


def test_the_second_run_finds_the_network_converted(dpt: str, frame: np.ndarray, tmp_path: Path) -> None:
    first = answer(PretrainedDepth(dpt), frame)
    assert list((tmp_path / "cache" / "edgekit" / "experts").glob("pretrained_depth-*-1x3x64x64-*.xml"))
    again = PretrainedDepth(dpt)
    again.load = lambda: pytest.fail("converted again")  # type: ignore[method-assign]
    np.testing.assert_array_equal(answer(again, frame), first)


@pytest.mark.parametrize(
    ("table", "size", "expected"),
    [
        ({"size": {"height": 384, "width": 384}}, (540, 960), (384, 384)),
        (
            {"size": {"height": 518, "width": 518}, "keep_aspect_ratio": True, "ensure_multiple_of": 14},
            (540, 960),
            (518, 924),
        ),
        ({"size": {"shortest_edge": 384, "longest_edge": 640}, "size_divisor": 32}, (540, 960), (384, 640)),
        ({"size": {"height": 512, "width": 1024}}, (1080, 1920), (512, 1024)),
        ({"size": {"longest_edge": 1024}, "do_pad": True}, (540, 960), (576, 1024)),
    ],
)
def test_sizes_are_those_that_the_checkpoint_asks_for(
    table: dict[str, Any], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert Preparation.of(table).target(*size) == expected


def test_a_checkpoint_that_could_run_code_is_refused(dpt: str, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((Path(dpt) / "config.json").read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ExpertError, match="safetensors"):
        _ = PretrainedDepth(str(folder)).identity
    with pytest.raises(ExpertError, match="cannot be loaded"):
        PretrainedDepth(str(folder)).load()


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match="no checkpoint"):
        PretrainedDepth(str(tmp_path / "none")).produces({})


@pytest.mark.parametrize("expert", ["pretrained_depth", "marigold_depth"])
def test_without_a_way_to_the_hub_the_answer_comes_at_once_and_alone(expert: str, tmp_path: Path) -> None:
    config = tmp_path / "experts.toml"
    config.write_text(f'[far]\nexpert = "{expert}"\nmodel = "someone/a-checkpoint"\n', encoding="utf-8")
    # Nobody listens there; a cache of its own, so that nothing was downloaded earlier.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "edgekit", "experts", "graph", "-c", str(config)]
    child = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False, env=environment)
    assert child.returncode == 1
    what, hint = child.stderr.splitlines()
    assert "[far]" in what
    assert "'someone/a-checkpoint' is not here" in what
    assert "folder" in hint
