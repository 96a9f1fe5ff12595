"""Structure from motion: cameras and points from photos, in a child process that `captures.pose` starts.

In the order of the data flow:

    image_pairs         image pairs to compare                        (before the process starts)
    request             input of the process
    features            features of one image, and matches of two images
    correspondences     features of all images and matches of all pairs
    two_view            two-view geometry of one pair
    focal_candidates    focal lengths to try: from EXIF, by vote, default
    focal_voting        the focal length that most pairs vote for
    verification        pairs whose matches fit one camera motion
    tracks              features of several images that show one point
    mapping             cameras and points from all pairs
    bundle_adjustment   the final bundle adjustment
    consistency         agreement of the model with its image pairs
    model_writer        the model in original pixels, with coloured points
    pose_report         quality metrics, and the gates that reject a model
    process             runs all stages, once per set of focal lengths; `event_pipe` sends events to the parent process,
                        `stopwatch` times the stages

All stages work in pixels of the downscaled images, so that thresholds mean the same for every camera. The final model
is scaled up. The method is COLMAP's incremental structure from motion (Schoenberger and Frahm 2016) with our own
features, matching and focal length search. Only this package imports pycolmap. Modules outside import only
image_pairs, request, features, focal_voting and pose_report, which do not load pycolmap.
"""
