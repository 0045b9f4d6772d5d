"""One model over several Ray actors, behind the engine's `Runner`. Ray is imported here alone."""
