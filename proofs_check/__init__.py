"""The verdicts: every claim of the papers, checked by a machine."""
