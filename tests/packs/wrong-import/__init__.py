"""A pack whose import fails, as packs do when a dependency is missing."""

raise ImportError("libmissing.so: cannot open shared object file")
