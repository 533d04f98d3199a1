"""``circsde train``: a score model of angles or of images, and the folder that it leaves."""

import time
from pathlib import Path
from typing import Annotated

from circsde.commands import console, options
from circsde.commands.answer import Answer
from circsde.commands.options import DATA, OUTPUT, flag, option
from circsde.commands.training import ObjectiveName, Preset, ProcessName, RatesName

MODEL, IMAGES, TRAINING = "Model", "Images", "Training"

EPOCHS, UPDATES, SECONDS = 40, 500, 300.0
"""The epochs and updates per epoch by default; and the time, instead, where tables of angles are trained on."""

OF_TABLES = ("held_out", "attraction", "smallest_noise", "width", "depth", "harmonics")
OF_ANGLES = ("unit", "columns", "drop_missing", "missing", "along", "phases", *OF_TABLES)
OF_PICTURES = ("size", "colour", "scale", "encode", "mirror", "turn", "strict", "cache", "classes")
OF_IMAGES = ("preset", "radius", "rates", "crop", "sheets", *OF_PICTURES)
"""Options that have no meaning for another kind of data."""

EXAMPLES = """
[bold]Examples[/]

Lysine torsions by wrapped diffusion, the test rows left out:

  [cyan]circsde train torsion:lys --out runs/lys[/]

Two columns of a table, attracted to their mean directions; a short training:

  [cyan]circsde train angles.csv --unit deg --columns phi,psi --process reference --epochs 10 --out runs/mine[/]

Windows of a texture, coupled to their neighbours, for four minutes:

  [cyan]circsde train texture:brick --process local --crop 64 --size 32 --seconds 240 --out runs/brick[/]

Then [cyan]circsde sample runs/brick -n 64[/], or [cyan]circsde sample runs/lys -n 1000[/],
[cyan]circsde loglik runs/lys torsion:lys/test[/] and [cyan]circsde diagnose runs/lys[/].
"""


