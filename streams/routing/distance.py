"""Distances on the sphere from unit vectors: a squared chord per candidate, a great circle for the few that are kept.

The squared chord grows with the great circle, so candidates are compared by it, with no trigonometry. Its error is a few
units in the last place of 4, which is under a micrometre for near places and 0.3 m at the antipode.
Owner: nobody; pure functions.
Not here: who may ship (candidates.py).
"""

import math

from topics.compiled.kernels import kernel

EARTH_RADIUS_M = 6_371_008.8


@kernel
def unit_vector(latitude, longitude):
    """Place a point on the unit sphere.

    Parameters
    ----------
    latitude, longitude : float
        Degrees.

    Returns
    -------
    tuple of float
        x, y, z.

    Examples
    --------
    >>> [round(v, 6) for v in unit_vector(0.0, 90.0)]
    [0.0, 1.0, 0.0]
    """
    phi, theta = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)


@kernel
def squared_chord(place, x, y, z):
    """Squared straight line through the unit sphere between a location row and a unit vector (0 to 4)."""
    u, v, w = place.x - x, place.y - y, place.z - z
    return u * u + v * v + w * w


@kernel
def metres(chord2):
    """Great circle of a squared chord, in metres.

    Examples
    --------
    >>> round(metres(2.0))  # a quarter of the equator
    10007557
    """
    return 2.0 * EARTH_RADIUS_M * math.asin(min(1.0, 0.5 * math.sqrt(chord2)))


@kernel
def window(chord2, margin_m):
    """Squared chord that surely reaches past all places at most `margin_m` farther than `chord2`; metres() decides exactly."""
    reach = math.sqrt(chord2) + 1.1 * margin_m / EARTH_RADIUS_M
    return reach * reach + 1e-15
