"""Runs: their configuration, where their files are, and how one is carried out."""