@console.command
def train(
    source: options.TableOrImages,
    out: Annotated[Path, option(OUTPUT, "The folder of the run; a run in it is resumed.", "--out", metavar="RUN")],
    unit: options.Unit = None,
    columns: options.Columns = None,
    drop_missing: options.DropMissing = False,
    held_out: Annotated[float, option(DATA, "The fraction of rows for validation; it is fixed for torsions.")] = 0.1,
    missing: options.Missing = None,
    along: options.Along = None,
    phases: options.OfComplex = False,
    process: Annotated[
        ProcessName,
        option(
            MODEL,
            "diffusion is noise alone, reference adds attraction, global adds coupling too. Images: also local"
            " coupling, and standard, which has no phases.",
        ),
    ] = ProcessName.DIFFUSION,
    attraction: Annotated[float, option(MODEL, "Angles: the ratio of K_ref, and of K if coupled, to D.")] = 1.0,
    objective: Annotated[ObjectiveName, option(MODEL, "The target of the regression.")] = ObjectiveName.BEST,
    smallest_noise: Annotated[float, option(MODEL, "Angles: the smallest detail to resolve, rad.")] = 0.1,
    steps: Annotated[int, option(MODEL, "The number of steps of the forward chain.", least=2)] = 100,
    width: Annotated[int, option(MODEL, "Angles: the number of units in a layer.", least=1)] = 256,
    depth: Annotated[int, option(MODEL, "Angles: the number of residual blocks.", least=1)] = 4,
    harmonics: Annotated[int, option(MODEL, "Angles: the number of harmonics that the network reads.", least=1)] = 4,
    preset: Annotated[Preset, option(IMAGES, "The size of the U-Net: 0.6, 4 or 36 million parameters.")] = Preset.TINY,
    radius: Annotated[
        int | None, option(IMAGES, "The radius of the window of local coupling; by default 5.", least=1)
    ] = None,
    rates: Annotated[
        RatesName | None,
        option(
            IMAGES,
            "The rates of coupling, attraction, noise; by default settling for attracted grey phases, else published.",
        ),
    ] = None,
    crop: options.Crop = None,
    size: options.Size = None,
    colour: options.Colours = options.Colour.GREY,
    scale: options.ScaleByRates = None,
    encode: Annotated[
        options.Encode, option(IMAGES, "Let phases be grey values, or doubled orientations of ridges.")
    ] = options.Encode.GREY,
    mirror: Annotated[bool, flag(IMAGES, "Mirror every second window.", "--mirror")] = False,
    turn: Annotated[bool, flag(IMAGES, "Turn windows by quarter turns.", "--turn")] = False,
    strict: Annotated[bool, flag(IMAGES, "Refuse the set if an image cannot be used.", "--strict")] = False,
    cache: Annotated[
        Path | None, option(IMAGES, "A folder for a file of all pixels, which is mapped into memory.")
    ] = None,
    classes: Annotated[
        bool, flag(IMAGES, "Learn classes too: the folders, or those of CIFAR-10, Brodatz and SOCOFing.", "--classes")
    ] = False,
    sheets: Annotated[
        int | None, option(IMAGES, "Draw samples to RUN/sheets whenever so many epochs are done.", least=1)
    ] = None,
    epochs: Annotated[
        int | None, option(TRAINING, f"The number of epochs, {EPOCHS}; each ends with a checkpoint.", least=1)
    ] = None,
    updates: Annotated[int | None, option(TRAINING, f"The number of updates in an epoch, {UPDATES}.", least=1)] = None,
    seconds: Annotated[
        float | None,
        option(
            TRAINING,
            "Train for this time instead, preparation included, with short epochs. The default for angles is 300,"
            " unless epochs, updates or patience are given.",
        ),
    ] = None,
    batch: Annotated[
        int | None, option(TRAINING, "The number of pairs in an update; by default 256, or 64 for images.", least=1)
    ] = None,
    learning_rate: Annotated[float | None, option(TRAINING, "Its peak; by default 0.001, or 0.002 for images.")] = None,
    patience: Annotated[
        int | None, option(TRAINING, "Stop after this many epochs without improvement.", least=1)
    ] = None,
    device: options.Device = options.DeviceName.AUTO,
    seed: options.Seed = 0,
) -> Answer:
    """Learn the score of a table of angles or of images, for samples and likelihoods.

    You can stop it at any time: the same command resumes from the last epoch.
    """
    given = dict(locals())
    begin = time.monotonic()
    if seconds is not None:
        options.refuse(train, given, ("epochs", "updates"), "with --seconds the time ends training: leave one out")
    options.check_positive(learning_rate=learning_rate, seconds=seconds, attraction=attraction)
    for folder in (out, *([] if cache is None else [cache])):
        console.check_folder(folder)

    from circsde.commands import angles, train_angles, train_images
    from circsde.data.image_sources import holds_images
    from circsde.models.settings import Settings

    are_pictures = holds_images(source, unit)
    if not are_pictures and process is ProcessName.DIFFUSION:
        options.refuse(train, given, ("attraction",), "the process diffusion attracts to nothing: take reference")
    if source.startswith("torsion:") and "/" not in source:
        options.refuse(train, given, ("held_out",), "the rows of torsions that validate are fixed")
    reading = angles.Reading(unit, columns, drop_missing, missing, along, phases)
    tiles = options.size(crop) if drop_missing else None  # a field gives tiles without a gap, or windows
    data = None if are_pictures else angles.read(source, reading, tiles=tiles)
    is_field = data is not None and data.theta.ndim > 2
    is_images = data is None or is_field
    if not is_images and (seconds, epochs, updates, patience) == (None, None, None, None):
        seconds = SECONDS
    settings = Settings(
        EPOCHS if epochs is None else epochs,
        25 if seconds is not None else UPDATES if updates is None else updates,
        (64 if is_images else 256) if batch is None else batch,
        (2e-3 if is_images else 1e-3) if learning_rate is None else learning_rate,
        warmup=100 if is_images else 500,
        averaging=0.99 if is_images and seconds is not None else 0.999,
        patience=patience,
        pool=32 if is_images else 8,
        stride=5 if is_images else 10,  # a path is used 20 times; a network would overfit to fewer paths
        seed=seed,
        seconds=seconds,
    )
    place = out, options.device(device)
    if is_images:
        if is_field:
            options.refuse(train, given, OF_TABLES, f"for tables of angles, and {source} holds fields of phases")
            options.refuse(train, given, OF_PICTURES, f"for images, and {source} holds fields of phases")
        else:
            options.refuse(train, given, OF_ANGLES, f"for tables of angles, and {source} holds images")
        if encode is options.Encode.ORIENTATION and scale is not None:
            raise ValueError("scale is of grey values, and phases are to be orientations: leave it out")
        encoding: train_images.Encoded = "phase" if is_field else encode.value
        forward = train_images.Forward.chosen(process, radius, steps, rates, objective, encoding)
        windows = train_images.Windows(
            source=source,
            crop=crop,
            size=size,
            colour=colour.value,
            scale=1.0 if is_field else forward.scale(scale),
            mirror=mirror,
            turn=turn,
            strict=strict,
            cache=cache,
            encode=encoding,
            classes=classes,
            reading=reading.described,
            loaded=data,
        )
        if process is ProcessName.STANDARD:
            options.refuse(train, given, ("steps",), "of a chain of phases, and the standard diffusion has none")
            if objective not in (ObjectiveName.BEST, ObjectiveName.DENOISING):
                raise ValueError(f"--objective {objective}: the standard diffusion is trained by denoising")
        return train_images.fit(windows, forward, objective, preset, settings, sheets, *place, begin)
    options.refuse(train, given, OF_IMAGES, f"for images, and {source} is a table of angles")
    assert data is not None
    table = train_angles.Table(source, reading, data, held_out)
    model = train_angles.Model(process, attraction, smallest_noise, steps, width, depth, harmonics)
    return train_angles.fit(table, model, objective, settings, *place, begin)
