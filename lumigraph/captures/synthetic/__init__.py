"""A synthetic scene, modelled, textured, lit and rendered by our own ray tracer."""
