"""The paper's tables and studies: a run of a preset in, tables out."""
