"""The table of docs/files.md holds: each file, written as its package writes it, is read rightly by the line there."""

import io
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.signal
import tifffile
import torch
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from skimage.feature import structure_tensor

from circsde.data import Phases, load
from circsde.torus import distance

ROWS = re.findall(
    r"^\| (.+?) \| .* \| `(load\(.*\))` \|$",
    (Path(__file__).resolve().parents[1] / "docs" / "files.md").read_text(),
    flags=re.MULTILINE,
)
RNG = np.random.default_rng(0)
ANGLES = RNG.uniform(-math.pi, math.pi, (12, 2)).round(4)  # radians; 12 frames, rows or times
DEGREES = np.rad2deg(ANGLES)
FRAME = pd.DataFrame(DEGREES, columns=["phi", "psi"])
Written = NDArray[np.float64]


def mdtraj() -> Written:
    """An array of shape (frames, residues)."""
    phi = RNG.uniform(-math.pi, math.pi, (12, 5)).astype(np.float32)
    np.save("phi.npy", phi)
    return phi.astype(np.float64)


def mdtraj_residues() -> Written:
    """Residues 1 to 6: phi has columns 2, ..., 6 and psi 1, ..., 5."""
    phi, psi = RNG.uniform(-math.pi, math.pi, (2, 12, 6))
    np.savez("residues.npz", phi=phi[:, 1:][:, :-1].ravel(), psi=psi[:, :-1][:, 1:].ravel())
    return np.stack([phi[:, 1:5].ravel(), psi[:, 1:5].ravel()], axis=1)


def mdanalysis() -> Written:
    """Frames, residues, phi and psi."""
    angles = RNG.uniform(-180.0, 180.0, (12, 3, 2))
    np.save("rama.npy", angles)
    return np.deg2rad(angles)


def biotite() -> Written:
    """The first residue has no phi, the last no psi."""
    phi, psi, omega = RNG.uniform(-math.pi, math.pi, (3, 12)).astype(np.float32)
    phi[0] = psi[-1] = omega[-1] = math.nan
    np.savez("backbone.npz", phi=phi, psi=psi, omega=omega)
    return np.stack([phi, psi], axis=1)[1:-1].astype(np.float64)


def gromacs() -> Written:
    """Remarks, settings of a plot, and the residue's name at the end of a line."""
    head = '# This file was created by gmx rama\n@    title "Ramachandran Plot"\n@TYPE xy\n@    s0 symbol 2\n'
    Path("rama.xvg").write_text(head + "".join(f"{a:g}  {b:g}  ALA-{i}\n" for i, (a, b) in enumerate(DEGREES.round(3))))
    return np.deg2rad(DEGREES.round(3))


def ecsv(name: str, unit: str, values: NDArray[np.float64]) -> None:
    head = ["%ECSV 1.0", "---", "datatype:", f"- {{name: pa, unit: {unit}, datatype: float64}}"]
    head += ["- {name: id, datatype: int64}", "schema: astropy-2.0"]
    rows = ["" if math.isnan(value) else repr(float(value)) for value in values]
    lines = [*(f"# {line}" for line in head), "pa id", *(f"{row or chr(34) * 2} {i + 5}" for i, row in enumerate(rows))]
    Path(name).write_text("\n".join(lines))


def astropy() -> Written:
    """A masked cell is an empty pair of quotes."""
    ecsv("positions.ecsv", "deg", np.where(np.arange(12) == 4, math.nan, DEGREES[:, 0]))
    return np.delete(ANGLES[:, :1], 4, axis=0)


def astropy_hours() -> Written:
    ecsv("stars.ecsv", "hourangle", DEGREES[:, 1] / 15.0)
    return ANGLES[:, 1:]


def orix() -> Written:
    """Three Euler angles, a place, an image quality; the fifth point was not indexed."""
    euler = np.mod(ANGLES[:, [0, 0, 1]], [2 * math.pi, math.pi, 2 * math.pi])
    euler[4] = 4.0 * math.pi
    rows = [" ".join(f"{number:8.5f}" for number in (*angles, i, 0.0, 90.0)) for i, angles in enumerate(euler)]
    Path("map.ang").write_text("# TEM_PIXperUM          1.000000\n# GRID: SqrGrid\n#\n" + "\n".join(rows))
    return np.delete(ANGLES, 4, axis=0)


