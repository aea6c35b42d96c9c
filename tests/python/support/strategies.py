"""Values of every type that crosses by itself, nested."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

from hypothesis import strategies as st

from comfy_airlock.wire.registry import Opaque
from vector_types import Access, Colour, Point, Size

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
paths = st.text("abcé. /", min_size=1, max_size=10)

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=True),
    text,
    st.binary(max_size=30),
    st.complex_numbers(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones().map(lambda _: __import__("datetime").timezone.utc)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.fractions(),
    paths.map(Path),
    paths.map(PurePosixPath),
    st.builds(range, st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 9)),
    st.just(...),
    st.sampled_from(Colour),
    st.sampled_from([Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(0)]),
    st.builds(Point, st.integers(), st.floats(allow_nan=False)),
    st.builds(Size, st.integers(), st.integers()),
)

hashable = st.recursive(
    st.one_of(st.integers(), text, st.binary(max_size=5), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashable, inner, max_size=4),
        st.dictionaries(text, inner, max_size=4).map(OrderedDict),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
        st.builds(slice, inner, inner, inner),
        st.builds(Opaque, st.just("my_pack.Mesh"), inner),
    )


values: st.SearchStrategy[Any] = st.recursive(scalars, _containers, max_leaves=12)
