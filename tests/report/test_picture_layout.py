from hypothesis import given
from hypothesis import strategies as st

from quiesce.report.picture_layout import Box, tidy


def preorder(choices: list[int]) -> list[int | None]:
    """Return the parents of a random forest in the order of a walk: each choice pops so many levels."""
    parents: list[int | None] = []
    way: list[int] = []
    for number, pops in enumerate(choices):
        way = way[: max(len(way) - pops, 0)]
        parents.append(way[-1] if way else None)
        way.append(number)
    return parents


forests = st.lists(st.integers(0, 4), max_size=60).map(preorder)
size = st.tuples(st.integers(10, 300).map(float), st.integers(10, 80).map(float))


@given(forests, st.data())
def test_no_two_boxes_overlap_and_children_are_right_of_their_parents(parents: list[int | None], data: st.DataObject):
    sizes = data.draw(st.lists(size, min_size=len(parents), max_size=len(parents)))
    boxes = tidy(parents, sizes, 10, 40)
    for number, box in enumerate(boxes):
        parent = parents[number]
        if parent is not None:
            assert box.x >= boxes[parent].right + 40
            assert box.y >= boxes[parent].y
        for other in boxes[:number]:
            assert box.y >= other.bottom + 10 or box.x >= other.right or other.x >= box.right


def test_a_first_child_stands_beside_its_parent_and_the_second_below_the_first():
    boxes = tidy([None, 0, 0, None], [(100, 40)] * 4, 10, 50)
    assert boxes == [Box(0, 0, 100, 40), Box(150, 0, 100, 40), Box(150, 50, 100, 40), Box(0, 100, 100, 40)]


def test_nothing_is_placed_nowhere():
    assert tidy([], [], 10, 10) == []


def test_a_deep_tree_needs_no_deep_stack():
    parents = [None, *range(20_000)]
    assert tidy(parents, [(1, 1)] * len(parents), 1, 1)[-1].x == 40_000
