"""The scripts on real data: they must learn what the data hold."""

import json
import os

import pytest


@pytest.mark.slow
def test_real_sst_learns_and_falls_to_one_class_when_all_is_masked(script, real_data, tmp_path):
    os.symlink(real_data, tmp_path / "raw")
    vectors = ("--vectors", real_data / "vectors" / "glove.6B.50d.subset.zip", "--max-epochs", 2)
    flags = (*vectors, "--persistent-dir", tmp_path)
    script("stanford_sentiment", *flags)
    script("stanford_sentiment", *flags, "--roar-strategy", "quantile", "--k", 100)
    for measure in ("integrated-gradient", "random"):  # on the test data only
        script("stanford_sentiment", *flags, "--metric", "erasure", "--importance-measure", measure)
    found = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*/*.json")]
    scores = {one["config"].get("k"): one["metrics"]["test"]["macro_f1"] for one in found}
    assert scores[0] > 0.75 and 0.30 < scores[100] < 0.36
    erased = {one["config"]["importance_measure"]: one for one in found if "erasure_class" in one["config"]}
    assert max(erased["integrated-gradient"]["diagnostics"]["completeness_error"].values()) < 0.01
    removed = {name: one["metrics"]["test"]["comprehensiveness"] for name, one in erased.items()}
    assert removed["integrated-gradient"] > 2 * removed["random"]


@pytest.mark.slow
def test_real_babi_1_is_learned(script, real_data, tmp_path):
    os.symlink(real_data, tmp_path / "raw")
    done = script("babi", "--task", 1, "--max-epochs", 12, "--persistent-dir", tmp_path)
    assert float(done.stdout.split("test: accuracy ")[1].split(",")[0]) >= 0.99
