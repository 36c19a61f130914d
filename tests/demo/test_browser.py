"""The page in a real browser, on a tiny random pipeline: what a user does, start to end."""

import collections
import json
import re
from urllib.parse import urlparse

import pytest

from ajour.demo.device import DONE
from ajour.demo.server import MOST_BYTES
from ajour.pipelines.bundled import bundled_plan
from tests.pipelines.conftest import LATE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect, TimeoutError = playwright.expect, playwright.TimeoutError
pytestmark = [
    pytest.mark.xdist_group("demo-server"),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

LONG = 120_000
"""Milliseconds that a run may take."""


@pytest.fixture
def open_page(chromium, server):
    """Opens the page as another user; what went wrong in it fails the test."""
    contexts, wrong, sites = [], [], []

    def build(width=1440, at=server, **options):
        url, site = at
        sites.append(site)
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, accept_downloads=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: check(r.url, url))
        page.goto(url)
        page.get_by_role("button", name="Generate", exact=True).wait_for()
        return page

    def check(address, url):
        place = urlparse(address)
        if place.scheme not in ("data", "blob") and place.netloc != urlparse(url).netloc:
            wrong.append(address)

    yield build
    for context in contexts:
        context.close()
    assert wrong == []
    for site in sites:
        for job in site.device.jobs:  # closing a page stops its runs
            collections.deque(job.watch(), maxlen=0)
            assert job.state != DONE


def generate(page, steps=4):
    page.get_by_label("Steps").first.fill(str(steps))
    page.get_by_label("Steps").first.press("Tab")
    page.locator("#generate").click()


def wait_for(page, place, text, timeout=LONG):
    match = page.locator(place).get_by_text(re.compile(text)).filter(visible=True)
    try:
        match.first.wait_for(timeout=timeout)
    except TimeoutError:
        pytest.fail(f"{place} says {page.locator(place).inner_text()!r}, not {text!r}")


def finished(page, title="Your run"):
    """Wait until the first run of a page is shown."""
    wait_for(page, "#status", "Finished")
    page.locator("#cards .aj-verdict").wait_for()
    expect(page.locator("#comparison").get_by_text(title)).to_be_visible()


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_bundled_model_comes_with_an_example_and_makes_a_run(open_page, bundled):
    page = open_page(at=bundled)  # while the model loads
    compare = page.locator("ajour-compare")
    expect(page.locator("#comparison").get_by_text("Stored example")).to_be_visible()
    expect(page.locator("#cards").get_by_text("Example", exact=True)).to_be_visible()
    expect(page.locator("#cards .aj-verdict")).to_have_text(re.compile(r"^\d\.\dx faster, looks"))
    report = bundled[1].example.report
    expect(page.locator("#prompt textarea")).to_have_value(report["prompt"])
    expect(page.get_by_label("Steps").first).to_have_value(str(report["steps"]))
    expect(page.get_by_label("Medium").first).to_be_checked()
    page.wait_for_function("document.querySelector('ajour-compare').video.readyState >= 2")
    page.wait_for_function(
        """[...document.querySelector('ajour-compare canvas').getContext('2d')
          .getImageData(0, 0, 64, 64).data].some((value, i) => i % 4 < 3 && value > 0)"""
    )
    tab(page, "Plan")
    page.locator("ajour-heads tbody button").nth(1).click()
    wait_for(page, "#head", f"Layer 0, head 1 in {list(bundled_plan().assignments)[-1]}", 10_000)
    wait_for(page, "#head", "looks at, over latent frames", 10_000)
    page.get_by_label("error", exact=True).check()
    page.locator("ajour-heads .heat").first.wait_for()
    page.get_by_label("Phase").click()  # the map, the strip and the head follow the phase
    page.get_by_role("option", name="sparse-1").click()
    wait_for(page, "#head", "Layer 0, head 1 in sparse-1", 10_000)
    wait_for(page, "#schedule", "Underlined in yellow: sparse-1", 10_000)
    expect(page.locator("ajour-heads button[aria-current]")).to_have_count(1)
    tab(page, "Generate")
    wait_for(page, "#model-state", "Ready: bundled mini model")
    page.get_by_label("Small").first.check()
    page.get_by_label("Prompt").fill("A blue circle at the top moves down on a black background.")
    generate(page)
    page.locator("#status progress").wait_for(timeout=LONG)
    expect(page.locator("#comparison")).to_have_css("opacity", "0.4")  # the example, meanwhile
    finished(page)
    expect(page.locator("#comparison")).to_have_css("opacity", "1")
    expect(page.locator("#cards").get_by_text("Example", exact=True)).to_have_count(0)
    expect(page.locator("#comparison").get_by_text("A blue circle")).to_be_visible()
    page.wait_for_function("document.querySelector('ajour-compare').video.videoHeight === 3 * 128")
    expect(compare.get_by_label("Frame")).to_have_attribute("max", "17")


