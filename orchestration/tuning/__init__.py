"""Sweeps over spec paths with Ray Tune: space, sweep, report."""
