"""Where it runs: embedded Ray, Jobs API client, what is shipped. Knows nothing of training."""
