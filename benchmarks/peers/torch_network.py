"""A network in PyTorch: `torch_network.py NETWORK.pt2 eager|compiled`, camera bytes in, class ids or depth out.

The file is a deploy graph as `torch.export` wrote it: the same operations as in Python code, called one by one
(eager), or compiled by `torch.compile` with its default settings, for which it needs a C++ compiler.
"""

import os
import sys

import torch
from serve import serve

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
program = torch.export.load(sys.argv[1])
module = program.module()
if sys.argv[2] == "compiled":
    module = torch.compile(module)
(shape,) = (tuple(value.shape) for value in program.example_inputs[0])
image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def run():
    with torch.inference_mode():
        module(image)


run()
serve(run, version=torch.__version__)