def opencv() -> Written:
    """A whole turn is written as such."""
    phase = np.mod(DEGREES, 360.0).astype(np.float32)
    phase[0, 0] = 360.0
    np.save("phase.npy", phase[None])
    return np.deg2rad(phase[None].astype(np.float64))


def scikit_image() -> Written:
    """Orientations, half the angle of the doubled orientation, whose double is the phase."""
    image = np.add.outer(np.arange(24.0), np.arange(24.0)) + RNG.normal(size=(24, 24))
    rr, rc, cc = map(np.asarray, structure_tensor(image, sigma=2.0, order="rc"))  # type: ignore[no-untyped-call]
    orientation: Written = 0.5 * np.arctan2(2.0 * rc, rr - cc)
    assert np.abs(orientation).max() <= math.pi / 2
    np.save("orientation.npy", orientation[None])
    return 2.0 * orientation[None]


def pillow() -> Written:
    """Colours of a wheel, whose hue is counted in 255 steps."""
    wheel = np.zeros((6, 8, 3), dtype=np.uint8)
    wheel[..., 0] = np.arange(48).reshape(6, 8) * 5
    wheel[..., 1:] = 255
    hue = np.asarray(Image.fromarray(wheel, mode="HSV").convert("RGB").convert("HSV"))[..., 0]
    np.save("hue.npy", hue[None])
    return hue[None] * (2.0 * math.pi / 255.0)


def rasterio() -> Written:
    """Floats and GDAL's tag for missing; the tile of the flat cell is left out."""
    aspect = RNG.uniform(0.0, 360.0, (8, 12)).astype(np.float32)
    aspect[0, 0] = -9999.0
    tifffile.imwrite("aspect.tif", aspect, extratags=[(42113, "s", 0, "-9999", True)])
    tiles = aspect.reshape(2, 4, 3, 4).swapaxes(1, 2).reshape(-1, 4, 4)
    return np.deg2rad(tiles[1:].astype(np.float64))


def nibabel() -> Written:
    """Stored as it is scaled, to half a step."""
    module = pytest.importorskip("nibabel")
    stored = RNG.integers(-2048, 2048, (4, 5, 3)).astype(np.int16)
    image = module.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(math.pi / 2048.0, 0.0)
    module.save(image, "phase.nii.gz")
    read = np.asarray(module.load("phase.nii.gz").get_fdata(), dtype=np.float64)
    return np.moveaxis(read, -1, 0)


def scipy_hilbert() -> Written:
    """Two channels at 200 times."""
    signal = np.stack([np.cos(np.arange(200) * rate) for rate in (0.3, 0.5)])
    np.save("analytic.npy", scipy.signal.hilbert(signal))
    return np.asarray(np.angle(scipy.signal.hilbert(signal)).T, dtype=np.float64)


def scipy_matlab() -> Written:
    scipy.io.savemat("vectors.mat", {"phi": ANGLES[:, 0], "psi": ANGLES[:, 1]})
    return ANGLES


def kuramoto() -> Written:
    """Two nodes at 50 times, many turns."""
    theta = np.outer([3.0, 7.0], np.linspace(0.0, 30.0, 50))
    np.save("kuramoto.npy", theta)
    return theta.T


def numpy_text() -> Written:
    np.savetxt("angles.txt", DEGREES)
    return ANGLES


def pandas_csv() -> Written:
    FRAME.drop(3).reindex(range(12)).to_csv("pandas.csv")
    return np.delete(ANGLES, 3, axis=0)


def pandas_comma() -> Written:
    FRAME.to_csv("comma.csv", sep=";", decimal=",")
    return ANGLES


def pandas_times() -> Written:
    """Seconds of a day, as times."""
    seconds = RNG.integers(0, 86_400, 12)
    times = pd.Series(pd.to_datetime(seconds, unit="s").time, name="onset")
    times.to_csv("times.csv", index=False)
    return np.asarray(seconds * (2.0 * math.pi / 86_400), dtype=np.float64)[:, None]


def r_rows(separator: str, corner: bool) -> str:
    head = (['""'] if corner else []) + ['"phi"', '"psi"']
    rows = [[f'"{i + 1}"', *("NA" if i == 3 else f"{number:.15g}" for number in row)] for i, row in enumerate(DEGREES)]
    return "".join(separator.join(row) + "\n" for row in [head, *rows])


