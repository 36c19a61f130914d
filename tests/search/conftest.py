from tests.pipelines.conftest import _parts, make_pipe, pipe

__all__ = ["_parts", "make_pipe", "pipe"]
