"""The ten classes as they are drawn: one plain table, in the study's order."""

from .base import Head, Lesion
from .infarct import AcuteInfarct, ChronicInfarct
from .mass import Edema, Extra, Intra, PituitaryLesion
from .spots import FocalFlairHyper, WhiteMatterChanges
from .vessels import ArteriovenousAnomaly

LESIONS: dict[str, type[Lesion]] = {
    "acute_infarct": AcuteInfarct,
    "arteriovenous_anomaly": ArteriovenousAnomaly,
    "chronic_infarct": ChronicInfarct,
    "edema": Edema,
    "extra": Extra,
    "focal_flair_hyper": FocalFlairHyper,
    "intra": Intra,
    "normal": Lesion,
    "pituatary_lesion": PituitaryLesion,
    "white_matter_changes": WhiteMatterChanges,
}

__all__ = ["LESIONS", "Head", "Lesion"]
