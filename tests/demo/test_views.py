"""The page's HTML: well formed, escaped, and complete for people who cannot see it."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ajour import Captured, Diagonal, Full, Phase, Plan, Pyramid, Schedule, Skip, TokenGrid
from ajour.demo import heads
from ajour.demo.attended import GAP, MARK, SIDE, frames_of, over_frames, small, standing_out
from ajour.demo.attention_time import StepTime
from ajour.demo.charts import Series, chart, table, ticks
from ajour.demo.device import Job
from ajour.demo.heads import ShownPlan
from ajour.demo.model import Model
from ajour.demo.render import note, render
from ajour.demo.results_page import section
from ajour.demo.run import RunProgress
from ajour.demo.search_views import frontier, search_progress
from ajour.demo.searching import TRYING, Point, SearchProgress
from ajour.demo.server import download, snippet
from ajour.demo.store import Result
from ajour.demo.tab_generate import about_shown
from ajour.demo.verdict import looks, verdict
from ajour.demo.views import comparison, run_bars, run_cards, run_progress, step_bars, why
from ajour.pipelines.drawing import in_words, pattern_view, spans
from tests.pipelines.conftest import LATE, make_plan

VOID = {"img", "input"}
REPORT = {
    "prompt": "a <b>bold</b> 'fox'", "seed": 0, "steps": 4, "grid": "3x8x7", "density": 0.3,
    "mean_density": 0.5, "sparse_steps": 3, "reused_steps": 2,
    "dense_seconds": 2.0, "sparse_seconds": 1.6,
    "speedup": 1.25, "psnr_db": 31.2, "ssim": 0.95, "backend": "cpu", "device": "CPU",
    "fallbacks": ["a layer uses <Foo>"], "versions": {}, "fps": 16, "size": [2, 64, 64],
    "psnr_db_each": [30.0, 32.0], "ssim_each": [0.9, 0.99],
    "step_seconds": {
        "dense": [[0.4, 0.1], [0.4, 0.1]], "sparse": [[0.4, 0.1], [0.1, 0.1], [0.0, 0.0]],
    },
    "phases": ["dense", "sparse", "reuse"],
}  # fmt: skip


class Checker(HTMLParser):
    """Tags are closed in order; every image is described."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.data = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "img":
            assert values.get("alt")
        if tag == "button":
            assert values.get("aria-label")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data.append(data)


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


def hostile_plan():
    """A plan with names that `Plan` refuses: the page does not rely on that."""
    plan = make_plan([Pyramid(1, 1, 1), Skip()])
    fields = {
        "model": plan.model | {"transformer": HOSTILE},
        "patterns": {HOSTILE: plan.patterns["p0"]},
        "assignments": {HOSTILE: ((HOSTILE,) * 2,) * 2},
        "schedule": Schedule((Phase(1.0, HOSTILE),)),
    }
    for name, value in fields.items():
        object.__setattr__(plan, name, value)
    return plan


def hostile_pages(tmp_path):
    shown = ShownPlan.of(hostile_plan(), HOSTILE)
    stretches = spans(shown.plan.schedule)
    errors = {HOSTILE: np.ones((2, 2))}
    report = {
        **REPORT, "prompt": HOSTILE, "grid": HOSTILE, "device": HOSTILE, "fallbacks": [HOSTILE],
    }  # fmt: skip
    job = Job("me", lambda *_: None)
    job.state, job.error = "failed", HOSTILE
    rows = [{"case": HOSTILE, "arm": HOSTILE, "ms": 1.0, "speedup": 2.0, HOSTILE: HOSTILE}]
    points = [(0, 1), (1, 2)]
    return {
        "map": heads.map_page(shown, HOSTILE),
        "map by error": heads.map_page(replace(shown, errors=errors), HOSTILE, "error"),
        "schedule": render(
            "schedule", spans=stretches, text=in_words(stretches), marked=HOSTILE
        ),
        "about": render("about", shown=shown),
        "head": heads.head_page(
            replace(shown, errors=errors, measured=HOSTILE), HOSTILE, 0, 0
        ),
        "shown": about_shown(shown),
        "cards": run_cards(report),
        "comparison": comparison(Result(tmp_path, report, LATE, {}), HOSTILE),
        "state": render("state", job=job, ahead=0, stopped=""),
        "progress": run_progress(
            RunProgress(1, 4, HOSTILE, 1, 2, None, {HOSTILE: np.zeros((8, 8, 3), np.uint8)})
        ),
        "chart": chart(HOSTILE, HOSTILE, HOSTILE, [
            Series(HOSTILE, points, kind, [HOSTILE] * 2) for kind in ("line", "dots", "stars")
        ]),
        "table": table([HOSTILE], [[HOSTILE]], HOSTILE),
        "results": section(HOSTILE, {"rows": rows, "gpu": HOSTILE, "commit": HOSTILE}),
    }  # fmt: skip


