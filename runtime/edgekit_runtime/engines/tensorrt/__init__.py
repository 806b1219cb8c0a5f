"""TensorRT: NVIDIA's GPUs, by TensorRT for RTX on PCs and by JetPack's TensorRT on Jetson.

Engines fit one version of TensorRT and one kind of GPU. A bundle carries the ONNX form of the graph and, for RTX,
engines that were built ahead of time; what is missing or does not fit is built by `edgekit-run prepare`, never by the
way: on a Jetson it takes minutes.
"""
