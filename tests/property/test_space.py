"""Index, parameters and notation of any architecture of any small space lead back to it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.space import ACTIVATION_NAMES, ExtendedSpace


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    counts = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    activations = draw(st.lists(st.sampled_from(ACTIVATION_NAMES), min_size=1, max_size=3, unique=True))
    modalities = {f"m{number}": [f"f{index}" for index in range(count)] for number, count in enumerate(counts)}
    is_small = len(counts) * sum(counts) <= 10  # Layers of an extended space are listed.
    kind = draw(st.sampled_from([SearchSpace, ExtendedSpace])) if is_small else SearchSpace
    return kind(modalities, activations, draw(st.integers(1, 3)))


@settings(deadline=None)
@given(space=spaces(), data=st.data())
def test_there_and_back(space: SearchSpace, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, space.size - 1))
    architecture = space.architecture(index)
    assert architecture in space
    assert space.index(architecture) == index
    assert space.from_parameters(space.parameters(architecture)) == architecture
    assert space.from_notation(space.notation(architecture)) == architecture
    if space.kind == "paper":
        assert Architecture.from_paper_notation(architecture.paper_notation()) == architecture
    if architecture.parent is not None:
        assert architecture in space.extensions(architecture.parent)


@settings(deadline=None, max_examples=30)
@given(space=spaces().filter(lambda space: space.size < 3000))
def test_enumeration_is_by_index_and_complete(space: SearchSpace) -> None:
    everything = [network for depth in range(1, space.max_depth + 1) for network in space.architectures(depth)]
    assert [space.index(network) for network in everything] == list(range(space.size))
    assert everything == sorted(everything, key=lambda network: network.depth)
    children = [child for network in space.architectures(1) for child in space.extensions(network)]
    assert children == (list(space.architectures(2)) if space.max_depth > 1 else [])