def r_csv() -> Written:
    Path("R.csv").write_text(r_rows(",", corner=True))
    expected = np.delete(ANGLES, 3, axis=0)
    other = io.StringIO(r_rows(";", corner=True).replace(".", ","))  # write.csv2
    Path("R2.csv").write_text(other.getvalue())
    assert torch.equal(
        load("R2.csv", unit="deg", drop_missing=True).theta, load("R.csv", unit="deg", drop_missing=True).theta
    )
    return expected


def r_table() -> Written:
    Path("R.txt").write_text(r_rows(" ", corner=False))
    return np.delete(ANGLES, 3, axis=0)


def xarray_record() -> Written:
    time = pd.date_range("2026-01-01", periods=12, freq="h")
    wind = xr.DataArray(DEGREES[:, 0] % 360.0, {"time": time}, ("time",), "wind", {"units": "degree_true"})
    wind.to_dataset().to_netcdf("record.nc")
    return ANGLES[:, :1]


def xarray_converted() -> Written:
    radians = xr.DataArray(np.deg2rad(DEGREES[:, 0]), dims="row", attrs={"units": "degree"})  # as it keeps the unit
    radians.to_dataset(name="wind").to_netcdf("converted.nc")
    return ANGLES[:, :1]


def netcdf4_weather() -> Written:
    """Tenths of a degree; the second is not valid, the last was never written."""
    with netCDF4.Dataset("weather.nc", "w") as file:
        file.createDimension("station", 13)
        wind = file.createVariable("wind", "i2", ("station",))
        about = {"units": "degree_true", "scale_factor": 0.1, "valid_range": np.array([0, 3600], dtype=np.int16)}
        wind.setncatts(about)
        degrees = (DEGREES[:, 0] % 360.0).round(1)
        degrees[1] = -99.9
        wind[:12] = degrees
    return np.deg2rad(np.delete(degrees, 1))[:, None]


WRITERS: dict[str, Callable[[], Written]] = {
    "mdtraj 1.11, `compute_phi`": mdtraj,
    "mdtraj 1.11, two of one residue": mdtraj_residues,
    "MDAnalysis 2.11, `Ramachandran`": mdanalysis,
    "biotite 1.6, `dihedral_backbone`": biotite,
    "GROMACS, `gmx rama`": gromacs,
    "astropy 8.0, `Table.write`": astropy,
    "astropy 8.0, hour angles": astropy_hours,
    "orix 0.15, EBSD maps": orix,
    "OpenCV 5.0, `cv2.phase` in degrees": opencv,
    "scikit-image 0.26, orientation of a structure tensor": scikit_image,
    "Pillow 13.0, hue": pillow,
    "rasterio 1.4, aspect of a slope": rasterio,
    "nibabel 5.4, phase of a scan": nibabel,
    "scipy 1.17, `signal.hilbert`": scipy_hilbert,
    "scipy 1.17, `savemat`": scipy_matlab,
    "kuramoto 0.4, `run`": kuramoto,
    "numpy 2.4, `savetxt`": numpy_text,
    "pandas 3.1, `to_csv`": pandas_csv,
    'pandas 3.1, `to_csv(sep=";", decimal=",")`': pandas_comma,
    "pandas 3.1, times of day": pandas_times,
    "R, `write.csv`, `write.csv2`": r_csv,
    "R, `write.table`": r_table,
    "xarray 2026.9, a record over time": xarray_record,
    "xarray 2026.9, `np.deg2rad` of an array": xarray_converted,
    "netCDF4 1.7, weather": netcdf4_weather,
}


def test_every_row_of_the_table_has_its_writer() -> None:
    assert [name for name, _ in ROWS] == list(WRITERS)


@pytest.mark.parametrize(("name", "line"), ROWS, ids=[name for name, _ in ROWS])
def test_the_line_reads_what_the_package_writes(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = WRITERS[name]()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        phases = eval(line, {"load": load, "math": math})
    assert [str(each.message) for each in said if "states the unit" not in str(each.message)] == []
    assert bool(said) == (name == "xarray 2026.9, `np.deg2rad` of an array")
    assert isinstance(phases, Phases)
    assert phases.theta.shape == expected.shape
    tolerance = (
        1e-5 if name.startswith(("orix", "kuramoto")) else 3e-6
    )  # five decimals; rounding of 200 rad; of float32
    assert distance(phases.theta, torch.from_numpy(expected).float()).max() < tolerance
