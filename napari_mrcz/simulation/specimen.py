"""What the beam passes: vitreous ice with a protein in it, a carbon edge, crystalline ice.

Everything is drawn on a torus, so that the image has no seam where its sides meet.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from napari_mrcz.simulation.seeds import stream

Image = NDArray[np.float32]

_BEADS = 600  # Scatterers of one protein.
_ICE_TO_PROTEIN = 1.0  # Scattering of the ice over that of the proteins, as standard deviations.
_WAVELENGTH = 0.0197  # Angstrom, at 300 kV.
_SPHERICAL_ABERRATION = 2.7e7  # Angstrom.
_AMPLITUDE_CONTRAST = 0.1
_ENVELOPE_B = 300.0  # Angstrom squared.
_ICE_LATTICE = 3.67  # Angstrom, the strongest spacing of hexagonal and cubic ice.


@dataclass(frozen=True)
class Specimen:
    """A thin specimen; `Specimen()` is a good hole of vitreous ice.

    Parameters
    ----------
    contrast
        Standard deviation of the image of ice and particles, as a fraction of its mean.
    diameter, spacing
        Of the particles and between their centres, in angstrom. They are copies of one molecule in
        random orientations. An infinite spacing leaves the ice empty.
    thickness_variation
        Standard deviation of the ice's smooth changes in thickness, as a fraction of the mean.
    defocus
        Underfocus in micrometres.
    carbon
        Fraction of the beam that a bar of carbon film takes away; 0 is no film.
    crystals
        Fraction of the area that is crystalline ice.

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

    def __post_init__(self) -> None:
        """Refuse what cannot be in a microscope."""
        if min(self.contrast, self.thickness_variation) < 0:
            raise ValueError(f"{self}: contrast and thickness_variation are not negative")
        if min(self.diameter, self.spacing) <= 0:
            raise ValueError(f"{self}: diameter and spacing are positive")
        if not (0 <= self.carbon < 1 and 0 <= self.crystals < 1):
            raise ValueError(f"{self}: carbon and crystals are fractions below 1")


VITREOUS_ICE = Specimen()
CARBON_EDGE = Specimen(carbon=0.3)
CRYSTALLINE_ICE = Specimen(crystals=0.25)


def transmission(specimen: Specimen, shape: tuple[int, int], pixel_size: float, seed: int) -> Image:
    """Return the image of `specimen` relative to the incident dose: 1 on average in bare ice.

    Parameters
    ----------
    specimen
        What is in the beam.
    shape
        Pixels (y, x) of the torus.
    pixel_size
        In angstrom.
    seed
        Where the particles, the film and the crystals lie.
    """
    protein = _particles(specimen, shape, pixel_size, stream(seed, "particles"))
    ice = stream(seed, "ice").standard_normal(shape, np.float32)
    image = _defocused(ice * _ICE_TO_PROTEIN + protein, specimen.defocus, pixel_size)
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
    return image.clip(min=0)


def _particles(
    specimen: Specimen, shape: tuple[int, int], pixel_size: float, rng: np.random.Generator
) -> Image:
    """Return the projected proteins; those of a crowded grid keep apart, as real ones do."""
    image = np.zeros(shape, np.float32)
    step = specimen.spacing / pixel_size
    if not np.isfinite(step):
        return image
    grid = [max(int(n / step), 1) for n in shape]
    cells = np.argwhere(rng.random(grid) < 0.8)
    if not len(cells):  # a field so small that no particle came to lie in it
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


def _smooth_step(height: NDArray[np.floating]) -> Image:
    """Return 0 to 1 over a few pixels, as a Fourier shift of a sharper edge would ring."""
    step: Image = (0.5 + 0.5 * np.tanh(height)).astype(np.float32)
    return step


def _smooth_noise(shape: tuple[int, int], radius: float, rng: np.random.Generator) -> Image:
    """Return Gaussian noise of mean 0 and standard deviation 1, smooth over `radius` pixels."""
    spectrum = fft.rfft2(rng.standard_normal(shape, np.float32))
    frequency = np.hypot(fft.fftfreq(shape[0])[:, np.newaxis], fft.rfftfreq(shape[1]))
    spectrum *= np.exp(-2 * (np.pi * radius * frequency) ** 2).astype(np.float32)
    spectrum[0, 0] = 0
    noise: Image = fft.irfft2(spectrum, s=shape)
    return noise / max(float(noise.std()), 1e-9)


def _defocused(scattering: Image, defocus: float, pixel_size: float) -> Image:
    """Return the contrast of weakly scattering matter at an underfocus of `defocus` micrometres."""
    shape = scattering.shape
    y = fft.fftfreq(shape[0], pixel_size)[:, np.newaxis]
    x = fft.rfftfreq(shape[1], pixel_size)[np.newaxis, :]
    squared = (y**2 + x**2).astype(np.float32)
    underfocus = 1e4 * defocus - 0.5 * _SPHERICAL_ABERRATION * _WAVELENGTH**2 * squared
    phase = np.pi * _WAVELENGTH * underfocus * squared
    transfer = -np.sin(phase + math.asin(_AMPLITUDE_CONTRAST)) * np.exp(-_ENVELOPE_B / 4 * squared)
    contrast: Image = fft.irfft2(fft.rfft2(scattering) * transfer, s=shape)
    return contrast
