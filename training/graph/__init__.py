"""How an eager network becomes a graph: ONNX and TorchScript."""