def test_hostile_names_stay_text(tmp_path):
    for name, text in hostile_pages(tmp_path).items():
        page = Checker(text)
        assert not {"script", "onerror"} & {tag for tag, _ in page.tags}, name
        assert not any("onerror" in values for _, values in page.tags), name
        written = [*page.data, *(v for _, values in page.tags for v in values.values() if v)]
        assert any("<script>" in words for words in written), name  # it is shown, not lost


def test_a_map_has_a_named_button_for_every_head():
    page = Checker(heads.map_page(ShownPlan.of(LATE, "test"), "sparse"))
    buttons = [values for tag, values in page.tags if tag == "button"]
    assert len(buttons) == 4
    assert buttons[1]["aria-label"] == "layer 0, head 1: p1"
    assert [b["tabindex"] for b in buttons] == ["0", "-1", "-1", "-1"]
    assert {b["class"] for b in buttons} == {"k-diagonal", "k-stripe"}


def test_a_map_by_density_and_error():
    shown = ShownPlan.of(make_plan([Full(), Skip()]), "test", "3x8x7")
    text = heads.map_page(shown, "sparse", "density")
    Checker(text)
    assert "density 1" in text
    assert "density 0" in text
    text = heads.map_page(shown, "sparse", "error")
    Checker(text)
    assert "press Measure errors" in text
    text = heads.map_page(shown, "sparse", "kind", (1, 0))
    pressed = [values for tag, values in Checker(text).tags if tag == "button"]
    assert [b.get("aria-current") for b in pressed] == [None, None, "true", None]
    assert [b["tabindex"] for b in pressed] == ["-1", "-1", "0", "-1"]
    assert 'aria-label="layer 0, head 1: p1"' in text
    errors = {"sparse": np.array([[0.0, 0.5], [0.1, 0.2]])}
    text = heads.map_page(replace(shown, errors=errors), "sparse", "error")
    assert "layer 0, head 1: p1, error 0.5" in text


def test_a_map_that_is_too_big_is_not_drawn():
    rows = (("full",) * 4000,) * 4
    model = {"transformer": "X", "layers": 4, "heads": 4000, "head_dim": 8}
    plan = Plan(model, {"full": Full()}, {"a": rows}, Schedule((Phase(1.0, "a"),)))
    assert "too many to draw" in heads.map_page(ShownPlan.of(plan, "big"), "a")


@pytest.mark.parametrize("pattern", [Full(), Pyramid(1, 1, 1), Captured((0.2, 0.2, 0.2, 1.0))])
def test_a_head_in_detail(pattern):
    shown = ShownPlan.of(make_plan([pattern, Skip()]), "test", "5x8x12")
    text = heads.head_page(shown, "sparse", 1, 0)
    Checker(text)
    assert "Layer 1, head 0" in text
    assert "not measured yet" in text
    assert ("measured again" in text) == isinstance(pattern, Captured)
    errors = {"sparse": np.full((2, 2), 0.25)}
    maps = {("sparse", 1, 0): np.zeros((4, 4), np.int8)}
    text = heads.head_page(
        replace(shown, errors=errors, measured="at noise", maps=maps), "sparse", 1, 0
    )
    assert "0.25 of the layer" in text
    assert "at noise" in text
    assert "<img" in text


