import re
from dataclasses import replace

import numpy as np
import pytest

from ajour.pipelines.measures import MEASURES
from ajour.search.bounds import Bounds
from ajour.search.report.figures import frontier_figure
from ajour.search.report.page import write_report


@pytest.fixture
def page(plain, tmp_path):
    outcome, _ = plain
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (9, 128, 112, 3), dtype=np.uint8)
    path = tmp_path / "plan.html"
    write_report(outcome, lambda key, index: video, path, "ajour search tiny --out <plan>")
    return path.read_text()


def test_the_page_needs_nothing_else(page):
    links = re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", page)
    assert links
    assert all(link.startswith("data:image/") for link in links)
    assert "<script" not in page
    assert "@import" not in page


def test_it_shows_the_outcome_and_escapes_text(plain, page):
    outcome, _ = plain
    assert f"{outcome.chosen.psnr_db:.2f} dB" in page
    assert page.count("<svg") == 3
    for name in outcome.plan.patterns:
        assert f"<b>{name}</b>" in page
    for baseline in outcome.baselines:
        assert f"<td>{baseline.name}</td>" in page
    assert page.count("data:image/jpeg") == 2 * len(outcome.settings.verification)
    assert "ajour search tiny --out &lt;plan&gt;" in page
    assert "&lt;svg" not in page


def test_it_shows_and_explains_all_measures(plain, page):
    quality = plain[0].chosen.quality
    for key, measure in MEASURES.items():
        assert f"<td>{measure.show(getattr(quality, key))}</td>" in page
        assert f'title="{measure.meaning}">{measure.title}</th>' in page
        assert f"<dd>{measure.meaning}" in page


def test_a_dense_plan_is_drawn_with_a_frontier_where_another_plan_places_it(plain):
    """A dense plan has no error, so the frontier is placed by another plan that was verified."""
    outcome, _ = plain
    quality = replace(outcome.chosen.quality, psnr_db=99.0, psnr_db_each=(99.0,))
    dense = replace(outcome.chosen, key="dense", quality=quality, decibels=120.0)
    drawn = frontier_figure(replace(outcome, chosen=dense, verified=(outcome.chosen, dense)))
    assert "predicted frontier" in drawn
    assert "nan" not in drawn
    alone = frontier_figure(replace(outcome, chosen=dense, verified=(dense,), baselines=()))
    assert "predicted frontier" not in alone


def test_it_says_which_bounds_are_held(plain, tmp_path):
    outcome, _ = plain
    quality = replace(outcome.chosen.quality, banding=0.4, warp=1.5, dense_warp=1.0)
    target = replace(outcome.settings.target, bounds=Bounds(banding=0.5, flicker=1.1))
    bound = replace(
        outcome,
        met=False,
        settings=replace(outcome.settings, target=target),
        chosen=replace(outcome.chosen, quality=quality),
    )
    assert bound.conclusion == "missed: flicker 1.50x"
    write_report(bound, lambda *_: None, tmp_path / "plan.html", "")
    page = (tmp_path / "plan.html").read_text()
    assert '<div class="card good"><b>0.40 levels</b><span>banding, at most 0.5: met' in page
    assert '<div class="card bad"><b>1.50x</b><span>flicker, at most 1.1: missed' in page


def test_heat_maps_have_a_cell_per_head(plain, page):
    model = plain[0].plan.model
    cells = re.findall(r'title="layer \d+: ', page)
    assert len(cells) == model["layers"] * model["heads"] * len(plain[0].plan.assignments)
