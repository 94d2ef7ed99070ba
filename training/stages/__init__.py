"""From a preset and its studies to trained weights and bundles: a file a stage, and the chain that runs them all."""
