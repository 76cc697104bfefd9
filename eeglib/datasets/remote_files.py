"""What can be downloaded, from where, and how it is known to be the right file (chapter 1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    Attributes
    ----------
    name : str
        Path below the data set's folder, with slashes.
    urls : tuple of str
        Where it can be fetched, best first; empty if only a person can get it.
    places : tuple of str
        Where a person finds it.
    n_bytes : int | None
        Size, where it was published; about so where ``exact`` is false.
    exact : bool
    sha256 : str | None
        Where one was published. Otherwise it is recorded on first use and checked ever after.
    subject : int | None
        Whose signals it holds, if one subject's.
    note : str
        What to do after the download.
    optional : str
        What it is for, where the chapters run without it; empty if they need it.
    """

    name: str
    urls: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    n_bytes: int | None = None
    exact: bool = True
    sha256: str | None = None
    subject: int | None = None
    note: str = ""
    optional: str = ""


_LAB = "https://github.com/perceivelab/eeg_visual_classification"
_LAB_PLACES = (
    f"{_LAB} (README, section Download dataset)",
    "https://tinyurl.com/eeg-visual-classification",
)

EEG_IMAGENET = (
    *(
        RemoteFile(name, (), _LAB_PLACES, n_bytes, exact, optional=optional)
        for name, n_bytes, exact, optional in (
            ("eeg_signals_raw_with_mean_std.pth", 3_100_000_000, False, ""),
            ("block_splits_by_image_all.pth", None, False, "the authors' split"),
            ("eeg_14_70_std.pth", 3_100_000_000, False, "filtered, instead of the raw file"),
            ("eeg_5_95_std.pth", 3_100_000_000, False, "filtered, instead of the raw file"),
            ("eeg_55_95_std.pth", 3_135_625_420, True, "filtered, instead of the raw file"),
        )
    ),
    RemoteFile(
        "image_order.txt",
        (f"{_LAB}/files/13633721/image_order.txt",),
        (f"{_LAB}/issues/5 (attached to a comment of the authors)",),
        optional="order of presentation, blocks and sessions",
    ),
    RemoteFile(
        "images",
        (),
        ("https://image-net.org/download.php (ILSVRC 2012, training pictures of the 40 classes)",),
        note="a folder: images/<wnid>/<wnid>_<n>.JPEG, or all pictures in images/",
        optional="pictures, for chapters 4 and 7",
    ),
)

_DATAPORT = (
    'https://ieee-dataport.org, data set "Dataset for object classification from randomized EEG '
    'trials" (needs an account)',
)
RANDOMIZED_TRIALS = tuple(
    RemoteFile(name, (), _DATAPORT, note="folder preprocessed/ of the archive", optional=optional)
    for name, optional in (
        ("imagenet40-1000-1.pth", ""), ("imagenet40-1000-1_split.pth", "the authors' split")
    )
)  # fmt: skip

_MIRROR = "https://huggingface.co/datasets/LidongYang/EEG_Image_decode"
_OSF = "https://osf.io/3jk45/ (components anp5v and y63gw)"
# Published by the mirror in its Git LFS pointers, for training and test, subjects 1 to 10.
_SHA256 = (
    ("a6a023c7d8983690aba43f2eaf2e9982739bc0f51981e2e392cb89e014698237",
     "0489b80781c1a79afa2f952309af30c4a8c1396c5518cdb316b4f3b251a154b9"),
    ("be1becfde2d659d11368f930d1b822c21fc4fb28a19bb95c7f4dc192f5d9b9d0",
     "951ba71502ef10c025e33471f22d9c7944780b997d673400e88e4716043f9408"),
    ("25d52e758241e2622ec903fb78280c33b6f7fadd223016baabbc1c85489deb62",
     "179a29b277563e9b2d7929fa0076eefde755a9f9ddc3213fd3bb84dd8aeab0fd"),
    ("a658b1a82504f6f426a53a4a3ac28601b9988ec109b676d85b211a57a13d3e27",
     "cba83bc49213f8783d29e1717e63c0b429967601ea417adf6671dbfd2336c03e"),
    ("b9ac68b2bb0d9469d0d8570874f6be9b7d135c031655409c67510907da6fe7c5",
     "82200125cb50924c66ce05748e4abe351821aa41907e96583d62862614fb9740"),
    ("940ca2c6a40b24fd082c5844f146e694e80d3595101679ab7ccb3a9afff24e79",
     "6a44e65e272fc9d5eb0e29f501cd8f20cde07483bb3acb5103dced124b4bfb67"),
    ("ba446573a787a98462d4b0ab09923b9b7452a542c19d60cfd97ceffbbc5d71da",
     "817fba7310acbc80230c85b8c6af8e5be59987394df6124b28f3ae8b4e5f9f54"),
    ("1ddd73ef392883004c384cda1fdf7ef7a95e2078fba8e49293bcf381c1c762c2",
     "ed94eecd82ffdb125a497d79685da08e94b1411d18c339d461fb930f2d160710"),
    ("421e23e5006042a3a76cbccf53b0329d06f3b8b677a079ec3ec27693e59cdb8e",
     "e1fafda025c7b494f55c1b94d9d90d40bcecaf1960ec1dbecfc922e3583f5ac1"),
    ("ab043e48057258bab478bebf8796c36787306a3cd08a0ca5f8f2492ee9f23e76",
     "c4babd3bc2fe7066c2cc2707259a41b267e03d13bc6d062272e820b20aa9e8e9"),
)  # fmt: skip

THINGS_EEG2 = (
    *(
        RemoteFile(
            f"sub-{subject:02d}/preprocessed_eeg_{part}.npy",
            (f"{_MIRROR}/resolve/main/Preprocessed_data_250Hz/sub-{subject:02d}/"
             f"preprocessed_eeg_{part}.npy",),
            (_MIRROR, _OSF),
            n_bytes,
            False,
            sha256,
            subject,
            optional="" if part == "training" else "the 200 test images",
        )
        for subject, sums in enumerate(_SHA256, start=1)
        for part, n_bytes, sha256 in zip(
            ("training", "test"), (8_336_163_007, 2_016_003_002), sums, strict=True
        )
    ),
    RemoteFile(
        "image_metadata.npy", (), ("https://osf.io/y63gw/",),
        note="names of the pictures and concepts, in the order of the signals",
    ),
    RemoteFile(
        "training_images", (), ("https://osf.io/y63gw/ (training_images.zip)",),
        note="unpack: training_images/<concept>/<image>.jpg",
        optional="pictures, for chapters 4 and 7",
    ),
    RemoteFile(
        "test_images", (), ("https://osf.io/y63gw/ (test_images.zip)",),
        note="unpack: test_images/<concept>/<image>.jpg",
        optional="pictures of the 200 test images",
    ),
)  # fmt: skip

FILES: dict[str, tuple[RemoteFile, ...]] = {
    "eeg_imagenet": EEG_IMAGENET,
    "randomized_trials": RANDOMIZED_TRIALS,
    "things_eeg2": THINGS_EEG2,
}
"""The files of each data set, by the name of its module."""
