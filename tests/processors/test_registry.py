"""The registry: which pipelines and transformers it names, what it refuses, and its page."""

import inspect
import re

import diffusers
import pytest
import torch
from diffusers import (
    CogView4Transformer2DModel,
    MiniMaxH3Transformer3DModel,
    ModularPipeline,
    SanaVideoTransformer3DModel,
    WanAnimate2Transformer3DModel,
    ZImageTransformer2DModel,
)
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch.utils.flop_counter import FlopCounterMode

import ajour
from ajour.processors import family_of, supported_transformers
from ajour.processors.refused import REFUSED, SIZES, Size
from ajour.processors.registry import FAMILIES
from tools.support import PAGE, page

families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)


def transformer_names(pipeline):
    """The class names in the annotation of a pipeline's transformer."""
    kind = getattr(diffusers, pipeline)
    if issubclass(kind, ModularPipeline):
        blocks = getattr(diffusers, kind.default_blocks_name)()
        return {spec.type_hint.__name__ for spec in blocks.expected_components}
    parameters = inspect.signature(kind.__init__).parameters
    annotation = parameters["transformer"].annotation if "transformer" in parameters else ""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return {word.rpartition(".")[2] for word in text.replace("|", " ").split()}


@families
def test_pipelines_take_the_transformers_of_their_family(family):
    names = (*family.pipelines, *family.dense_pipelines)
    assert list(family.pipelines) == sorted(set(family.pipelines) - set(family.dense_pipelines))
    for name in names:
        assert transformer_names(name) & set(family.classes), name


def test_every_transformer_of_diffusers_is_supported_or_refused_with_a_reason():
    """A class that diffusers adds fails here: give it a family, or a reason in `refused.py`."""
    kinds = {name: getattr(diffusers, name, None) for name in diffusers._import_structure["models"]}
    place = "diffusers.models.transformers."
    exported = {
        name
        for name, kind in kinds.items()
        if isinstance(kind, type) and kind.__module__.startswith(place)
    }
    assert len(exported) >= 75
    assert exported == {*supported_transformers(), *REFUSED}
    assert list(REFUSED) == sorted(REFUSED)
    text = PAGE.read_text()
    assert [name for name in exported if f"`{name}`" not in text] == []


CONFIGURATIONS = {
    "AllegroTransformer3DModel": {"num_layers": 1},
    "AuraFlowTransformer2DModel": {"num_mmdit_layers": 0, "num_single_dit_layers": 1},
    "BriaFibo2Transformer2DModel": {"n_layers": 1},
    "CogView3PlusTransformer2DModel": {"num_layers": 1},
    "DiTTransformer2DModel": {"num_layers": 1},
    "Ideogram4Transformer2DModel": {"num_layers": 1},
    "Lumina2Transformer2DModel": {"num_layers": 1},
    "PixArtTransformer2DModel": {"num_layers": 1},
}
"""Released ones but for the number of layers; the rest are the defaults of diffusers."""
BLOCKS = ("transformer_blocks", "single_transformer_blocks", "layers")
PER_SAMPLE = re.compile("norm1|adaln|adaLN|attn2.to_[kv]")
"""Linear layers that work on timesteps and on text, not on every token."""


@pytest.mark.parametrize("name", list(CONFIGURATIONS))
def test_shares_of_attention_follow_from_the_configuration(name):
    with torch.device("meta"):
        transformer = getattr(diffusers, name)(**CONFIGURATIONS[name])
    block = next(
        getattr(transformer, name)[-1] for name in BLOCKS if getattr(transformer, name, ())
    )
    layers = [
        (key, layer) for key, layer in block.named_modules() if isinstance(layer, torch.nn.Linear)
    ]
    weights = sum(layer.weight.numel() for key, layer in layers if not PER_SAMPLE.match(key))
    size = SIZES[name]
    assert next(layer.out_features for key, layer in layers if "to_q" in key) == size.channels
    assert weights / size.channels**2 == pytest.approx(size.weights, rel=0.01)


