"""How good reports are: as language, and clinically."""
