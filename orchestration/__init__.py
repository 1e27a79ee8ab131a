"""The pipeline on Ray, one folder a stage: data, training, tuning, serving. Imports `models`, never `jobs` or `cluster`."""
