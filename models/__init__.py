"""Networks: tensors in, logits out. Nothing here reads data, trains, exports or serves."""
