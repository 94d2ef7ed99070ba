"""Reports and their references in, scores with intervals out: as language, and clinically."""
