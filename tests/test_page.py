"""The page of a report in a real browser."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nlproar import masking, storage
from nlproar.dataset import encoding
from nlproar.report import cli, frame
from nlproar.report.strips import strips as strips_of
from nlproar.run.layout import Layout
from nlproar.run.run import run
from tests.conftest import FEW_QUESTIONS

WORDS = "[data-series='{}'] .words"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window; its network and its console are written down."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        if os.environ.get("CI"):
            pytest.fail("CI has no chromium or no chromedriver")
        pytest.skip("no chromium or no chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                 f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Real runs of two measures, recursively; their configurations and the folder, its report written."""
    from nlproar.dataset import babi_simulation
    from nlproar.run.config import resolve

    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(babi_simulation, "QUESTIONS", FEW_QUESTIONS)
        flags = {"persistent_dir": str(folder), "max_epochs": 1, "device": "cpu", "roar_strategy": "quantile"}
        step = {"recursive": True, "recursive_step_size": 50}
        configs = [resolve("babi-1", "simulated", k=k, **flags) for k in (0, 100)]
        configs += [resolve("babi-1", "simulated", k=50, importance_measure="random", **flags)]
        configs += [resolve("babi-1", "simulated", k=50, importance_measure="gradient", **step, **flags)]
        for config in configs:
            run(config)
    cli.main("", ["--persistent-dir", str(folder), "--no-convergence"])
    return folder, configs


@pytest.fixture
def page(browser, study):
    """The browser, with the page opened from its file."""
    browser.get_log("performance"), browser.get_log("browser")
    browser.get((study[0] / "report.html").as_uri())
    return browser


def to_level(page, index):
    page.execute_script(
        "const i = document.querySelector('.controls input'); i.value = arguments[0];"
        "i.dispatchEvent(new Event('input'));", index,
    )  # fmt: skip


