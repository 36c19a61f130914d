"""`trim`: text padding left out of dense phases too, which changes nothing but the rounding."""

import pytest
import torch

import ajour
from ajour.pipelines.enable import session_of
from ajour.processors import family_of
from tests.processors.families import SPARSE, assert_equals_stock, call, make
from tests.processors.models import CASES
from tests.processors.test_text_padding import padded

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
