"""The vector index behind one Protocol: Qdrant Edge in this process, or a Qdrant server."""
