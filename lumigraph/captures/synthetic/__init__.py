"""A made-up scene, painted, lit and photographed by ourselves."""
