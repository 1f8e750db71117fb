"""One run: its configuration, where its files are, what it computes and what it records."""
