"""Drifting specimens: vitreous ice with a protein in it, a carbon edge, ice crystals.

Everything is drawn on a torus, so that the image has no seam where its sides meet. Contrast comes
from defocus, by the transfer function of Rohou and Grigorieff (2015),
doi:10.1016/j.jsb.2015.08.008, at 300 kV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.spatial.transform import Rotation

from napari_mrcz.simulation.camera import stream

Image = npt.NDArray[np.float32]

_BEADS = 600  # Scatterers of one protein
_WAVELENGTH = 0.0197  # In Å, at 300 kV
_SPHERICAL_ABERRATION = 2.7e7  # In Å: 2.7 mm
_AMPLITUDE_CONTRAST = 0.1  # Fraction of the contrast
_ENVELOPE_B = 300.0  # B factor of the contrast's fall with resolution, in Å²
_ICE_LATTICE = 3.67  # In Å: the spacing that hexagonal (002) and cubic ice (111) share


@dataclass(frozen=True)
class Specimen:
    """A thin specimen; `Specimen()` is a good hole of vitreous ice.

    Parameters
    ----------
    contrast : float
        Standard deviation of the image of ice and particles, as a fraction of its mean.
    diameter : float
        Of the particles, in Å. They are copies of one molecule in random orientations.
    spacing : float
        Between the particles' centres, in Å; an infinite one leaves the ice empty.
    thickness_variation : float
        Standard deviation of the ice's smooth changes in thickness, as a fraction of the mean.
    defocus : float
        Underfocus, in µm.
    carbon : float
        Fraction of the beam that a bar of carbon film takes away; 0 is no film.
    crystals : float
        Fraction of the area that is crystalline ice.
    fringes : float
        Amplitude of lattice fringes over the whole field, as a fraction of the mean; of a
        two-dimensional crystal, graphene, a material.
    fringe_spacing : float
        In Å.
    beads : int
        Gold beads, sharp discs.
    bead_diameter : float
        In Å.
    bead_transmission : float
        Fraction of the electrons that passes a bead.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    contrast: float = 0.06
    diameter: float = 130.0
    spacing: float = 210.0
    thickness_variation: float = 0.01
    defocus: float = 2.2
    carbon: float = 0.0
    crystals: float = 0.0
    fringes: float = 0.0
    fringe_spacing: float = 5.0
    beads: int = 0
    bead_diameter: float = 13.5
    bead_transmission: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what cannot be in a microscope."""
        if min(self.contrast, self.thickness_variation) < 0:
            raise ValueError(f"{self}: contrast and thickness_variation are not negative")
        if min(self.diameter, self.spacing) <= 0:
            raise ValueError(f"{self}: diameter and spacing are positive")
        if not (0 <= self.carbon < 1 and 0 <= self.crystals < 1):
            raise ValueError(f"{self}: carbon and crystals are fractions below 1")
        if not (0 <= self.fringes < 1 and 0 <= self.bead_transmission <= 1 and self.beads >= 0):
            raise ValueError(f"{self}: fringes and bead_transmission are fractions")
        if min(self.fringe_spacing, self.bead_diameter) <= 0:
            raise ValueError(f"{self}: fringe_spacing and bead_diameter are positive")


VITREOUS_ICE = Specimen()
CARBON_EDGE = Specimen(carbon=0.3)
CRYSTALLINE_ICE = Specimen(crystals=0.25)


def transmission(specimen: Specimen, shape: tuple[int, int], pixel_size: float, seed: int) -> Image:
    """Return the share of the incident electrons that passes a specimen, about 1 in bare ice.

    `shape`: pixels (y, x) of the torus; `pixel_size`: in Å; `seed`: of the places of particles,
    film and crystals; not negative.
    """
    protein = _particles(specimen, shape, pixel_size, stream(seed, "particles"))
    ice = stream(seed, "ice").standard_normal(shape, np.float32)
    image = _defocused(ice + protein, specimen.defocus, pixel_size)
    image *= specimen.contrast / image.std()
    absorption = np.ones(shape, np.float32)
    absorption += specimen.thickness_variation * _smooth_noise(
        shape, max(shape) / 8, stream(seed, "thickness")
    )
    if specimen.carbon:
        film = _film(shape, stream(seed, "film"))
        scattering = film * (0.3 + 2 * specimen.contrast * ice)
        image += _defocused(scattering, specimen.defocus, pixel_size)
        absorption -= specimen.carbon * film
    if specimen.crystals:
        crystals = _crystals(specimen.crystals, shape, pixel_size, stream(seed, "crystals"))
        scattering = 0.1 * _lattice(shape, pixel_size, stream(seed, "lattice")) * crystals
        image += _defocused(scattering, specimen.defocus, pixel_size)
        absorption *= 1 - 0.6 * crystals
    image = (1 + image) * absorption
    if specimen.fringes:
        image *= 1 + specimen.fringes * _fringes(
            shape, specimen.fringe_spacing / pixel_size, stream(seed, "fringes")
        )
    if specimen.beads:
        radius = specimen.bead_diameter / pixel_size / 2
        inside = _discs(shape, specimen.beads, radius, stream(seed, "beads"))
        image[inside] *= np.float32(specimen.bead_transmission)
    return image.clip(min=0)


def _fringes(shape: tuple[int, int], spacing: float, rng: np.random.Generator) -> Image:
    """Return a wave of a spacing in pixels, with whole periods round the torus, -1 to 1."""
    angle = rng.uniform(0, np.pi)
    waves = np.rint(np.array(shape) / spacing * [np.sin(angle), np.cos(angle)])
    y = waves[0] * np.arange(shape[0])[:, np.newaxis] / shape[0]
    x = waves[1] * np.arange(shape[1])[np.newaxis, :] / shape[1]
    return np.cos(2 * np.pi * (y + x)).astype(np.float32)


def _discs(
    shape: tuple[int, int], number: int, radius: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return discs around pixels, True inside."""
    inside = np.zeros(shape, np.bool_)
    reach = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    disc = np.argwhere(np.hypot(reach[:, np.newaxis], reach) <= radius) + reach[0]
    centres = rng.integers(0, shape, (number, 2))
    y, x = (centres[:, np.newaxis] + disc).reshape(-1, 2).T
    inside[y % shape[0], x % shape[1]] = True
    return inside


