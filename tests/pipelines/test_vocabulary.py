"""The words that the bundled model is said to know are those that it was trained on."""

import re
from pathlib import Path

import pytest

from ajour.pipelines.bundled import Defaults
from ajour.pipelines.vocabulary import VOCABULARY, known_words, unknown_subject
from ajour.search.cli import main
from tools.mini import captions, scenes

GROUNDS = set(re.findall(r'"(\w+)"', re.search(r"GROUND +=(.*)", captions.canonical.__doc__)[1]))
TRAINED = {
    "colours": scenes.COLOURS,
    "shapes": scenes.SHAPES,
    "textures": scenes.TEXTURES[1:],
    "sizes": {"small", "large"},
    "places": captions.PLACE_PHRASES.values(),
    "motions": [phrases[0] for phrases in captions.MOTION_PHRASES.values()],
    "backgrounds": GROUNDS,
}


@pytest.mark.parametrize("kind", VOCABULARY)
def test_the_vocabulary_is_the_trainings(kind):
    assert set(VOCABULARY[kind]) == set(TRAINED[kind])
    assert VOCABULARY.keys() == TRAINED.keys()


def test_the_documentation_has_every_word():
    text = (Path(__file__).parents[2] / "docs/using.md").read_text()
    row = {kind: re.search(rf"^\| {kind} \| (.*) \|$", text, re.MULTILINE) for kind in VOCABULARY}
    assert {kind: tuple(found[1].split(", ")) for kind, found in row.items()} == VOCABULARY


@pytest.mark.parametrize(
    "prompt", [Defaults().prompt, "two crosses", "A STAR.", "a row of three rings"]
)
def test_a_prompt_with_a_shape_is_left_alone(prompt):
    assert unknown_subject(prompt) is None


@pytest.mark.parametrize("prompt", ["a fox in the snow", "", "red", "a starry night", "starling"])
def test_a_prompt_without_a_shape_is_told_the_words(prompt):
    said = unknown_subject(prompt)
    assert all(word in said for word in VOCABULARY["shapes"] + VOCABULARY["colours"])


def test_the_help_has_the_words(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    assert known_words() in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("prompt", "told"), [("a fox", True), ("a red star", False)])
def test_generate_tells_the_words(prompt, told, tmp_path, monkeypatch, capsys):
    def load(*_):
        raise RuntimeError("enough")

    monkeypatch.setattr("ajour.pipelines.bundled.load_pipeline", load)
    assert main(["generate", "--prompt", prompt, "--out", str(tmp_path / "out")]) == 1
    assert (known_words() in capsys.readouterr().err) == told
