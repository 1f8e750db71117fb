"""The scripts on real data: they must learn what the data hold."""

import json
import os

import pytest


@pytest.mark.slow
def test_real_sst_learns_and_falls_to_one_class_when_all_is_masked(script, real_data, tmp_path):
    os.symlink(real_data, tmp_path / "raw")
    vectors = ("--vectors", real_data / "vectors" / "glove.6B.50d.subset.zip", "--max-epochs", 3)
    flags = (*vectors, "--persistent-dir", tmp_path)
    script("stanford_sentiment", *flags)
    script("stanford_sentiment", *flags, "--roar-strategy", "quantile", "--k", 100, "--max-epochs", 1)
    measure = ("--importance-measure", "integrated-gradient", "--riemann-samples", 8)
    script("stanford_sentiment", *flags, *measure, "--roar-strategy", "quantile", "--k", 10)
    found = {json.loads(p.read_text())["config"]["k"]: p for p in (tmp_path / "results" / "roar").glob("*.json")}
    content = {k: json.loads(path.read_text()) for k, path in found.items()}
    scores = {k: c["metrics"]["test"]["macro_f1"] for k, c in content.items()}
    assert scores[0] > 0.79 and scores[10] < scores[0] and 0.30 < scores[100] < 0.36
    assert max(content[10]["diagnostics"]["completeness_error"].values()) < 0.01


@pytest.mark.slow
def test_real_babi_1_is_learned(script, real_data, tmp_path):
    os.symlink(real_data, tmp_path / "raw")
    done = script("babi", "--task", 1, "--max-epochs", 12, "--persistent-dir", tmp_path)
    assert float(done.stdout.split("test: accuracy ")[1].split(",")[0]) >= 0.99
