"""Matter out of a field, through `Field.render` alone: meshes with a texture, and points."""
