"""Extracts meshes with textures, point clouds and voxel grids from a field, using `Field.render` alone."""
