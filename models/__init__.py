"""Pure PyTorch + transformers models. Works with neither Ray nor DeepSpeed installed, and imports nothing of ours.

`build` (in `models.text`) makes a model from the `model` part of the spec; `models.depth` says what a layer is."""
