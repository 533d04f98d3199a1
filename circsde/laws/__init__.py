"""Laws of angles: distributions with scores, the laws that oscillators settle to, and their special functions."""
