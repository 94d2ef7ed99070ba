"""In: real normal films, and a finding of the phantom. Out: the films with it, from nothing to as bad as it gets."""
