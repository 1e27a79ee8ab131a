"""Stored outputs of the model's frozen bottom: `prepare` is what `setup` calls, `cost` is light and what the plan verb asks."""
