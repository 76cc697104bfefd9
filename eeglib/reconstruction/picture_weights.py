"""Weight files of published networks: found, read without running anything, and fitted in.

Used by `eeglib.reconstruction.picture_backbones` (chapter 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class BackboneError(RuntimeError):
    """A network that cannot be had; the message says what was tried and what to do."""


@dataclass(frozen=True)
class Source:
    """Where weights come from; see `load_backbone`."""

    folder: Path | None
    pretrained: bool

    def state(self, url: str, check_hash: bool = True) -> dict[str, torch.Tensor]:
        """Read the tensors of a published weight file, and nothing but tensors.

        Raises
        ------
        BackboneError
            If the file is absent, cannot be downloaded or is damaged.
        """
        import torch

        file = url.rsplit("/", 1)[-1]
        advice = f"Download {url} on a machine that can, and name its folder in pictures.weights."
        if self.folder is not None and not (self.folder / file).is_file():
            raise BackboneError(f"{self.folder} holds no {file}. {advice}")
        try:
            if self.folder is not None:
                return torch.load(self.folder / file, map_location="cpu", weights_only=True)
            return torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=check_hash, weights_only=True, progress=False
            )
        except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
            raise BackboneError(f"{file} cannot be used: {error}. {advice}") from None
        except Exception as error:  # UnpicklingError: content that is not tensors
            raise BackboneError(f"{file} is not a file of weights: {error}. {advice}") from None


def filled(
    network: torch.nn.Module, state: dict, what: str, extra: tuple[str, ...] = ()
) -> torch.nn.Module:
    """Put weights into a network.

    Parameters
    ----------
    network : torch.nn.Module
    state : dict
        From `Source.state`.
    what : str
        How an error calls the network.
    extra : tuple of str
        Beginnings of keys that the file may have beyond the network's; a network that had its
        head replaced in training also lacks ``fc``.

    Raises
    ------
    BackboneError
        If keys or shapes do not fit.
    """
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BackboneError(f"The weights do not fit {what}: {error}") from None
    unexpected = [key for key in unexpected if not key.startswith(extra)]
    missing = [key for key in missing if not (extra and key.startswith("fc."))]
    if missing or unexpected:
        raise BackboneError(
            f"The weights do not fit {what}: {len(missing)} are missing, {len(unexpected)} "
            "unknown. Is the file that of another network?"
        )
    return network
