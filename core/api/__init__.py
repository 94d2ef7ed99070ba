"""Names, paths and arrays in, pairs that are called out: what ``import cxr_lens`` hands on to a notebook."""

import warnings

# Libraries that show progress look for widgets as soon as they are imported in a notebook. Nothing here needs any.
warnings.filterwarnings("ignore", message="IProgress not found", module="tqdm")
