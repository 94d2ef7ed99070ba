"""Review sessions on pages: who is signed in, designing, reading, results."""
