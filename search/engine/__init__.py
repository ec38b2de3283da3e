"""What to try next and what to stop: pure decisions over records, without Ray and without torch."""
