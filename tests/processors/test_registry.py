"""The registry: which pipelines and transformers it names, what it refuses, and its page."""

import inspect

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

import ajour
from ajour.processors import family_of, supported_transformers
from ajour.processors.refused import REFUSED
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
        (CogView4Transformer2DModel, {}, ["nearest by name is", "of its own", "be needed"]),
    ],
)
def test_a_refusal_names_the_nearest_and_what_is_needed(kind, config, words):
    with torch.device("meta"):
        transformer = kind(num_layers=1, **config)
    with pytest.raises(TypeError) as caught:
        family_of(transformer)
    for word in (kind.__name__, *words, "supported transformers are", "WanTransformer3DModel"):
        assert word in str(caught.value)


def test_the_page_is_what_the_registry_says():
    assert PAGE.read_text() == page(), "run: python -m tools.support"
