"""Measure how faithful explanations of text classifiers are, with ROAR and Recursive ROAR."""

__version__ = "0.1.0"