@pytest.mark.parametrize("place", [("sparse", 2, 0), ("sparse", 0, -1), ("other", 0, 0)])
def test_heads_that_are_not_there(place):
    with pytest.raises(ValueError, match="the plan has no layer"):
        heads.head_page(ShownPlan.of(LATE, "test"), *place)


def test_a_schedule_in_words_and_in_colour():
    plan = make_plan([Full(), Skip()], ((1.0, "dense"), (0.7, "sparse", 4)))
    text = heads.schedule_page(plan)
    Checker(text)
    assert "dense from 1 to 0.7; sparse from 0.7 to 0, dense every 4 steps" in text


@pytest.mark.parametrize(
    ("text", "grid"),
    [("5x8x12", TokenGrid(5, 8, 12)), ("13x16x16 + 64 exact", TokenGrid(13, 16, 16)),
     ("8x12", None), ("0x1x1", None), (None, None), ("axbxc", None), ("900x900x900", None)],
)  # fmt: skip
def test_grids_are_read_from_their_names(text, grid):
    assert heads.parse_grid(text) == grid


def test_plans_are_downloaded_whole_and_run_by_the_snippet(tmp_path):
    link = download(LATE)
    data = link.split("base64,")[1].split('"')[0]
    assert Plan.from_dict(json.loads(base64.b64decode(data))) == LATE
    for model in (Model(), Model("owner/name"), Model(str(tmp_path))):
        compile(snippet(model, None), "snippet", "exec")
    assert str(tmp_path.parent) not in snippet(Model(str(tmp_path)), None)


def test_the_snippet_loads_the_model_as_the_page_does():
    class Images:
        def __call__(self, prompt, height=8):
            raise NotImplementedError

    on_cpu = snippet(Model("owner/name", device="cpu"), None)
    assert 'DiffusionPipeline.from_pretrained("owner/name")\n' in on_cpu
    on_gpu = snippet(Model("owner/name", device="cuda"), Images())
    compile(on_gpu, "snippet", "exec")
    load = 'Images.from_pretrained("owner/name", dtype=torch.bfloat16).to("cuda")\n'
    assert "import torch\n" in on_gpu
    assert load in on_gpu
    assert ".images[0]" in on_gpu
    assert ".frames[0]" in snippet(Model(), None)


def test_figures_and_videos_are_complete(tmp_path):
    text = run_cards(REPORT)
    Checker(text)
    assert text.index("1.2x faster, looks the same") < text.index("31.2 dB")
    assert "Example" not in text
    assert "Example" in run_cards(REPORT, example=True)
    page = Checker(comparison(Result(tmp_path, REPORT, LATE, {}), "Your run"))
    facts = next(values for tag, values in page.tags if tag == "ajour-compare")["data-facts"]
    assert json.loads(facts)["psnr"] == REPORT["psnr_db_each"]
    assert [values["download"] for tag, values in page.tags if tag == "a"] == [
        "dense.mp4", "sparse.mp4", "report.json", "plan.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "ahead", "text"),
    [
        ("waiting", 0, "Starting."),
        ("waiting", 1, "1 run is ahead of yours"),
        ("waiting", 3, "3 runs are ahead of yours"),
        ("running", 0, "Running."),
        ("done", 0, "Finished."),
        ("stopped", 0, "Stopped. Nothing of this run was kept."),
        ("out of time", 0, "The time limit has passed. Nothing of this run was kept."),
        ("failed", 0, "This run failed: oh"),
    ],
)
def test_states_in_words(state, ahead, text):
    job = Job("me", lambda *_: None)
    job.state, job.error, job.timed_out = state, "oh", state == "out of time"
    if job.timed_out:
        job.state = "stopped"
    page = render("state", job=job, ahead=ahead, stopped="Nothing of this run was kept.")
    assert text in page
    assert ('role="alert"' in page) == (state in ("failed", "out of time"))
    assert "good" not in page


