"""What can be said on the command line, and how each command explains itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import lumigraph
from lumigraph.cli import commands as run
from lumigraph.studio import registry

Args = argparse.Namespace

ABOUT = """\
Photos or a video in, a 3D scene out: on a plain CPU.

  lumigraph scan photos/ -o scene        from photos to a scene that can be looked at
  lumigraph sample demo                  no photos at hand: pictures of a made-up scene
  lumigraph scan demo/images -o scene    ... and the scene made of them

`lumigraph COMMAND --help` explains a command, with examples.
"""

TRAIN_EXAMPLES = """\
examples:
  lumigraph train capture -o run                      for a time chosen by the capture
  lumigraph train capture -o run --seconds 120        for two minutes
  lumigraph train capture -o run --resume --seconds 600   and on, until ten minutes in all
  lumigraph train capture -o run --set sh_degree=2    with a setting of the method
  lumigraph train --help -m METHOD                    which settings a method has
"""


if TYPE_CHECKING:
    from lumigraph.studio.config_schema import Setting


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(argv: Sequence[str]) -> Args:
    """The arguments of a command line. A method's settings become flags when one is used or asked about: knowing them
    costs the import of the method."""
    parser, commands = build_parser()
    argv = [dashed(word) for word in argv]
    name = next((word for word in argv if not word.startswith("-")), "")
    if name in ("train", "scan"):
        command = commands[name]
        known = set(command._option_string_actions)
        flags = {word.partition("=")[0] for word in argv if word.startswith("--")}
        about_method = {"-h", "--help"} & set(argv) and any(word.startswith(("-m", "--method")) for word in argv)
        if about_method or flags - known - {"--"}:
            add_settings(command, method_named(argv), known)
    if name in ("export", "convert"):
        add_format_settings(commands[name], argv)
    if name in commands:
        actions = commands[name]._option_string_actions
        argv = switched(argv, {flag for flag, action in actions.items() if action.metavar == SWITCH})
    return parser.parse_args(argv)


SWITCH = "true|false"  # the kind of a setting that is either


def switched(argv: Sequence[str], switches: set[str]) -> list[str]:
    """`--surface` before anything but a truth value is `--surface=true`."""
    if not switches & set(argv):
        return list(argv)
    from lumigraph.studio.config_schema import FALSE, TRUE

    after = [*argv[1:], ""]
    return [
        f"{word}=true" if word in switches and following.lower() not in TRUE + FALSE else word
        for word, following in zip(argv, after, strict=True)
    ]


def dashed(word: str) -> str:
    """`--sh_degree=2`, as Python writes it, is `--sh-degree=2`."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def method_named(argv: Sequence[str]) -> str | None:
    finder = Parser(add_help=False, allow_abbrev=False)
    finder.add_argument("-m", "--method")
    method: str | None = finder.parse_known_args(argv)[0].method
    return method


def add_settings(command: argparse.ArgumentParser, method: str | None, taken: set[str]) -> None:
    """A flag for each field of the method's Config, but for names that mean something else already."""
    from lumigraph.studio import config_schema  # which imports what typing needs, and --help does not

    name = method or registry.DEFAULT_METHOD
    add_flags(command, f"settings of the method {name}", config_schema.settings(registry.method(name).Config), taken)


