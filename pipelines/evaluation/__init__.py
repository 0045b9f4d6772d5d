"""What a release is judged by: questions from the log, metrics, comparisons, and the gate that decides."""
