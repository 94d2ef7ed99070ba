"""Reports and models in, files that other programs read out: a kind of file a module, each says who wrote it."""