def strips(page, series):
    """Per observation the tokens of a strip, and which are struck out."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].map(w => [...w.querySelectorAll('.token')]"
        ".map(t => [t.textContent, t.tagName === 'DEL']))"
    )
    return page.execute_script(script, WORDS.format(series))


@pytest.mark.slow
def test_the_page_renders_and_asks_nobody_for_anything(page):
    assert page.execute_script("return document.querySelectorAll('figure svg').length") > 2
    assert page.execute_script("return document.querySelector('h1').getBoundingClientRect().height") > 0
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith("data:")} == {page.current_url}


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["random", "gradient"])
def test_struck_out_is_what_the_record_masked(page, study, measure):
    folder, configs = study
    (config,) = [config for config in configs if config.importance_measure == measure]
    layout = Layout(folder)
    digest = json.loads(layout.record(config).read_text())["data"]["digest"]
    data = encoding.find("babi-1", "simulated", digest, layout.cache)
    split = data.splits["test"]
    arrays, _ = storage.stored(layout.masks(config.id), ["test"])
    mask = masking.unpack(arrays["test"], len(split.tokens))
    to_level(page, 1)
    numbers = page.execute_script(
        "return JSON.parse(document.querySelector('[data-strips] script').textContent).observations.map(o => o.number)"
    )
    shown = strips(page, measure)
    assert len(shown) == len(numbers) > 1
    for row, words in zip(numbers, shown, strict=True):
        place = slice(*split.offsets[row : row + 2])
        maskable = split.maskable[place]
        assert [word for word, _ in words] == data.vocabulary.decode(split.tokens[place])
        assert [out for _, out in words] == mask[place][maskable].tolist()
        assert sum(out for _, out in words) == 50 * int(np.count_nonzero(maskable)) // 100


@pytest.mark.slow
def test_the_level_control_changes_what_is_struck_out(page):
    to_level(page, 0)
    assert not any(out for words in strips(page, "gradient") for _, out in words)
    assert page.execute_script("return document.querySelector('.controls output').textContent") == "0 %"
    to_level(page, 1)
    assert any(out for words in strips(page, "gradient") for _, out in words)
    assert page.execute_script("return document.querySelector('.controls output').textContent") == "50 %"


def test_no_confidential_text_is_on_the_page(study):
    from nlproar.report import page, panels
    from nlproar.report.results import collect

    (open_to_all,) = frame.load([Layout(study[0])]).studies
    closed = replace(open_to_all, task={**open_to_all.task, "confidential": True})
    texts = []
    for one in (open_to_all, closed):
        results = collect(frame.Found([one], {}), "cpu", None)
        texts.append(page.render(results, panels.everything(results)))
    word = '"hallway"'  # of every story, and no word of the page
    assert word in texts[0]
    assert word not in texts[1] and "hallway" not in texts[1].split('id="tokens"')[1].split("</section>")[0]
    assert "The texts of this task are confidential." in texts[1]


@pytest.mark.slow
def test_a_phone_need_not_scroll_sideways(page):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def other_kinds(layout, config):
    """What can lie in the place of a cache file: content by name."""
    encoded, masks = next((layout.cache / "encoded").glob("*.npz")), layout.masks(config.id)
    importance = next((layout.cache / "importance").glob(f"{config.importance_measure}-*-test.npz"))
    kinds = {path.parent.name: path.read_bytes() for path in (encoded, masks, importance)}
    return {**kinds, "empty": b"", "text": b"no archive", "cut": masks.read_bytes()[:-30]}


def with_key(path, change):
    """Write the arrays of a cache file again, after `change` of arrays and key."""
    arrays, key = storage.stored(path)
    arrays, key = change(arrays, key)
    path.write_bytes(b"")
    storage.write_arrays(path, key, arrays)


def in_every(change):
    """Change every array of a cache file, and keep its key."""
    return lambda arrays, key: ({name: change(values) for name, values in arrays.items()}, key)


SPOILED = {
    "other types": in_every(lambda values: values.astype(np.float64) * np.nan),
    "text": in_every(lambda values: np.array(["a"] * max(values.size, 1))),
    "two dimensions": in_every(lambda values: np.stack([values, values])),
    "shorter": in_every(lambda values: values.ravel()[: values.size // 2]),
    "nothing": in_every(lambda values: np.empty(0)),
    "no arrays": lambda arrays, key: ({}, key),
    "another key": lambda arrays, key: (arrays, {"importance": [1], "task": 3}),
    "no key": lambda arrays, key: (arrays, {}),
}


@pytest.fixture
def copied(study, tmp_path):
    """A copy of the study, the run of `gradient`, and the cache file that each name stands for."""
    folder = tmp_path / "study"
    shutil.copytree(study[0], folder)
    layout = Layout(folder)
    (config,) = [config for config in study[1] if config.importance_measure == "gradient"]
    files = {
        "encoded": next((layout.cache / "encoded").glob("*.npz")),
        "masks": layout.masks(config.id),
        "importance": next((layout.cache / "importance").glob("gradient-*-test.npz")),
    }
    return layout, config, files


def shown_of(layout):
    """The strips of the only study in a directory, after its whole page was made."""
    from nlproar.report import page
    from nlproar.report.results import collect

    results = collect(frame.load([layout]), "cpu", None)
    page.render(results, [])
    return strips_of(results.caches[0])


def gone(shown):
    """Whether the masked level of `gradient` is not shown, and a reason is given."""
    if "gone" in shown:
        return "cache of encoded data" in shown["gone"]
    (series,) = [one for one in shown["groups"][0]["series"] if one["measure"] == "gradient"]
    return bool(series["levels"]["50"].get("gone"))


def test_whole_caches_are_shown(copied):
    assert not gone(shown_of(copied[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoded", "masks", "importance"])
def test_a_cache_file_of_another_kind_is_not_shown_and_the_page_says_so(copied, name):
    layout, config, files = copied
    whole = files[name].read_bytes()
    for kind, content in other_kinds(layout, config).items():
        if kind != name:
            files[name].write_bytes(content)
            assert gone(shown_of(layout)), kind
    for kind, change in SPOILED.items():
        if name in ("encoded", "masks") and "key" in kind:
            continue  # these are known by their content
        files[name].write_bytes(whole)
        with_key(files[name], change)
        assert gone(shown_of(layout)), kind
    files[name].unlink()
    assert gone(shown_of(layout))
    files[name].symlink_to("nowhere")
    assert gone(shown_of(layout))
    files[name].unlink()
    files[name].mkdir()
    assert gone(shown_of(layout))


def test_companions_of_macos_beside_caches_are_not_read(copied, caplog):
    layout, _, files = copied
    for path in files.values():
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    assert not gone(shown_of(layout)) and not caplog.records


def test_convergence_is_kept_where_the_report_is_written(copied, tmp_path, monkeypatch):
    from nlproar.explain import path_error
    from nlproar.report.caches import Caches, Gone
    from nlproar.report.convergence import SHAPES, convergence

    calls = []

    def measure(*args):
        calls.append(args)
        return {name: np.full(shape, 0.5) for name, shape in SHAPES.items()}

    monkeypatch.setattr(path_error, "measure_errors", measure)
    layout, (caches,) = copied[0], [Caches(study) for study in frame.load([copied[0]]).studies]
    before = sorted(layout.root.rglob("*"))
    output = Layout(tmp_path / "out")
    for _ in range(2):
        assert (convergence(caches, "cpu", output)["error"] == 0.5).all()
    assert len(calls) == 1 and sorted(layout.root.rglob("*")) == before
    (path,) = (output.cache / "convergence").glob("*.npz")
    with_key(path, in_every(lambda values: values.ravel()))
    with pytest.raises(Gone, match=f"{path.name} holds something else"):
        convergence(caches, "cpu", output)


@pytest.mark.parametrize("odd", [0, -1, 10**12, 1.5, "x", None])
def test_an_odd_checkpoint_is_a_note_of_the_report(copied, tmp_path, odd):
    from nlproar.report.caches import Caches, Gone
    from nlproar.report.convergence import convergence

    (study,) = frame.load([copied[0]]).studies
    path = copied[0].root / "checkpoints" / study.at(0)[0].id / "checkpoint.json"
    whole = json.loads(path.read_text())
    for name in ("vocabulary_size", "embedding_size", "hidden_size", "num_classes"):
        content = {**whole, "shape": {**whole["shape"], name: odd}}
        content.pop("checksum", None)
        path.write_text(json.dumps({**content, "checksum": storage.digest(content)}))
        with pytest.raises(Gone, match="unmasked model cannot be read"):
            convergence(Caches(study), "cpu", Layout(tmp_path / "out"))


def test_a_checkpoint_that_is_a_link_to_nowhere_is_unreadable_and_named_not_deleted(copied, tmp_path):
    from nlproar.report.caches import Caches, Gone
    from nlproar.report.convergence import convergence

    (study,) = frame.load([copied[0]]).studies
    path = copied[0].root / "checkpoints" / study.at(0)[0].id / "checkpoint.json"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(Gone, match=r"checkpoint\.json cannot be read"):
        convergence(Caches(study), "cpu", Layout(tmp_path / "out"))
