"""HyperFormer: many tasks on one frozen backbone, with adapters from a shared hypernetwork and export to ONNX."""
