"""The commands of ``cxr-lens``: a file a group."""