def test_progress_with_previews():
    strips = {"dense": np.zeros((8, 8, 3), np.uint8)}
    for done, words in ((0, "Warming up"), (3, "Dense: step 3 of 4, about 5 s left"), (8, "Decod")):
        text = run_progress(RunProgress(done, 8, "dense", done, 4, 5.0, strips))
        Checker(text)
        assert words in text
        assert "colours are learned" in text
    assert "Preview" not in run_progress(RunProgress(0, 8, "dense", 0, 4))


def test_charts_have_names_and_round_ticks():
    text = chart("A title", "x", "y", [
        Series("line", [(0, 1), (1, 2)], "line"), Series("none", []),
        Series("dots", [(0.5, 1.5)], "dots", ["here"]), Series("star", [(1, 1)], "stars"),
    ])  # fmt: skip
    page = Checker(text)
    shapes = dict(page.tags)
    assert (shapes["circle"]["cx"], shapes["circle"]["cy"]) == ("302.0", "144.0")  # the middle
    assert "<title>here</title>" in text
    assert "none" not in text
    assert chart("t", "x", "y", [Series("a", [])]) == ""
    Checker(chart("one point", "x", "y", [Series("a", [(1, 1)])]))
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1.01, 1.14) == [1.0, 1.05, 1.1, 1.15]


def test_a_search_while_it_runs():
    progress = SearchProgress(
        120.0, 5, TRYING, done=1, parts=5, seconds=30.0, begun=18.0, changed=26.0,
        frontier=((1.0, 40.0), (1.5, 25.0)), verified=(Point("", 1.2, 29.44),),
    )  # fmt: skip
    Checker(frontier(progress))
    text = search_progress(progress)  # a plan takes 8 s, 4 more are possible, 4 s have passed
    assert "Plan 1 of up to 5: 29.4 dB, 1.2x as fast as dense, at most 28 s left" in text
    assert "The search ends after 2 min at the latest" in text
    assert replace(progress, limit=40.0).left == 10.0
    first = replace(progress, done=0, verified=(), parts=5)
    assert first.left is None
    assert "Trying the first plan." in search_progress(first)
    assert 'max="' not in search_progress(first)
    assert frontier(SearchProgress(1, 5)) == ""


@pytest.mark.parametrize(
    ("figures", "kind", "words"),
    [
        ((2.14, 33.0, 0.98), "good", "2.1x faster, looks the same"),
        ((2.14, 33.0, 0.93), "", "2.1x faster, small differences"),
        ((2.14, 26.0, 0.98), "", "2.1x faster, small differences"),
        ((2.14, 24.0, 0.98), "bad", "2.1x faster, looks different"),
        ((1.5, 99.0, 1.0), "good", "1.5x faster, the videos are equal"),
        ((0.9, 33.0, 0.98), "bad", "0.90x, slower than dense, looks the same"),
        ((1.03, 33.0, 0.98), "bad", "no faster than dense, looks the same"),
    ],
)
def test_a_verdict_comes_in_words(figures, kind, words):
    said = verdict(*figures)
    assert (said.text, said.kind) == (words, kind)
    assert bool(said.advice) == (kind == "bad")
    assert looks(*figures[1:]) in words


def test_slower_than_dense_is_not_good_news_and_says_what_to_do():
    text = run_cards(REPORT | {"speedup": 0.9})
    assert 'class="aj-note aj-verdict bad"' in text
    assert "Attention takes 80% of the dense run. Choose a larger size." in text
    said = verdict(0.9, 40.0, 0.99, 0.4)
    assert said.advice.endswith("Choose a larger size, or a plan that reuses steps.")