def _particles(
    specimen: Specimen, shape: tuple[int, int], pixel_size: float, rng: np.random.Generator
) -> Image:
    """Return projected proteins, standard deviation 1; crowded ones keep apart, as real ones do.

    They are scatterers about eight domains, in random orientations.
    """
    image = np.zeros(shape, np.float32)
    step = specimen.spacing / pixel_size
    if not np.isfinite(step):
        return image
    grid = [max(int(n / step), 1) for n in shape]
    cells = np.argwhere(rng.random(grid) < 0.8)
    # A field may be so small that no particle comes to lie in it.
    if not len(cells):
        return image
    room = max(1 - specimen.diameter / specimen.spacing, 0.0)
    centres = (cells + 0.5 + room * rng.uniform(-0.5, 0.5, cells.shape)) * step
    domains = rng.normal(scale=0.14 * specimen.diameter, size=(8, 3))
    beads = domains[rng.integers(len(domains), size=_BEADS)]
    beads = beads + rng.normal(scale=0.11 * specimen.diameter, size=beads.shape)
    turns = Rotation.from_quat(rng.standard_normal((len(cells), 4))).as_matrix()
    projected = (turns[:, :2] @ beads.T).transpose(0, 2, 1) / pixel_size
    places = np.rint(centres[:, np.newaxis] + projected).astype(np.intp).reshape(-1, 2)
    np.add.at(image, (places[:, 0] % shape[0], places[:, 1] % shape[1]), 1)
    return image / max(float(image.std()), 1e-9)


