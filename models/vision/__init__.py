"""Image encoders that transformers lacks. Those it has (ResNet, EfficientNet, ViT, CLIP) are taken from there."""
