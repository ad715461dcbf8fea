"""Convert high dynamic range (HDR) to standard range: HLG and PQ to BT.709. Refuse other wide codings.

Both curves are decoded to display light as in Rec. ITU-R BT.2408: diffuse white is 203 cd/m2, and an HLG
display peaks at 1000 cd/m2. Colours are exact up to nine tenths of diffuse white. Brighter highlights are
compressed. The results are coded with the sRGB curve.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from numpy.typing import NDArray

from reprise.video.errors import BadVideoError

SDR, HLG, PQ = "sdr", "hlg", "pq"

_TRANSFERS = {int(ColorTrc.SMPTE2084): PQ, int(ColorTrc.ARIB_STD_B67): HLG}
_BT2020_NCL = int(Colorspace.BT2020)
_UNSPECIFIED = 2
# AVColorSpace numbers.
_REFUSED_MATRICES = {
    10: "constant luminance",
    13: "constant luminance",
    14: "ICtCp",
    15: "IPT (Dolby Vision)",
}
_DOLBY_TAGS = ("dvh1", "dvhe", "dva1", "dvav", "dav1")
_WHITE = 203.0  # cd/m2, BT.2408 table 1
_HLG_PEAK = 1000.0  # cd/m2
_KNEE = 0.9  # of diffuse white, linear
_LUT_SIDE = 33
_RGB10 = "gbrp10le"

# Linear RGB to BT.709 primaries: from BT.2020 (BT.2087), and from Display P3.
_TO_BT709 = {
    int(ColorPrimaries.BT2020): (
        (1.6605, -0.5876, -0.0728),
        (-0.1246, 1.1329, -0.0083),
        (-0.0182, -0.1006, 1.1187),
    ),
    int(ColorPrimaries.SMPTE432): (
        (1.2249, -0.2247, 0.0),
        (-0.0420, 1.0419, 0.0),
        (-0.0197, -0.0786, 1.0979),
    ),
    int(ColorPrimaries.BT709): ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


def get_transfer(frame: VideoFrame) -> str:
    """Return how a frame's light is coded: sdr, hlg or pq."""
    return _TRANSFERS.get(int(frame.color_trc), SDR)


def check_colours(frame: VideoFrame, codec_tag: str) -> None:
    """Refuse a frame whose colours cannot be converted correctly.

    Args:
        frame: as decoded.
        codec_tag: four-character code of the stream; it identifies Dolby Vision.

    Raises:
        BadVideoError: no conversion to RGB is known for the colour matrix.
    """
    matrix = _REFUSED_MATRICES.get(int(frame.colorspace))
    if matrix is None and codec_tag in _DOLBY_TAGS and int(frame.color_trc) == _UNSPECIFIED:
        matrix = _REFUSED_MATRICES[15]
    if matrix:
        raise BadVideoError(f"its colours ({matrix}) cannot be converted: convert it to BT.709 first")


class SdrConverter:
    """Converts HDR frames of one video to 8-bit 4:2:0 BT.709.

    It keeps its filters, which are slow to build.
    """

    def __init__(self) -> None:
        self._to_rgb, self._to_yuv = VideoReformatter(), VideoReformatter()
        self._graph: Graph | None = None
        self._key: tuple[int, int, str, int] | None = None

    def convert_frame(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame in standard range; a standard frame is returned unchanged."""
        transfer = get_transfer(frame)
        if transfer == SDR:
            return frame
        matrix = _BT2020_NCL if int(frame.colorspace) == _UNSPECIFIED else int(frame.colorspace)
        rgb = self._to_rgb.reformat(frame, format=_RGB10, src_colorspace=matrix, threads=1)
        key = (frame.width, frame.height, transfer, int(frame.color_primaries))
        if self._graph is None or key != self._key:
            self._graph, self._key = _build_graph(*key), key
        rgb.pts = None
        self._graph.push(rgb)
        mapped = self._graph.pull()
        assert isinstance(mapped, VideoFrame)
        converted = self._to_yuv.reformat(
            mapped,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        converted.color_range, converted.colorspace = ColorRange.MPEG, Colorspace.ITU709
        converted.color_primaries, converted.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return converted


def convert_to_srgb(code: NDArray[np.float64], transfer: str, primaries: int) -> NDArray[np.float64]:
    """Map HDR RGB to sRGB.

    Args:
        code: (..., 3) coded RGB, 0..1.
        transfer: hlg or pq.
        primaries: AVColorPrimaries; unknown values count as BT.2020.

    Returns:
        (..., 3) sRGB, 0..1.
    """
    light = (_decode_pq(code) if transfer == PQ else _decode_hlg(code)) / _WHITE
    matrix = np.array(_TO_BT709.get(primaries, _TO_BT709[int(ColorPrimaries.BT2020)]))
    light = np.clip(light @ matrix.T, 0, None)
    peak = light.max(axis=-1, keepdims=True)
    above = np.clip((peak - _KNEE) / (1 - _KNEE), 0, None)
    compressed = np.where(peak > _KNEE, _KNEE + (1 - _KNEE) * above / (1 + above), peak)
    light = np.clip(light * compressed / np.maximum(peak, 1e-9), 0, 1)
    return np.asarray(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def _decode_pq(code: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decode PQ to cd/m2 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = code ** (1 / m2)
    return np.asarray(10_000 * (np.clip(power - c1, 0, None) / (c2 - c3 * power)) ** (1 / m1))


def _decode_hlg(code: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decode HLG to cd/m2 on a display of 1000 cd/m2: inverse OETF, OOTF of gamma 1.2 (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene: NDArray[np.float64] = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    luminance = scene @ np.array((0.2627, 0.6780, 0.0593))
    return np.asarray(_HLG_PEAK * scene * np.maximum(luminance, 1e-9)[..., None] ** 0.2)


@lru_cache(maxsize=4)
def _make_cube(transfer: str, primaries: int) -> str:
    """Return `convert_to_srgb` as an Adobe .cube table, in which red changes fastest."""
    steps = np.linspace(0, 1, _LUT_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    table = convert_to_srgb(np.stack([red, green, blue], axis=-1).reshape(-1, 3), transfer, primaries)
    lines = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in table.tolist())
    return f"LUT_3D_SIZE {_LUT_SIDE}\n{lines}\n"


def _build_graph(width: int, height: int, transfer: str, primaries: int) -> Graph:
    with tempfile.TemporaryDirectory(prefix="reprise-") as folder:
        cube = Path(folder) / "to_sdr.cube"
        cube.write_text(_make_cube(transfer, primaries))
        graph = Graph()
        source = graph.add_buffer(
            width=width, height=height, format=VideoFormat(_RGB10), time_base=Fraction(1, 1000)
        )
        graph.link_nodes(
            source, graph.add("lut3d", file=str(cube), interp="tetrahedral"), graph.add("buffersink")
        ).configure()
    return graph