def add_format_settings(command: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Flags of the format that the suffix of the output chooses, and of what is made for it."""
    known = set(command._option_string_actions)
    flags = {word.partition("=")[0] for word in argv if word.startswith("--")}
    if not {"-h", "--help"} & set(argv) and not flags - known - {"--"}:
        return
    finder = Parser(add_help=False, allow_abbrev=False)
    finder.add_argument("-o", "--out")
    finder.add_argument("--as", dest="kind")
    asked, rest = finder.parse_known_args(argv)
    paths = [word for word in rest[1:] if not word.startswith("-")]
    out = asked.out or (paths[-1] if argv[0] == "convert" and len(paths) > 1 else None)
    if out is None:
        return
    from pathlib import Path

    from lumigraph.scene.errors import LumigraphError
    from lumigraph.studio import config_schema, exporting

    try:
        groups = exporting.offered(Path(out), asked.kind, argv[0] == "export")
    except LumigraphError:  # said when the command runs
        return
    for title, config in groups:
        add_flags(command, title, config_schema.settings(config), known)


def add_flags(command: argparse.ArgumentParser, title: str, settings: Sequence[Setting], taken: set[str]) -> None:
    group = command.add_argument_group(title)
    for setting in settings:
        flag = f"--{setting.name.replace('_', '-')}"
        if flag in taken:
            continue
        default = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
        told = f"{setting.doc} (default: {default})".strip().replace("%", "%%")
        group.add_argument(
            flag, dest=f"setting:{setting.name}", metavar=setting.kind, help=told, default=argparse.SUPPRESS
        )
        for former_name in setting.former_names:
            former_flag = f"--{former_name.replace('_', '-')}"
            if former_flag in taken:
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

    command = add("scan", run.scan, "all of it: poses, training, evaluation, turntable, PLY", SCAN)
    command.add_argument("source", metavar="PHOTOS|VIDEO|CAPTURE", help="folder or zip of photos, video, posed capture")
    _output(command, "RUN", "folder of the run; asked again, it goes on where it stopped")
    _posing(command)
    _learning(command)
    command.add_argument("--overwrite", action="store_true", help="start again, forgetting what RUN holds")
    command.add_argument("--remote", metavar="URL", help="let a server do it: the address that `lumigraph up` prints")

    command = add("sample", run.sample, "photos of a made-up scene, rendered here", SAMPLE)
    command.add_argument("out", metavar="OUT", help="folder to make")
    command.add_argument("--views", type=at_least(3), default=60, metavar="N", help="photos (default: 60)")
    command.add_argument(
        "--size", type=width_by_height, default=(640, 480), metavar="WxH", help="pixels (default: 640x480)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another scene (default: 0)")
    _quiet(command)

    command = add("pose", run.pose, "cameras from pictures alone", POSE)
    command.add_argument("source", metavar="PHOTOS|VIDEO", help="folder or zip of photos, or a video")
    _output(command, "CAPTURE", "folder of the capture to make")
    _posing(command)
    command.add_argument(
        "--matching",
        choices=("auto", "exhaustive", "sequential", "spatial"),
        default="auto",
        help="which photos to compare",
    )
    _quiet(command)

    command = add("train", run.train, "a capture becomes a run", TRAIN + TRAIN_EXAMPLES)
    command.add_argument("capture", metavar="CAPTURE", help="folder of posed photos")
    _output(command, "RUN", "folder of the run")
    _learning(command)
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with RUN where it stopped")
    again.add_argument("--overwrite", action="store_true", help="start again, forgetting what RUN holds")

    command = add("evaluate", run.evaluate, "judge a run on the views it never saw", EVALUATE)
    command.add_argument("run", metavar="RUN")
    command.add_argument("--json", action="store_true", help="print evaluation.json")
    command.add_argument(
        "--renderer",
        choices=("kernels", "reference"),
        default="kernels",
        help="what renders the gaussians: the compiled kernels, or the plain reference implementation, which takes"
        " minutes (default: kernels)",
    )
    _device(command)
    _quiet(command)

    command = add("render", run.render, "a film or pictures of a run", RENDER)
    command.add_argument("run", metavar="RUN")
    _output(command, "OUT.mp4|OUT.png|FOLDER", "the suffix chooses: a film, one picture, a folder of pictures")
    command.add_argument("--path", metavar="orbit|spiral|FILE.json", help="where the camera goes (default: orbit)")
    command.add_argument("--size", type=width_by_height, metavar="WxH", help="pixels (default: as the photos)")
    command.add_argument("--frames", type=at_least(1), metavar="N", help="(default: 180)")
    command.add_argument("--fps", type=at_least(1), default=30, metavar="N", help="frames a second (default: 30)")
    command.add_argument(
        "--output",
        choices=("rgb", "depth", "normal", "alpha"),
        default="rgb",
        help="what the pictures show (default: rgb)",
    )
    _device(command)
    _quiet(command)

    command = add("compare", run.compare, "runs of one capture side by side", COMPARE)
    command.add_argument("runs", metavar="RUN", nargs="+")
    command.add_argument("-o", "--out", default="compare.html", metavar="PAGE.html", help="(default: compare.html)")
    command.add_argument("--json", action="store_true", help="print the figures as JSON")
    _device(command)
    _quiet(command)

    command = add("export", run.export, "a run as a file of another program", EXPORT)
    command.add_argument("run", metavar="RUN")
    _output(command, "FILE.EXT", "the suffix chooses the format; with --help, which settings it has")
    command.add_argument(
        "--as",
        dest="kind",
        choices=("splats", "mesh", "points", "centres", "voxels"),
        help="what to write: gaussians, a surface with a texture, points on the surface, the centres of the "
        "gaussians, or a grid of distances to the surface (default: what people most often want of the format)",
    )
    command.add_argument(
        "--points", dest="kind", action="store_const", const="centres", help="the same as --as centres"
    )
    command.add_argument("--preset", choices=("web", "game", "print", "archive"), help="settings for a purpose")
    command.add_argument(
        "--frame",
        choices=("auto", "capture", "upright"),
        default="auto",
        help="keep the axes of the capture, or lay the scene upright (default: splat files are kept)",
    )
    command.add_argument(
        "--origin",
        choices=("auto", "capture", "centre", "ground"),
        default="auto",
        help="what lies at 0 0 0 (default: the ground below the middle, of what is laid upright)",
    )
    _set(command, "format")
    _quiet(command)

    command = add("convert", run.convert, "from one file of a scene to another", CONVERT)
    command.add_argument("source", metavar="IN.EXT|CAPTURE")
    command.add_argument(
        "out", metavar="OUT.EXT|FOLDER", help="the suffix chooses the format; with --help, its settings"
    )
    command.add_argument(
        "--dataset", choices=("colmap", "transforms"), default="colmap", help="of a capture (default: colmap)"
    )
    command.add_argument("--keep-axes", action="store_true", help="leave coordinates as they are, whatever is up")
    _set(command, "format")
    _quiet(command)

    command = add("inspect", run.inspect, "what is in a file of a scene", INSPECT)
    command.add_argument("file", metavar="FILE.EXT")
    command.add_argument("--json", action="store_true", help="print it as JSON")

    command = add("scale", run.scale, "how large the place of a run is", SCALE)
    command.add_argument("run", metavar="RUN")
    command.add_argument(
        "--points", type=triple, nargs=2, metavar="X,Y,Z", help="two places whose distance is known (default: a unit)"
    )
    command.add_argument("--metres", type=positive, required=True, metavar="M", help="how far they are apart")
    _quiet(command)

    command = add("up", run.up, "the studio as a server: projects, jobs, an HTTP API", UP)
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    command.add_argument("--port", type=int, default=7007, metavar="N", help="(default: 7007; 0 takes a free one)")
    command.add_argument("--data", metavar="DIR", help="folder of everything it keeps (default: the platform's place)")
    command.add_argument("--database", metavar="URL", help="PostgreSQL instead of a file in the data folder")
    for flag, metavar, told in (
        ("--url", "URL", "a further address that people reach it by, as that of a proxy before it"),
        ("--allow-origin", "URL", "another web origin that may use the API"),
        ("--hook-host", "HOST:PORT", "may be told when a job has ended"),
    ):
        command.add_argument(flag, action="append", default=[], metavar=metavar, help=f"{told}; may be repeated")
    _quiet(command)

    command = add("info", run.info, "versions, device, what is installed", INFO)
    command.add_argument("--short", action="store_true", help="only what is known without loading anything")
    return parser, commands


SCAN = """\
From photos to a scene: finds where the photos were taken, trains, judges the result on photos it never saw, and
leaves turntable.mp4, scene.ply and report.html in RUN. Stopped by anything, the same command goes on.

examples:
  lumigraph scan photos/ -o scene
  lumigraph scan video.mp4 -o scene --frames 120 --seconds 300
  lumigraph scan capture/ -o scene         a folder that has poses already
  lumigraph scan photos/ -o scene --remote 'http://127.0.0.1:7007/?token=...'     on a server
"""
SAMPLE = """\
Renders photos of a made-up scene: something to try everything with. Nothing is downloaded. The photos lie in
OUT/images; where they were really taken lies beside them, in OUT/transforms.json: `train OUT` starts from that.

example:
  lumigraph sample demo && lumigraph scan demo/images -o scene
"""
POSE = """\
Finds where photos were taken from the photos alone (structure from motion). Wants 30 to 150 sharp photos that overlap,
of something that does not move. CAPTURE holds the photos and the poses in COLMAP's form.

examples:
  lumigraph pose photos/ -o capture
  lumigraph pose video.mp4 -o capture --frames 120
"""
TRAIN = """\
Learns a scene from posed photos: COLMAP, transforms.json (instant-ngp, nerfstudio), NeRF-Blender, LLFF. Every eighth
photo is held out to judge the result, unless the capture says which. Saves as it goes: Ctrl-C, then --resume.

"""
EVALUATE = """\
Renders the held-out views and compares them with their photos. Writes evaluation.json and report.html into RUN.
Gaussians are evaluated as exported: written to a PLY and read back.

examples:
  lumigraph evaluate run
  lumigraph evaluate run --json
  lumigraph evaluate run --renderer reference     by plain torch, without the compiled kernels
"""
RENDER = """\
Renders a run along a path. The default goes around what the photos look at, on the side where they were taken.

examples:
  lumigraph render run -o turntable.mp4
  lumigraph render run -o still.png                       the first held-out view
  lumigraph render run -o flight.mp4 --path flight.json --size 1280x720
  where flight.json is  {"keyframes": [{"position": [0, 0, 3], "look_at": [0, 0, 0]}, ...]}, in the capture's world
"""
COMPARE = """\
Judges runs by the held-out views that they have in common: a table of figures, and a page that shows the same views by
each of them.

example:
  lumigraph compare run-splat run-ngp run-nerf -o compare.html
"""
EXPORT = """\
Writes a run for other programs, reads the file back and compares. Splat files keep the axes of the capture; all
else is laid upright on its ground, in metres where `lumigraph scale` has said how large the place is.

examples:
  lumigraph export run -o scene.ply                     gaussians, for splat viewers
  lumigraph export run -o scene.glb                     a mesh with a texture, for Blender, Unity, three.js
  lumigraph export run -o scene.glb --preset web        ... in a small file
  lumigraph export run -o scene.stl --preset print      a closed surface in millimetres
  lumigraph export run -o scene.usdz --as splats        gaussians for OpenUSD
  lumigraph export run -o scene.las                     points on the surface, for measuring
  lumigraph export run -o cloud.ply --as points --count 1000000 --levels 10000,100000     ... and coarser clouds
  lumigraph export run -o web/tileset.json              ... for the web, as 3D Tiles
  lumigraph export run -o scene.npz                     voxels: distances to the surface and colours
  lumigraph export --help -o scene.glb                  which settings a format has
"""
CONVERT = """\
From one file of a scene to another: what is up in the one format is up in the other, and what is lost is said. Or from
a capture to a folder that other trainers begin from.

examples:
  lumigraph convert scene.ply scene.spz         a tenth of the size
  lumigraph convert scene.sog scene.ply         for programs that know PLY alone
  lumigraph convert mesh.obj mesh.glb
  lumigraph convert capture/ folder/ --dataset transforms      photos and poses, for other trainers
"""
INSPECT = """\
Reads a file of gaussians, points or triangles, and says what is in it.

example:
  lumigraph inspect scene.spz
"""
SCALE = """\
Says how large the place of a run is; files that carry units are then in metres. Places are in the world of the capture,
as the studio shows them when it measures.

examples:
  lumigraph scale run --points 0.1,0.2,1.5 0.9,0.2,1.5 --metres 0.4      two ends of a table
  lumigraph scale run --metres 0.5                                       a unit of the capture
"""
UP = """\
Starts the studio as a server and prints its address with the token that opens it. It keeps projects and jobs in one
data folder; whatever happens to it, the next start goes on. What it understands: ADDRESS/openapi.json.

examples:
  lumigraph up
  lumigraph up --port 8080 --data /srv/lumigraph
  lumigraph up --url https://studio.example.org      behind a proxy that speaks TLS, see docs/deployment.md
"""
INFO = """\
Says which versions are installed, what this machine computes with, and what each missing extra would add.
"""


def _output(command: argparse.ArgumentParser, metavar: str, told: str) -> None:
    command.add_argument("-o", "--out", required=True, metavar=metavar, help=told)


def _quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="say nothing but results, warnings and errors")


def _set(command: argparse.ArgumentParser, whose: str) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"a setting of the {whose}; may be repeated"
    )


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _posing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--frames", type=at_least(3), default=80, metavar="N", help="taken from a video (default: 80)")
    command.add_argument("--allow-partial", action="store_true", help="accept poses of only some of the photos")


def _learning(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-m",
        "--method",
        metavar="NAME",
        help=f"how to learn: {', '.join(registry.METHODS)} (default: {registry.DEFAULT_METHOD})",
    )
    command.add_argument("--seconds", type=positive, metavar="S", help="train this long (default: by the capture)")
    command.add_argument("--steps", type=at_least(1), metavar="N", help="train this many steps")
    command.add_argument(
        "--downscale", type=shrinking, metavar="K", help="divide the photo size by K (default: to 1000 px)"
    )
    command.add_argument(
        "--holdout", type=at_least(0), metavar="N", help="hold out every N-th photo, 0: none (default: 8)"
    )
    command.add_argument("--seed", type=int, metavar="N", help="of everything random (default: 0)")
    _set(command, "method")
    _device(command)
    _quiet(command)


def triple(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"want X,Y,Z, not {text!r}") from None
    return x, y, z


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def shrinking(text: str) -> float:
    value = positive(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} would enlarge, the least is 1")
    return value


def at_least(smallest: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{text} is too small, the least is {smallest}")
        return value

    whole.__name__ = "whole number"  # argparse says: invalid whole number value
    return whole


def width_by_height(text: str) -> tuple[int, int]:
    width, by, height = text.lower().partition("x")
    if not (by and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1280x720")
    return int(width), int(height)
