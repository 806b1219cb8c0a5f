"""The papers' tool with networks of its own kind, weights random: what it needs of its repository, and no download."""

import importlib.abc
import importlib.machinery
import os
import sys
import types

os.environ["VRE_PBAR"] = "0"
os.environ["VRE_LOGLEVEL"] = "0"

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# Inputs and outputs of the PHG-MAE that its students are read into: all modalities, of which a student sees RGB.
CHANNELS = {"camera_normals_output": 3, "depth_output": 1, "rgb": 3, "semantic_output": 8}
STATISTICS = {"rgb": [[0.0] * 3, [255.0] * 3, [95.5, 103.0, 85.0], [55.6, 58.1, 61.1]]}


def safeuav(height, width):
    """PHG-MAE-Distil-430k as the tool loads it, for frames of this size, class ids stored."""
    from vre_repository.semantic_segmentation.safeuav.model import SafeUAV as Model
    from vre_repository.semantic_segmentation.safeuav.safeuav import SafeUAV

    class Random(SafeUAV):
        def vre_setup(self, load_weights=False):
            total = sum(CHANNELS.values())
            torch.manual_seed(0)
            self.model = Model(in_channels=total, out_channels=total, num_filters=10).eval()
            shapes = {name: [channels, height, width] for name, channels in CHANNELS.items()}
            self.cfg = {
                "model": {"hparams": {"data_shape": shapes}},
                "data": {"parameters": {"task_names": list(CHANNELS)}},
            }
            self._mean, self._std = (torch.tensor(STATISTICS["rgb"][n]).reshape(1, 3, 1, 1) for n in (2, 3))
            self.setup_called = True

    return Random(name="phg_mae_distil_430k", disk_data_argmax=True, variant="model_430k", dependencies=[])


class _Whatever(type):
    """Of classes that have every attribute."""

    def __getattr__(cls, name):
        return f"{cls.__name__}.{name}"


class _Nothing(types.ModuleType):
    """A module in which every name is there, and is a class that does nothing."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Whatever(name, (), {})


class _NoTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """timm imports torchvision for pictures that it is never given here; for a CPU's torch there is no build of it."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] == "torchvision" else None

    def create_module(self, spec):
        return _Nothing(spec.name)

    def exec_module(self, module):
        pass


def dpt():
    """DPT as the tool has it (ViT-L/16 at 384), weights random."""
    sys.meta_path.append(_NoTorchvision())  # asked last: a torchvision that is there is taken
    from vre_repository.depth.dpt.depth_dpt import DepthDpt

    class Random(DepthDpt):
        def vre_setup(self, load_weights=False):
            torch.manual_seed(0)
            super().vre_setup(load_weights=False)

    return Random(name="dpt", dependencies=[])
