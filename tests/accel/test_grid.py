import pytest

from ajour import TokenGrid


@pytest.mark.parametrize(
    "grid", [TokenGrid(13, 16, 16), TokenGrid(1, 2, 3), TokenGrid(21, 30, 52, before=3, after=509)]
)
def test_a_grid_is_read_from_its_text(grid):
    video = TokenGrid(*grid.shape)
    assert TokenGrid.parse(str(grid)) == video
    assert TokenGrid.parse(f" {str(video).upper()} ") == video


@pytest.mark.parametrize(
    "text",
    ["", "8x12", "1x2x3x4", "axbxc", "0x1x1", "1x2x-3", "1x2x3 + some", "9999999x1x1", "1.5x2x2"],
)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="a grid is FRAMESxHEIGHTxWIDTH"):
        TokenGrid.parse(text)
