"""Remove and retrain: which tokens to mask, given importance from anywhere."""