def test_from_a_prompt_to_the_comparison(open_page):
    page = open_page()
    page.get_by_label("Prompt").fill("a blue star")
    generate(page)
    page.locator("#status progress").wait_for(timeout=LONG)
    finished(page)
    compare = page.locator("ajour-compare")
    expect(page.locator("#comparison").get_by_text("a blue star").first).to_be_attached()
    expect(page.locator("#cards dd")).to_have_count(4)
    expect(page.locator("#cards .aj-stacked li").first).to_be_visible()
    page.wait_for_function("document.querySelector('ajour-compare').video.readyState >= 2")
    assert page.evaluate("document.querySelector('ajour-compare').video.videoHeight") == 3 * 128
    # Every view by keyboard and by its name.
    for name, view in (("Wipe", "wipe"), ("Difference", "difference"), ("Side by side", "side")):
        compare.get_by_role("button", name=name).press("Enter")
        expect(compare).to_have_attribute("data-view", view)
        pressed = compare.locator("button[aria-pressed=true]")
        assert pressed.inner_text() == name
    frame = compare.get_by_label("Frame")
    frame.focus()
    frame.press("Home")
    for _ in range(3):
        frame.press("ArrowRight")
    page.wait_for_function(
        "document.querySelector('ajour-compare .readout').textContent.startsWith('Frame 4 of 9')"
    )
    assert "PSNR" in frame.get_attribute("aria-valuetext")
    pixels = page.evaluate(
        """() => [...document.querySelectorAll('ajour-compare canvas')].map((canvas) =>
          canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
            .reduce((sum, value) => sum + value, 0))"""
    )
    assert min(pixels[:2]) > 0
    with page.expect_download() as download:
        page.get_by_role("link", name="report.json").click()
    report = json.loads(download.value.path().read_text())
    assert report["prompt"] == "a blue star"


def test_a_wipe_shows_dense_left_and_sparse_right(open_page):
    page = open_page()
    generate(page)
    finished(page)
    page.wait_for_function("document.querySelector('ajour-compare').video.readyState >= 2")
    compare = page.locator("ajour-compare")
    compare.get_by_role("button", name="Pause").click()
    compare.get_by_role("button", name="Wipe").click()
    wipe = compare.get_by_label("Wipe position")
    script = """(side) => {
      const compare = document.querySelector('ajour-compare');
      const read = (index) => [...compare.querySelectorAll('canvas')[index].getContext('2d')
        .getImageData(side ? 60 : 5, 20, 40, 60).data];
      const [shown, dense, sparse] = [0, 0, 1].map(read);
      const truth = side ? sparse : shown;
      return shown.every((value, i) => value === truth[i]);
    }"""
    wipe.press("Home")  # all sparse
    assert page.evaluate(script, True)
    wipe.press("End")
    assert wipe.get_attribute("aria-valuetext") == "dense up to 100 percent of the width"


@pytest.mark.slow
def test_every_run_of_a_page_shows_its_own_videos(open_page):
    page = open_page()
    source = "document.querySelector('ajour-compare').video.getAttribute('src')"
    seen = set()
    for prompt in ("a red circle", "a blue star", "a green ring"):
        page.get_by_label("Prompt").fill(prompt)
        generate(page, steps=2)
        expect(page.locator("#comparison .aj-prompt")).to_have_text(prompt, timeout=LONG)
        page.wait_for_function(f"!{json.dumps(sorted(seen))}.includes({source})")
        page.wait_for_function("document.querySelector('ajour-compare').video.readyState >= 2")
        page.locator("ajour-compare").get_by_role("button", name="Difference").click()
        expect(page.locator("ajour-compare .readout")).to_contain_text("of 9")
        seen.add(page.evaluate(source))
    assert len(seen) == 3


