"""How a convolution is done on machines of different vectors: tiles must stay in registers."""

from dataclasses import replace

import pytest
from tilth.compiler.lower.convolution import ConvShape, choose_tile, choose_winograd
from tilth.compiler.lower.target import Target

DEEP = ConvShape(
    images=1, channels=128, height=28, width=28, features=128, kernel=(3, 3), stride=(1, 1),
    pad=((1, 1), (1, 1)), dilation=(1, 1), groups=1, rows=28, columns=28,
)  # fmt: skip


def registers(tile, target: Target) -> int:
    """What a tile needs: its sums, a panel's weights, one input."""
    vectors = tile.blocks * 16 // target.lanes
    return tile.pixels * vectors + vectors + 1


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("batch", [1, 8])
def test_tiles_stay_in_registers(lanes, batch):
    target = Target(lanes, 2)
    shape = replace(DEEP, images=batch)
    choice = choose_winograd(shape, target)
    assert choice is not None
    assert registers(choice.tile, target) <= target.registers
    for columns in (7, 14, 28, 56, 3136):
        assert registers(choose_tile(columns, 8, target), target) <= target.registers


@pytest.mark.parametrize(("lanes", "blocks"), [(16, 2), (8, 1), (4, 1)])
def test_winograd_uses_weights_for_several_tiles_of_pixels(lanes, blocks):
    """A panel of 32 channels would leave narrow vectors two tiles: each weight loaded for two."""
    choice = choose_winograd(DEEP, Target(lanes, 2))
    assert choice is not None and choice.tile.blocks == blocks


def test_winograd_is_left_out_where_sums_must_keep_their_order():
    assert choose_winograd(DEEP, Target(8, 2, precise=True)) is None