def test_the_share_of_attention_is_that_of_its_flops():
    size = Size("", 64, 32, 12)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        x = torch.empty(64, 32)
        for inputs, outputs in [(32, 32)] * 4 + [(32, 128), (128, 32)]:
            torch.empty(64, inputs) @ torch.empty(inputs, outputs)
        linear = counter.get_total_flops()
        (x @ x.T) @ x
    total = counter.get_total_flops()
    assert (total - linear) / total == pytest.approx(size.share)


def test_no_pipeline_is_forgotten():
    named = {n for family in FAMILIES for n in (*family.pipelines, *family.dense_pipelines)}
    supported = set(supported_transformers())
    missing = []
    for name in dir(diffusers):
        plain = name.endswith("Pipeline") and not name.endswith("ModularPipeline")
        if plain and name not in named:  # modular ones: those without a plain one are named
            try:
                found = transformer_names(name) & supported
            except RuntimeError:  # a pipeline of a package that is not installed
                continue
            missing += [name] * bool(found)
    assert missing == []


@families
def test_classes_and_processors_exist(family):
    kin = {name for kind in type(family).__mro__ for name in getattr(kind, "classes", ())}
    modules = [inspect.getmodule(getattr(diffusers, name)) for name in kin]
    for processor in family.known_processors():
        everywhere = (*modules, diffusers.models.attention_processor)
        assert any(hasattr(place, processor) for place in everywhere), processor


@families
def test_the_timestep_is_an_argument(family):
    for name in family.classes:
        assert family.timestep in inspect.signature(getattr(diffusers, name).forward).parameters


@pytest.mark.parametrize(
    ("kind", "config", "heads"),
    [(ZImageTransformer2DModel, "n_layers", 30), (MiniMaxH3Transformer3DModel, "num_layers", 56)],
)
def test_heads_of_released_sizes(kind, config, heads):
    with torch.device("meta"):
        transformer = kind(**{config: 1})
    family = family_of(transformer)
    assert (family.heads(transformer), family.head_dim(transformer)) == (heads, 128)


def test_names_belong_to_one_family():
    for names in (supported_transformers(), ajour.supported_pipelines()):
        assert len(names) == len(set(names))
        assert names == sorted(names)
    assert not set(REFUSED) & set(supported_transformers())
    assert all(hasattr(diffusers, name) for name in REFUSED)


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        (
            SanaVideoTransformer3DModel,
            {},
            ["attention is linear", "nearest", "WanTransformer3DModel"],
        ),
        (WanAnimate2Transformer3DModel, {}, ["cached reference", "WanAnimateTransformer3DModel"]),
        (CogView4Transformer2DModel, {}, ["calls PyTorch's attention itself", "be needed", "40%"]),
    ],
)
def test_a_refusal_names_the_nearest_and_what_is_needed(kind, config, words):
    with torch.device("meta"):
        transformer = kind(num_layers=1, **config)
    with pytest.raises(TypeError) as caught:
        family_of(transformer)
    for word in (kind.__name__, *words, "supported transformers are", "WanTransformer3DModel"):
        assert word in str(caught.value)


def test_an_unknown_class_is_told_what_is_nearest():
    class MochiLikeTransformer(torch.nn.Module):
        pass

    with pytest.raises(
        TypeError, match="nearest by name is MochiTransformer3DModel; a family with"
    ):
        family_of(MochiLikeTransformer())
    other = MochiLikeTransformer()
    other.attention = torch.nn.Identity()
    other.attention.processor = WanAttnProcessor()
    with pytest.raises(
        TypeError, match="uses WanAttnProcessor like WanTransformer3DModel, so a fam"
    ):
        family_of(other)


def test_the_page_is_what_the_registry_says():
    assert PAGE.read_text() == page(), "run: python -m tools.support"