def test_a_stop_in_the_middle_and_on_again(open_page):
    page = open_page()
    generate(page, steps=100)
    wait_for(page, "#status", r"step \d+ of 100")
    tab(page, "Plan")  # a run does not block the page it belongs to
    page.locator("ajour-heads tbody button").nth(1).click()
    wait_for(page, "#head", "Layer 0, head 1", 10_000)
    tab(page, "Generate")
    expect(page.locator("#status")).to_contain_text("step")
    page.locator("#stop-generate").click()
    wait_for(page, "#status", "Stopped", 10_000)
    generate(page)
    wait_for(page, "#status", "Finished")


def test_two_users_at_once(open_page):
    first, second = open_page(), open_page()
    generate(first, steps=100)
    wait_for(first, "#status", r"step \d+ of 100")
    generate(second)
    wait_for(second, "#status", "1 run is ahead of yours")
    tab(second, "Plan")  # waiting does not block the page
    second.locator("ajour-heads tbody button").nth(1).click()
    wait_for(second, "#head", "Layer 0, head 1", 10_000)
    tab(second, "Generate")
    second.locator("#stop-generate").click()
    wait_for(second, "#status", "Stopped", 10_000)
    expect(first.locator("#status")).to_contain_text("step")  # mine goes on
    generate(second)
    wait_for(first, "#status", "Finished")
    wait_for(second, "#status", "Finished")


def test_a_failed_run_says_why_and_the_page_goes_on(open_page):
    page = open_page()
    page.get_by_text("Exact size and guidance").click()
    height = page.get_by_label("Height")
    height.wait_for()
    page.wait_for_timeout(500)  # Gradio makes these fields only now and may set them once more
    height.fill("100")
    height.press("Tab")
    expect(height).to_have_value("100")
    generate(page)
    wait_for(page, "#status", "This run failed: .*divisible by 16")
    expect(page.locator("#status [role=alert]")).to_have_count(1)
    page.get_by_label("Tiny").first.check()
    page.get_by_label("Smaller").first.check()
    generate(page)
    wait_for(page, "#status", "Finished")


def test_plans_are_uploaded_good_and_bad(open_page, tmp_path):
    page = open_page()
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    LATE.save(good)
    bad.write_text(
        json.dumps(
            LATE.to_dict() | {"schedule": [{"from_noise_level": 0.5, "assignment": "sparse"}]}
        )
    )
    tab(page, "Plan")
    chooser = page.locator("#upload-plan input[type=file], input[type=file]").last
    page.locator("ajour-heads tbody button").nth(1).click()
    wait_for(page, "#head", "Layer 0, head 1", 10_000)
    page.get_by_label("density", exact=True).check()
    page.locator("ajour-heads .heat").first.wait_for()
    chooser.set_input_files(str(bad))
    wait_for(page, "#plan-note", "bad.json.*the first phase must start at noise level 1.0", 10_000)
    page.wait_for_timeout(500)  # whatever else would change comes after the note
    expect(page.locator("#head")).to_contain_text("Layer 0, head 1")
    expect(page.locator("ajour-heads .heat")).to_have_count(4)
    wait_for(page, "#tabs", "The plan that comes with the model. For", 10_000)
    chooser.set_input_files(str(good))
    wait_for(page, "#plan-note", "good.json is a valid plan", 10_000)
    wait_for(page, "#tabs", "Uploaded: good.json", 10_000)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download plan.json").click()
    assert json.loads(download.value.path().read_text()) == LATE.to_dict()
    tab(page, "Generate")
    expect(page.get_by_label("From the Plan tab")).to_be_checked()
    generate(page)
    wait_for(page, "#status", "Finished")


def test_a_large_file_is_not_sent(open_page, tmp_path):
    page = open_page()
    large, sizes = tmp_path / "large.json", []
    large.write_bytes(b" " * (MOST_BYTES + 1))
    page.on("request", lambda request: sizes.append(len(request.post_data_buffer or b"")))
    tab(page, "Plan")
    page.locator("#upload-plan input[type=file]").set_input_files(str(large))
    wait_for(page, "#plan-note", "an uploaded plan has at most 1 MiB", 10_000)
    assert max(sizes) < 2**12


