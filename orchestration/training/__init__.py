"""Token store to checkpoint: engine, loop, trainer, checkpoint, evaluate."""
