"""Command-line arguments: parser, flags and help texts of every command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import lumigraph
from lumigraph.cli import commands as run
from lumigraph.studio import registry

Args = argparse.Namespace

ABOUT = """\
Turn photos or a video into a 3D scene, on an ordinary CPU or an NVIDIA GPU.

  lumigraph scan photos/ -o scene        reconstruct a scene from photos
  lumigraph sample demo                  render photos of a synthetic scene, if you have none
  lumigraph scan demo/images -o scene    reconstruct a scene from them

`lumigraph COMMAND --help` describes a command, with examples.
"""

TRAIN_EXAMPLES = """\
examples:
  lumigraph train capture -o run                      choose the training time from the capture
  lumigraph train capture -o run --seconds 120        train for two minutes
  lumigraph train capture -o run --resume --seconds 600   continue, up to ten minutes in total
  lumigraph train capture -o run --set sh_degree=2    change a setting of the method
  lumigraph train --help -m METHOD                    list the settings of a method
"""


if TYPE_CHECKING:
    from lumigraph.studio.config_schema import Setting


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(argv: Sequence[str]) -> Args:
    """Parse a command line. A method's settings become flags only if one is used or its help is requested, because
    listing them imports the method."""
    parser, commands = build_parser()
    argv = [normalize_flag(word) for word in argv]
    name = next((word for word in argv if not word.startswith("-")), "")
    if name in ("train", "scan"):
        command = commands[name]
        existing_flags = set(command._option_string_actions)
        flags = {word.partition("=")[0] for word in argv if word.startswith("--")}
        about_method = {"-h", "--help"} & set(argv) and any(word.startswith(("-m", "--method")) for word in argv)
        if about_method or flags - existing_flags - {"--"}:
            add_settings(command, find_method_name(argv), existing_flags)
    if name in ("export", "convert"):
        add_format_settings(commands[name], argv)
    if name in commands:
        actions = commands[name]._option_string_actions
        argv = expand_switches(argv, {flag for flag, action in actions.items() if action.metavar == SWITCH})
    return parser.parse_args(argv)


SWITCH = "true|false"  # the kind of a boolean setting


def expand_switches(argv: Sequence[str], switches: set[str]) -> list[str]:
    """Rewrite `--surface` to `--surface=true` unless a truth value follows."""
    if not switches & set(argv):
        return list(argv)
    from lumigraph.studio.config_schema import FALSE, TRUE

    after = [*argv[1:], ""]
    return [
        f"{word}=true" if word in switches and following.lower() not in TRUE + FALSE else word
        for word, following in zip(argv, after, strict=True)
    ]


def normalize_flag(word: str) -> str:
    """Rewrite `--sh_degree=2`, the Python spelling, to `--sh-degree=2`."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def find_method_name(argv: Sequence[str]) -> str | None:
    finder = Parser(add_help=False, allow_abbrev=False)
    finder.add_argument("-m", "--method")
    method: str | None = finder.parse_known_args(argv)[0].method
    return method


def add_settings(command: argparse.ArgumentParser, method: str | None, reserved_flags: set[str]) -> None:
    """Add a flag for each field of the method's Config, except for names that are already flags."""
    from lumigraph.studio import config_schema  # imported late: --help must stay fast

    name = method or registry.DEFAULT_METHOD
    add_flags(
        command, f"settings of the method {name}", config_schema.settings(registry.method(name).Config), reserved_flags
    )