def test_heads_by_click_and_by_keyboard(open_page):
    page = open_page()
    tab(page, "Plan")
    heads = page.locator("ajour-heads tbody button")
    heads.nth(0).click()
    wait_for(page, "#head", "Layer 0, head 0", 10_000)
    expect(page.locator("#head img")).to_have_count(2)
    heads.nth(0).press("ArrowDown")
    expect(heads.nth(2)).to_be_focused()
    expect(heads.nth(2)).to_have_accessible_name("layer 1, head 0: p0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # the end: stays
    page.keyboard.press("Enter")
    wait_for(page, "#head", "Layer 1, head 1", 10_000)
    expect(heads.nth(3)).to_have_attribute("aria-current", "true")
    page.locator("#measure").click()
    wait_for(page, "#plan-note", "Measured")
    page.locator("ajour-heads .heat").first.wait_for()  # coloured by error now
    wait_for(page, "#head", "of the layer's output", 10_000)
    expect(page.locator("#snippet")).to_contain_text("ajour.enable(pipe")


def test_a_search_ends_in_a_plan_that_is_used_at_once(open_page):
    page = open_page()
    tab(page, "Search")
    expect(page.locator("#use-plan")).to_be_hidden()
    page.get_by_label("Speed-up").last.check()
    expect(page.locator("#target input")).to_have_value("1.5")  # a kind's usual value comes first
    page.get_by_label("Density").last.check()
    expect(page.locator("#target input")).to_have_value("0.4")
    page.locator("#target input").fill("0.7")
    page.get_by_label("Steps").last.fill("4")
    page.get_by_label("Steps").last.press("Tab")
    page.locator("#search").click()
    page.locator("#frontier svg").wait_for(timeout=LONG)
    wait_for(page, "#search-status", "The target of mean density 0.7 is met")
    page.locator("#look-plan").click()
    wait_for(page, "#tabs", "Result of a search", 10_000)
    page.locator("ajour-heads tbody button").first.click()
    wait_for(page, "#head", "of the layer's output", 10_000)  # errors come with it
    tab(page, "Search")
    page.locator("#use-plan").click()
    expect(page.get_by_label("From the Plan tab")).to_be_checked()
    expect(page.get_by_label("Steps").first).to_have_value("4")
    generate(page)
    wait_for(page, "#status", "Finished")


def test_the_benchmark_tab_is_short_and_has_all_rows_behind_a_link(open_page):
    page = open_page()
    tab(page, "Benchmark")
    drawn = page.locator("#results > * > section, #results section").filter(visible=True)
    assert drawn.count() == 3
    for section in drawn.all():
        assert section.locator("svg, .aj-bars i").filter(visible=True).count() > 0
    assert page.evaluate("document.documentElement.scrollHeight") < 2000
    page.locator(".aj-all > summary").click()
    files = page.locator(".aj-all section")
    assert files.count() > 5
    for section in files.all():
        section.locator("summary").click()
        expect(section.locator("details td").first).to_be_visible()
    assert fits(page)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_every_tab_fits_the_width(open_page, width, scheme):
    page = open_page(width, color_scheme=scheme)
    assert fits(page)
    for name in ("Plan", "Search", "Benchmark"):
        tab(page, name)
        assert fits(page), name
    tab(page, "Generate")
    generate(page, steps=2)
    finished(page)
    if width == 390:  # the result comes before the long part of the form
        down = "e => e.getBoundingClientRect().top + scrollY"
        verdict = page.locator("#cards .aj-verdict")
        assert verdict.bounding_box()["width"] > 300  # one column
        result = verdict.evaluate(down)
        assert result < min(900, page.get_by_label("Tiny").first.evaluate(down))
    for name in ("Side by side", "Wipe", "Difference"):
        page.locator("ajour-compare").get_by_role("button", name=name).click()
        assert fits(page), name


NAMELESS = """[...document.querySelectorAll('button, input, textarea, select')]
  .filter((e) => e.offsetParent && !e.closest('[aria-hidden=true]') && e.type !== 'file')
  .filter((e) => !(e.ariaLabel || e.innerText || e.title || e.labels?.length
    || e.getAttribute('aria-labelledby')))
  .map((e) => e.outerHTML.slice(0, 120))"""
"""The controls of the page that have no name."""


def test_controls_have_names_and_states_are_read_out(open_page):
    page = open_page()
    assert page.evaluate(NAMELESS) == []
    generate(page)
    finished(page)
    page.wait_for_function(
        "/looks|equal|differences/.test(document.querySelector('.aj-unseen').textContent)"
    )


def test_another_prompt_is_one_click_away(open_page):
    page = open_page()
    other = page.locator("button.aj-other").first
    other.click()
    expect(page.locator("#prompt textarea")).to_have_value(other.inner_text())


def test_motion_waits_for_those_who_asked_for_calm(open_page):
    page = open_page(reduced_motion="reduce")
    generate(page)
    finished(page)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('ajour-compare').video.paused")
