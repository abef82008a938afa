"""Hydra configs, shipped as statprune.conf."""
