"""The data set store: Zarr 3 on disk, resumable, readable by anybody."""

from edgekit_experts.dataset.dataset import Dataset
from edgekit_experts.dataset.declaration import Declaration
from edgekit_experts.dataset.video import SPLITS, Video, VideoInfo, unit_frames

__all__ = ["SPLITS", "Dataset", "Declaration", "Video", "VideoInfo", "unit_frames"]
