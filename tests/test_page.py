"""The page of a report in a real browser."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nlproar import storage
from nlproar.dataset import encoding, load_task
from nlproar.experiment.layout import Layout
from nlproar.experiment.run import run
from nlproar.report import cli, frame
from nlproar.roar import masking

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
    from nlproar.experiment.config import resolve

    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(babi_simulation, "QUESTIONS", {"train": 300, "test": 60})
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


def test_the_page_renders_and_asks_nobody_for_anything(page):
    assert page.execute_script("return document.querySelectorAll('figure svg').length") > 2
    assert page.execute_script("return document.querySelector('h1').getBoundingClientRect().height") > 0
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith("data:")} == {page.current_url}


@pytest.mark.parametrize("measure", ["random", "gradient"])
def test_struck_out_is_what_the_record_masked(page, study, measure):
    folder, configs = study
    (config,) = [config for config in configs if config.importance_measure == measure]
    layout = Layout(folder)
    data = encoding.load(load_task("babi-1"), "simulated", layout.raw, layout.cache)
    split = data.splits["test"]
    arrays, _ = storage.stored(layout.masks(config), ["test"])
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

    (open_to_all,) = frame.load([Layout(study[0])])
    closed = replace(
        open_to_all, facts={**open_to_all.facts, "task": {**open_to_all.facts["task"], "confidential": True}}
    )
    texts = []
    for one in (open_to_all, closed):
        results = collect([one], "cpu", with_convergence=False)
        texts.append(page.render(results, panels.everything(results)))
    word = '"hallway"'  # of every story, and no word of the page
    assert word in texts[0]
    assert word not in texts[1] and "hallway" not in texts[1].split('id="tokens"')[1].split("</section>")[0]
    assert "The texts of this task are confidential." in texts[1]


def test_a_phone_need_not_scroll_sideways(page):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