def test_the_time_of_a_run_in_bars():
    times = {
        arm: [StepTime(*t) for t in REPORT["step_seconds"][arm]] for arm in ("dense", "sparse")
    }
    _, (dense, sparse) = step_bars(times, REPORT["phases"])
    assert (dense.attention, dense.rest) == (pytest.approx(0.4), pytest.approx(0.1))
    assert (sparse.attention, sparse.rest) == (0.1, 0.1)  # neither the dense nor the reused step
    _, (dense, sparse) = run_bars(times, REPORT)
    assert (dense.total, sparse.total) == (pytest.approx(1.0), pytest.approx(0.7))
    assert sparse.name == "with the plan, 2 of 4 steps computed"
    assert step_bars(times, ["dense"] * 3) == ("", ())
    said = "A sparse step is 2.5x faster than a dense step; 2 of 4 steps are not computed"
    assert said in run_cards(REPORT)
    slow = dense._replace(attention=2 * dense.attention)
    assert why((dense, slow), REPORT).startswith("A sparse step takes 1.8x as long")
    assert "as long as a dense step at this size" in why((dense, dense), REPORT)
    assert why((), REPORT | {"reused_steps": 0}) == ""
    widths = re.findall(r'class="attention" style="width:([\d.]+)%"', run_cards(REPORT))
    assert widths == ["80.0", "20.0", "80.0", "50.0"]


def test_the_schedule_marks_the_phase_that_is_shown():
    plan = make_plan([Full(), Skip()])
    two = replace(
        plan,
        assignments={"a": plan.assignments["sparse"], "b": plan.assignments["sparse"]},
        schedule=Schedule((Phase(1.0, "a"), Phase(0.5, "b"))),
    )
    text = heads.schedule_page(two, "b")
    marked = [values for tag, values in Checker(text).tags if values.get("class") == "marked"]
    assert [values["title"] for values in marked] == ["b from 0.5 to 0"]
    head = heads.head_page(ShownPlan.of(two, "test", "3x8x7"), "a", 0, 1)
    assert "Layer 0, head 1 in a" in head


def test_a_head_is_drawn_over_the_video():
    grid = TokenGrid(5, 8, 8)
    video = np.zeros((17, 64, 64, 3), np.uint8)
    video[8, 40:48, 16:24] = 255  # a white token on black in the middle frame
    frames = small(video[frames_of(grid, 17)])
    assert frames_of(grid, 17) == [0, 4, 8, 12, 16]
    query = standing_out(frames, grid)
    assert query == (2, 5, 2)
    view = pattern_view(Diagonal(0.2), grid, query=query)
    picture = over_frames(view, frames)
    token = SIDE // 8
    assert picture.shape == (SIDE, 5 * SIDE + 4 * GAP, 3)
    for number, t in enumerate(view.frames):
        corner = number * (SIDE + GAP)
        shown = picture[token // 2 :: token, corner + token // 2 : corner + SIDE : token]
        attended = view.keys[t] >= 0
        assert attended.any() or t != 2
        faded = shown[~attended]  # black, more white than the colour of a level in it
        assert (faded[:, 0] > 140).all()
        assert (shown[attended][:, 0] < 140).all()
    assert (picture[5 * token - 1, 2 * (SIDE + GAP) + 2 * token] == MARK).all()


def test_a_plan_keeps_what_is_known_of_it(tmp_path):
    frames = np.zeros((3, 8, 7, 3), np.uint8)
    errors = {"sparse": np.ones((2, 2))}
    known = replace(
        ShownPlan.of(LATE, "run", "3x8x7"), frames=frames, errors=errors, measured="then"
    )
    again = ShownPlan.of(LATE, "upload", "3x8x7").after(known)
    assert again.frames is frames
    assert again.errors is errors
    assert again.measured == "then"
    other = ShownPlan.of(make_plan([Full(), Skip()]), "upload", "5x8x7").after(known)
    assert other.frames is None
    assert other.errors == {}
    assert again.after(None) is again


def test_bad_news_is_read_out_at_once():
    assert 'role="alert"' in note("no", "bad")
    assert "alert" not in note("yes", "good")