def _film(shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Return a bar of film with wavy edges over about a third of the field, 1 in the film."""
    y = 2 * np.pi * (np.arange(shape[0])[:, np.newaxis] / shape[0] + rng.random())
    x = 2 * np.pi * (np.arange(shape[1])[np.newaxis, :] / shape[1] + rng.random())
    height = np.cos(x + 0.6 * np.sin(y)) - 0.5
    return _smooth_step(height * min(shape) / 6)


def _crystals(
    area: float, shape: tuple[int, int], pixel_size: float, rng: np.random.Generator
) -> Image:
    """Return patches of varied strength over the fraction `area`, from 0 to 1."""
    height = _smooth_noise(shape, 150 / pixel_size, rng)
    level = np.quantile(height[::4, ::4], 1 - area)
    edges = _smooth_step((height - level) * 80 / pixel_size)
    return edges * (0.3 + 0.7 * _smooth_step(_smooth_noise(shape, 60 / pixel_size, rng)))


def _lattice(shape: tuple[int, int], pixel_size: float, rng: np.random.Generator) -> Image:
    """Return the lattice fringes of ice, hexagonal; none where the pixels are too coarse."""
    image = np.zeros(shape, np.float32)
    if pixel_size * 2 >= _ICE_LATTICE:
        return image
    angle = rng.uniform(0, np.pi / 3)
    for direction in angle + np.arange(3) * np.pi / 3:
        # Whole periods round the torus, or its seam would show.
        waves = np.array(shape) * pixel_size / _ICE_LATTICE
        waves = np.rint(waves * [np.sin(direction), np.cos(direction)])
        y = np.exp(2j * np.pi * waves[0] / shape[0] * np.arange(shape[0])).astype(np.complex64)
        x = np.exp(2j * np.pi * waves[1] / shape[1] * np.arange(shape[1])).astype(np.complex64)
        image += np.outer(y, x).real
    return image


def _smooth_step(height: npt.NDArray[np.floating]) -> Image:
    """Return 0 to 1 over a few pixels, as a Fourier shift of a sharper edge would ring."""
    return (0.5 + 0.5 * np.tanh(height)).astype(np.float32)


def _smooth_noise(shape: tuple[int, int], radius: float, rng: np.random.Generator) -> Image:
    """Return Gaussian noise of mean 0 and standard deviation 1, smooth over `radius` pixels."""
    spectrum = fft.rfft2(rng.standard_normal(shape, np.float32))
    frequency = np.hypot(fft.fftfreq(shape[0])[:, np.newaxis], fft.rfftfreq(shape[1]))
    spectrum *= np.exp(-2 * (np.pi * radius * frequency) ** 2).astype(np.float32)
    spectrum[0, 0] = 0
    noise: Image = fft.irfft2(spectrum, s=shape)
    return noise / max(float(noise.std()), 1e-9)


def _defocused(scattering: Image, defocus: float, pixel_size: float) -> Image:
    """Return the contrast of weakly scattering matter at an underfocus of `defocus` µm.

    Rohou and Grigorieff (2015), doi:10.1016/j.jsb.2015.08.008, without astigmatism, times an
    envelope; `pixel_size` in Å.
    """
    shape = scattering.shape
    y = fft.fftfreq(shape[0], pixel_size)[:, np.newaxis]
    x = fft.rfftfreq(shape[1], pixel_size)[np.newaxis, :]
    squared = (y**2 + x**2).astype(np.float32)
    underfocus = 1e4 * defocus - 0.5 * _SPHERICAL_ABERRATION * _WAVELENGTH**2 * squared
    phase = np.pi * _WAVELENGTH * underfocus * squared
    transfer = -np.sin(phase + math.asin(_AMPLITUDE_CONTRAST)) * np.exp(-_ENVELOPE_B / 4 * squared)
    return fft.irfft2(fft.rfft2(scattering) * transfer, s=shape)


# Pixels of the torus beyond the frame: half on each side, more than a drift.
_MARGIN = 64


class Scene:
    """The moving image of a specimen, relative to the incident dose; see `transmission`."""

    def __init__(
        self, specimen: Specimen, shape: tuple[int, int], pixel_size: float, seed: int
    ) -> None:
        self.shape = shape
        self._torus = (
            fft.next_fast_len(shape[0] + _MARGIN, real=True),
            fft.next_fast_len(shape[1] + _MARGIN, real=True),
        )
        self._spectrum = fft.rfft2(transmission(specimen, self._torus, pixel_size, seed))

    def averaged(self, drift: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the mean image (y, x) over displacements (n, 2) by (y, x) pixels."""
        y, x = self._torus
        ramp_y = np.exp(-2j * np.pi * drift[:, :1] * fft.fftfreq(y)) / len(drift)
        ramp_x = np.exp(-2j * np.pi * drift[:, 1:] * fft.rfftfreq(x))
        ramp = ramp_y.astype(np.complex64).T @ ramp_x.astype(np.complex64)
        image = fft.irfft2(self._spectrum * ramp, s=self._torus)
        top, left = (y - self.shape[0]) // 2, (x - self.shape[1]) // 2
        frame = image[top : top + self.shape[0], left : left + self.shape[1]]
        # A steep edge rings a little; a beam is never negative.
        return frame.clip(min=0)


def drift_path(n_frames: int, length: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a specimen's path under the beam: fast at first, then slower, slightly bent.

    The result has shape (n_frames, 2): displacements (y, x) from the first frame, in pixels.
    `length`: of the whole path, in pixels; `rng`: draws the direction and the bend.
    """
    if n_frames == 1:
        return np.zeros((1, 2))
    progress = np.linspace(0, 1, n_frames)[1:]
    speed = 0.25 + np.exp(-progress / 0.2)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.5, 1.5) * progress
    steps = speed[:, np.newaxis] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return path * (length / float(speed.sum()))
