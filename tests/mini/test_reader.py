import numpy as np
import pytest

from tools.mini import reader, scenes
from tools.mini.captions import canonical
from tools.mini.prompts import held_out_prompts

SCENES = held_out_prompts(48, seed=11)


def film(scene):
    video = scenes.render([scene], 9, 96, 96)[0]
    return video.add(1).mul(127.5).round().byte().permute(1, 2, 3, 0).numpy()


def share(pairs):
    verdicts = [reader.score(video, prompt) for video, prompt in pairs]
    return {k: np.mean([v for one in verdicts for v in one[k]]) for k in verdicts[0]}


def test_rendered_scenes_are_read_back():
    found = share((film(s), canonical(s)) for s in SCENES)
    assert all(value >= 0.98 for value in found.values()), found


def test_other_prompts_are_not():
    films = [film(s) for s in SCENES]
    prompts = [canonical(s) for s in SCENES[1:] + SCENES[:1]]
    found = share(zip(films, prompts, strict=True))
    assert found["colour"] < 0.4
    assert found["place"] < 0.15
    assert found["motion"] < 0.15


def test_an_empty_picture_shows_nothing():
    gray = np.full((5, 64, 64, 3), 84, dtype=np.uint8)
    assert all(reader.read(gray, colour) is None for colour in reader.COLOURS)


def test_every_held_out_prompt_can_be_parsed():
    for scene in held_out_prompts(200, seed=3):
        seen = reader.expected(canonical(scene))
        assert [s.colour for s in seen] == [t.colour for t in scene.things]


def test_a_free_caption_is_refused():
    with pytest.raises(ValueError, match="canonical caption"):
        reader.expected("Something red floats about.")