def add_format_settings(command: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Add flags for the settings of the output format, selected by its suffix, and of the extraction."""
    existing_flags = set(command._option_string_actions)
    flags = {word.partition("=")[0] for word in argv if word.startswith("--")}
    if not {"-h", "--help"} & set(argv) and not flags - existing_flags - {"--"}:
        return
    finder = Parser(add_help=False, allow_abbrev=False)
    finder.add_argument("-o", "--out")
    finder.add_argument("--as", dest="kind")
    options, positionals = finder.parse_known_args(argv)
    paths = [word for word in positionals[1:] if not word.startswith("-")]
    out = options.out or (paths[-1] if argv[0] == "convert" and len(paths) > 1 else None)
    if out is None:
        return
    from pathlib import Path

    from lumigraph.scene.errors import LumigraphError
    from lumigraph.studio import config_schema, exporting

    try:
        groups = exporting.setting_groups(Path(out), options.kind, argv[0] == "export")
    except LumigraphError:  # reported when the command runs
        return
    for title, config in groups:
        add_flags(command, title, config_schema.settings(config), existing_flags)


def add_flags(
    command: argparse.ArgumentParser, title: str, settings: Sequence[Setting], reserved_flags: set[str]
) -> None:
    group = command.add_argument_group(title)
    for setting in settings:
        flag = f"--{setting.name.replace('_', '-')}"
        if flag in reserved_flags:
            continue
        default = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
        text = f"{setting.doc} (default: {default})".strip().replace("%", "%%")
        group.add_argument(
            flag, dest=f"setting:{setting.name}", metavar=setting.kind, help=text, default=argparse.SUPPRESS
        )
        for former_name in setting.former_names:
            former_flag = f"--{former_name.replace('_', '-')}"
            if former_flag in reserved_flags:
                continue
            group.add_argument(
                former_flag,
                dest=f"setting:{setting.name}",
                metavar=setting.kind,
                help=argparse.SUPPRESS,
                default=argparse.SUPPRESS,
            )


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = Parser(prog="lumigraph", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"lumigraph {lumigraph.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    commands: dict[str, argparse.ArgumentParser] = {}

    def add(name: str, action: Callable[[Args], int], summary: str, about: str) -> argparse.ArgumentParser:
        command = subparsers.add_parser(
            name,
            help=summary,
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("--debug", action="store_true", help="show a traceback with an error")
        command.set_defaults(run_command=action)
        commands[name] = command
        return command

    command = add("scan", run.scan, "reconstruct a scene: poses, training, evaluation, turntable, PLY", SCAN)
    command.add_argument("source", metavar="PHOTOS|VIDEO|CAPTURE", help="folder or zip of photos, video, posed capture")
    _output(command, "RUN", "folder of the run; an unfinished run is continued")
    _pose_options(command)
    _training_options(command)
    command.add_argument("--overwrite", action="store_true", help="discard the contents of RUN and start again")
    command.add_argument("--remote", metavar="URL", help="run on a server, at the address printed by `lumigraph up`")

    command = add("sample", run.sample, "render photos of a synthetic scene", SAMPLE)
    command.add_argument("out", metavar="OUT", help="folder to create")
    command.add_argument("--views", type=at_least(3), default=60, metavar="N", help="number of photos (default: 60)")
    command.add_argument(
        "--size",
        type=width_by_height,
        default=(640, 480),
        metavar="WxH",
        help="photo size in pixels (default: 640x480)",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="random seed of the scene (default: 0)")
    _quiet(command)

    command = add("pose", run.pose, "estimate camera poses from photos", POSE)
    command.add_argument("source", metavar="PHOTOS|VIDEO", help="folder or zip of photos, or a video")
    _output(command, "CAPTURE", "folder of the capture to create")
    _pose_options(command)
    command.add_argument(
        "--matching",
        choices=("auto", "exhaustive", "sequential", "spatial"),
        default="auto",
        help="which pairs of photos to match (default: auto)",
    )
    _quiet(command)

    command = add("train", run.train, "train a run on a capture", TRAIN + TRAIN_EXAMPLES)
    command.add_argument("capture", metavar="CAPTURE", help="folder of posed photos")
    _output(command, "RUN", "folder of the run")
    _training_options(command)
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue RUN from its last checkpoint")
    again.add_argument("--overwrite", action="store_true", help="discard the contents of RUN and start again")

    command = add("evaluate", run.evaluate, "evaluate a run on its held-out views", EVALUATE)
    command.add_argument("run", metavar="RUN")
    command.add_argument("--json", action="store_true", help="print the metrics as JSON")
    command.add_argument(
        "--renderer",
        choices=("kernels", "reference"),
        default="kernels",
        help="renderer of the gaussians: the compiled kernels, or the reference implementation in plain torch, which"
        " takes minutes (default: kernels)",
    )
    _device(command)
    _quiet(command)

    command = add("render", run.render, "render a video or images of a run", RENDER)
    command.add_argument("run", metavar="RUN")
    _output(command, "OUT.mp4|OUT.png|FOLDER", "output; the suffix selects a video, one image, or a folder of images")
    command.add_argument("--path", metavar="orbit|spiral|FILE.json", help="camera path (default: orbit)")
    command.add_argument(
        "--size", type=width_by_height, metavar="WxH", help="size in pixels (default: that of the photos)"
    )
    command.add_argument("--frames", type=at_least(1), metavar="N", help="number of frames (default: 180)")
    command.add_argument("--fps", type=at_least(1), default=30, metavar="N", help="frames per second (default: 30)")
    command.add_argument(
        "--output",
        choices=("rgb", "depth", "normal", "alpha"),
        default="rgb",
        help="rendered quantity (default: rgb)",
    )
    _device(command)
    _quiet(command)

    command = add("compare", run.compare, "compare runs of one capture", COMPARE)
    command.add_argument("runs", metavar="RUN", nargs="+")
    command.add_argument(
        "-o", "--out", default="compare.html", metavar="PAGE.html", help="output page (default: compare.html)"
    )
    command.add_argument("--json", action="store_true", help="print the metrics as JSON")
    _device(command)
    _quiet(command)

    command = add("export", run.export, "export a run to splat, mesh, point or voxel formats", EXPORT)
    command.add_argument("run", metavar="RUN")
    _output(command, "FILE.EXT", "output; the suffix selects the format, and --help lists its settings")
    command.add_argument(
        "--as",
        dest="kind",
        choices=("splats", "mesh", "points", "centres", "voxels"),
        help="asset to write: gaussians, a textured mesh, points on the surface, centres of the gaussians, or a "
        "grid of distances to the surface (default: depends on the format)",
    )
    command.add_argument(
        "--points", dest="kind", action="store_const", const="centres", help="the same as --as centres"
    )
    command.add_argument("--preset", choices=("web", "game", "print", "archive"), help="settings for a common purpose")
    command.add_argument(
        "--frame",
        choices=("auto", "capture", "upright"),
        default="auto",
        help="keep the axes of the capture, or rotate upright (default: capture for splat files, else upright)",
    )
    command.add_argument(
        "--origin",
        choices=("auto", "capture", "centre", "ground"),
        default="auto",
        help="point at 0 0 0 (default: the ground below the centre if the scene is rotated upright)",
    )
    _set(command, "format")
    _quiet(command)

    command = add("convert", run.convert, "convert a scene file or a capture", CONVERT)
    command.add_argument("source", metavar="IN.EXT|CAPTURE")
    command.add_argument(
        "out", metavar="OUT.EXT|FOLDER", help="output; the suffix selects the format, and --help lists its settings"
    )
    command.add_argument(
        "--dataset",
        choices=("colmap", "transforms"),
        default="colmap",
        help="format of a converted capture (default: colmap)",
    )
    command.add_argument("--keep-axes", action="store_true", help="keep coordinates instead of converting the up axis")
    _set(command, "format")
    _quiet(command)

    command = add("inspect", run.inspect, "print the contents of a scene file", INSPECT)
    command.add_argument("file", metavar="FILE.EXT")
    command.add_argument("--json", action="store_true", help="print as JSON")

    command = add("scale", run.scale, "set the metric scale of a run", SCALE)
    command.add_argument("run", metavar="RUN")
    command.add_argument(
        "--points",
        type=triple,
        nargs=2,
        metavar="X,Y,Z",
        help="two points with a known distance (default: 0 and 1, one unit)",
    )
    command.add_argument(
        "--metres", type=positive, required=True, metavar="M", help="distance between the points in metres"
    )
    _quiet(command)

    command = add("up", run.up, "start the studio server: projects, jobs, HTTP API", UP)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    command.add_argument(
        "--port", type=int, default=7007, metavar="N", help="port (default: 7007; 0 selects a free port)"
    )
    command.add_argument("--data", metavar="DIR", help="data folder (default: the platform's user data folder)")
    command.add_argument("--database", metavar="URL", help="PostgreSQL database (default: SQLite in the data folder)")
    for flag, metavar, summary in (
        ("--url", "URL", "additional public address, such as that of a reverse proxy"),
        ("--allow-origin", "URL", "additional web origin that may use the API"),
        ("--hook-host", "HOST:PORT", "host that webhooks may notify about finished jobs"),
    ):
        command.add_argument(flag, action="append", default=[], metavar=metavar, help=f"{summary}; may be repeated")
    _quiet(command)

    command = add("info", run.info, "print versions, device and installed extras", INFO)
    command.add_argument("--short", action="store_true", help="skip everything that needs heavy imports")
    return parser, commands


SCAN = """\
Reconstruct a scene from photos: estimate camera poses, train, and evaluate on held-out photos. RUN then contains
turntable.mp4, scene.ply and report.html. If interrupted, the same command continues from the last checkpoint.

examples:
  lumigraph scan photos/ -o scene
  lumigraph scan video.mp4 -o scene --frames 120 --seconds 300
  lumigraph scan capture/ -o scene         a folder that already has camera poses
  lumigraph scan photos/ -o scene --remote 'http://127.0.0.1:7007/?token=...'     run on a server
"""
SAMPLE = """\
Render photos of a synthetic scene, as test data. Nothing is downloaded. The photos are written to OUT/images and their
true camera poses to OUT/transforms.json, so that `train OUT` can skip pose estimation.

example:
  lumigraph sample demo && lumigraph scan demo/images -o scene
"""
POSE = """\
Estimate camera poses from photos alone (structure from motion). Use 30 to 150 sharp, overlapping photos of a static
scene. CAPTURE receives the photos and their poses in COLMAP format.

examples:
  lumigraph pose photos/ -o capture
  lumigraph pose video.mp4 -o capture --frames 120
"""
TRAIN = """\
Train a scene from posed photos: COLMAP, transforms.json (instant-ngp, nerfstudio), NeRF-Blender or LLFF. Every eighth
photo is held out for evaluation, unless the capture defines a split. Checkpoints are saved regularly: press Ctrl-C to
stop, and use --resume to continue.

"""
EVALUATE = """\
Render the held-out views and compare them with their photos. Writes evaluation.json and report.html into RUN.
Gaussians are evaluated as exported: written to a PLY and read back.

examples:
  lumigraph evaluate run
  lumigraph evaluate run --json
  lumigraph evaluate run --renderer reference     plain torch, without the compiled kernels
"""
RENDER = """\
Render a run along a camera path. The default path orbits the point that the photos face, on the side where they were
taken.

examples:
  lumigraph render run -o turntable.mp4
  lumigraph render run -o still.png                       the first held-out view
  lumigraph render run -o flight.mp4 --path flight.json --size 1280x720
  flight.json: {"keyframes": [{"position": [0, 0, 3], "look_at": [0, 0, 0]}, ...]}, in world coordinates of the capture
"""
COMPARE = """\
Compare runs on the held-out views that they share. Prints a table of metrics, and writes a page that shows the same
views rendered by each run.

example:
  lumigraph compare run-splat run-ngp run-nerf -o compare.html
"""
EXPORT = """\
Export a run to a file of another format, then read the file back and verify it. Splat files keep the axes of the
capture. Other formats are rotated upright, with the origin on the ground; they are in metres once `lumigraph scale`
has set the scale.

examples:
  lumigraph export run -o scene.ply                     gaussians, for splat viewers
  lumigraph export run -o scene.glb                     textured mesh, for Blender, Unity, three.js
  lumigraph export run -o scene.glb --preset web        the same as a small file
  lumigraph export run -o scene.stl --preset print      watertight mesh in millimetres, for 3D printing
  lumigraph export run -o scene.usdz --as splats        gaussians for OpenUSD
  lumigraph export run -o scene.las                     points on the surface, for surveying
  lumigraph export run -o cloud.ply --as points --count 1000000 --levels 10000,100000     with coarser point clouds
  lumigraph export run -o web/tileset.json              3D Tiles, for the web
  lumigraph export run -o scene.npz                     voxels: distances to the surface and colours
  lumigraph export --help -o scene.glb                  list the settings of a format
"""
CONVERT = """\
Convert a scene file to another format. Up axes and units are converted; lost attributes are reported. A capture is
converted to a dataset folder for other trainers.

examples:
  lumigraph convert scene.ply scene.spz         a tenth of the size
  lumigraph convert scene.sog scene.ply         for programs that read only PLY
  lumigraph convert mesh.obj mesh.glb
  lumigraph convert capture/ folder/ --dataset transforms      photos and poses, for other trainers
"""
INSPECT = """\
Print the contents of a file of gaussians, points or triangles: counts, bounds, attributes.

example:
  lumigraph inspect scene.spz
"""
SCALE = """\
Set the metric scale of a run, so that formats with units are exported in metres. Points are in world coordinates of the
capture, as the measuring tool of the studio displays them.

examples:
  lumigraph scale run --points 0.1,0.2,1.5 0.9,0.2,1.5 --metres 0.4      the two ends of a table
  lumigraph scale run --metres 0.5                                       the length of one unit
"""
UP = """\
Start the studio server and print its address, which includes the access token. All projects and jobs are stored in one
data folder; after a crash, the next start resumes them. The API is documented at ADDRESS/openapi.json.

examples:
  lumigraph up
  lumigraph up --port 8080 --data /srv/lumigraph
  lumigraph up --url https://studio.example.org      behind a TLS proxy, see docs/deployment.md
"""
INFO = """\
Print the installed versions, the compute device, and the features that each missing extra would add.
"""


def _output(command: argparse.ArgumentParser, metavar: str, text: str) -> None:
    command.add_argument("-o", "--out", required=True, metavar=metavar, help=text)


def _quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="print only results, warnings and errors")


def _set(command: argparse.ArgumentParser, owner: str) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"a setting of the {owner}; may be repeated"
    )


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="compute device (default: auto)"
    )


def _pose_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--frames", type=at_least(3), default=80, metavar="N", help="frames to extract from a video (default: 80)"
    )
    command.add_argument(
        "--allow-partial", action="store_true", help="accept a capture if only some photos can be posed"
    )


def _training_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-m",
        "--method",
        metavar="NAME",
        help=f"training method: {', '.join(registry.METHODS)} (default: {registry.DEFAULT_METHOD})",
    )
    command.add_argument(
        "--seconds", type=positive, metavar="S", help="training time in seconds (default: depends on the capture)"
    )
    command.add_argument("--steps", type=at_least(1), metavar="N", help="number of training steps")
    command.add_argument(
        "--downscale",
        type=downscale_factor,
        metavar="K",
        help="divide the photo size by K (default: longest side 1000 px)",
    )
    command.add_argument(
        "--holdout",
        type=at_least(0),
        metavar="N",
        help="hold out every N-th photo for evaluation; 0 = none (default: 8)",
    )
    command.add_argument("--seed", type=int, metavar="N", help="random seed (default: 0)")
    _set(command, "method")
    _device(command)
    _quiet(command)


def triple(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected X,Y,Z, not {text!r}") from None
    return x, y, z


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def downscale_factor(text: str) -> float:
    value = positive(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} would enlarge; the minimum is 1")
    return value


def at_least(smallest: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{text} is too small; the minimum is {smallest}")
        return value

    whole.__name__ = "whole number"  # argparse says: invalid whole number value
    return whole


def width_by_height(text: str) -> tuple[int, int]:
    width, by, height = text.lower().partition("x")
    if not (by and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1280x720")
    return int(width), int(height)
