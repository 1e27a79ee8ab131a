"""What a user runs: one file a verb, thin. Parse, build, call, print."""
