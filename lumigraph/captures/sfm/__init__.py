"""Structure from motion: photos in, cameras and points out, in a process of its own that `captures.pose` starts.

In the order in which data flows:

    pairs             which photos to compare with which           (before the process starts)
    request           what the process is asked
    features          the details of one photo, and those that two photos share
    correspondences   the same for all photos and all pairs
    two_view          one pair: the geometry behind its matches
    focal, lenses     focal lengths to try: told by EXIF, voted for by pairs, assumed
    verification      the pairs whose matches one motion explains
    mapping           cameras and points from all pairs
    refinement        a last adjustment
    judgement         does the result agree with the pairs it was made from?
    writing           in pixels of the photos, with coloured points
    report            how well it went, and the gates that refuse
    process           all of it, one attempt after the other; `speaker` tells the parent, `stopwatch` times the stages

Everything runs in pixels of the reduced photos, so that thresholds mean the same for every camera; the finished model
is scaled up. The method is incremental structure from motion (Schoenberger and Frahm 2016) by COLMAP, around our own
features, matching and focal length. Only this package imports pycolmap, and whoever stands outside imports only those
of its modules that do not: pairs, request, features, focal, report.
"""
