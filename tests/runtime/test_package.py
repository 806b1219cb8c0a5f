"""Importing the runtime promises little and costs little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgekit_runtime


def test_exported_names_are_exactly_these():
    assert edgekit_runtime.__all__ == [
        "Bundle",
        "BundleError",
        "EdgekitError",
        "EngineError",
        "Frame",
        "Kind",
        "Loop",
        "Manifest",
        "Modality",
        "Model",
        "Overlay",
        "Result",
        "Sink",
        "SinkError",
        "Source",
        "SourceError",
        "SourceState",
        "Stats",
        "Taxonomy",
        "Timing",
        "UsageError",
        "__version__",
        "colourise",
        "load",
        "open_bundle",
        "open_sink",
        "open_source",
        "run",
    ]


@pytest.mark.parametrize("name", edgekit_runtime.__all__)
def test_every_exported_name_is_there_and_explains_itself(name: str):
    value = getattr(edgekit_runtime, name)
    assert name == "__version__" or value.__doc__ or issubclass(value, edgekit_runtime.EdgekitError)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgekit_runtime.nothing  # noqa: B018


@pytest.mark.parametrize(
    "module", ["edgekit_runtime", "edgekit_runtime.app", "edgekit_runtime.cli", "edgekit_runtime.prepare"]
)
def test_import_brings_no_engine_and_no_torch(module: str):
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'openvino', 'onnxruntime', 'onnx', 'av', 'zarr', 'typer', 'rich', 'pydantic', 'nncf',\n"
        "    'tensorrt', 'tensorrt_rtx_bindings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


def test_bare_import_brings_not_even_opencv():
    code = "import sys, edgekit_runtime; print('cv2' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "False False"


def test_the_api_is_as_short_as_the_readme_says(small_bundle: Path, tmp_path: Path):
    """The program of runtime/README.md as it stands there, with a pattern for the camera."""
    readme = Path(edgekit_runtime.__file__).parents[1] / "README.md"
    if not readme.is_file():
        pytest.skip("installed without its readme")
    lines = readme.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("from edgekit_runtime import"))
    program = lines[start : start + 6]
    assert program[3] == 'for frame in open_source("camera:0"):'
    assert program[4].startswith("    result = model(frame)")
    code = "\n".join(
        [*program[:5], "    print(result.labels.shape, result.depth.shape, result.timing.inference_ms > 0)"]
    )
    code = code.replace("model.edgekit", str(small_bundle)).replace("camera:0", "test:?size=96x64&frames=2&fps=0")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines() == ["(16, 24) (64, 96) True"] * 2


def test_package_is_typed():
    assert (Path(edgekit_runtime.__file__).parent / "py.typed").is_file()
