"""Names, paths and arrays in, pairs that are called out: what ``import cxr_lens`` hands on to a notebook."""
