"""What kind of file system a folder is on, as far as the machine says: some are not safe for a study or a database."""

from __future__ import annotations

import re
from pathlib import Path

from search.errors import UserError

MOUNTS = Path("/proc/self/mounts")  # Linux
SHARED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "glusterfs", "beegfs", "ocfs2"}
    | {"gfs2", "orangefs", "pvfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph"}
)
BUCKETS = frozenset(
    {"s3fs", "gcsfuse", "mountpoint-s3", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone"}
    | {"fuse.mountpoint-s3", "fuse.blobfuse", "fuse.blobfuse2"}
)


def kind_of(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system that ``path`` is on, or would be; empty where it cannot be known."""
    if not mounts.is_file():
        return ""
    place, best, kind = path.absolute().resolve(), -1, ""
    for line in mounts.read_text(encoding="utf-8").splitlines():
        _, folder, found, *_ = line.split(" ")
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), folder))
        if place.is_relative_to(mounted) and len(mounted.parts) >= best:  # the last of equals lies on top
            best, kind = len(mounted.parts), found
    return kind


def check_study_folder(folder: Path, mounts: Path = MOUNTS) -> None:
    """Refuses a bucket that is mounted as a file system: it has no locks, no appending and no atomic renaming.

    Raises:
        UserError: it is one.
    """
    if (kind := kind_of(folder, mounts)) in BUCKETS:
        raise UserError(
            f"{folder} is a mounted bucket ({kind}), which can lose records; give the bucket's own URL instead "
            "(s3://… or gs://…), which is safe"
        )


def check_sqlite(file: Path, mounts: Path = MOUNTS) -> None:
    """Refuses SQLite on a file system that machines share, whose locks it cannot rely on.

    Raises:
        UserError: the file is on one.
    """
    if (kind := kind_of(file, mounts)) in SHARED | BUCKETS:
        raise UserError(
            f"optuna_storage: {file} is on a shared file system ({kind}), where SQLite can be damaged; use a local "
            "disk, PostgreSQL, or leave it out: the study's own optuna.log is safe there"
        )
