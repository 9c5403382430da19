"""After a crash: whole files whose row was not written are adopted, half files go, nothing measured is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from instruments import Frame
from orchestrator.catalogue import folder as folders
from orchestrator.catalogue.frame_files import Checksum, temporary_files
from orchestrator.catalogue.nexus_reader import acquired_at, decode
from orchestrator.catalogue.rows import Intent, RecoveryReport, StoredFrame
from orchestrator.errors import FrameDamaged

Adopt = Callable[[Intent, Frame, Checksum, datetime], StoredFrame]


def recover(
    data_folder: Path, frames_path: str, waiting: Sequence[Intent], stored: Sequence[StoredFrame], adopt: Adopt
) -> RecoveryReport:
    """Bring the frames' folder and the rows of one experiment together; only the holder of the folder may do it.

    `waiting` are intents without a stored frame. A file that is not the frame its row waits for is set aside with the
    ending `.damaged`, never deleted. Files nobody knows are only reported.
    """
    report = RecoveryReport()
    frames = data_folder / frames_path
    if not frames.is_dir():
        report.missing_files.extend(frame.path for frame in stored)
        return report
    for temporary in temporary_files(frames):
        temporary.unlink()
        report.deleted_temporary_files.append(f"{frames_path}/{temporary.name}")
    for intent in waiting:
        _settle(data_folder / intent.path, intent, adopt, report)
    folders.sync(frames)
    expected = {Path(frame.path).name for frame in (*stored, *report.adopted)}
    found = {path.name for path in frames.iterdir()}
    report.missing_files.extend(f"{frames_path}/{name}" for name in sorted(expected - found))
    strangers = sorted(name for name in found - expected if not name.endswith(".damaged"))
    report.unknown_files.extend(f"{frames_path}/{name}" for name in strangers)
    return report


def _settle(path: Path, intent: Intent, adopt: Adopt, report: RecoveryReport) -> None:
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            checksum, frame, moment = Checksum.of(file), decode(file, intent.path), acquired_at(file)
        if frame.requested != intent.command:
            raise FrameDamaged(f"{intent.path} holds action {frame.action_id}, asked for was {intent.action_id}")
    except FrameDamaged:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        report.set_aside.append(str(Path(intent.path).with_name(aside.name)))
        return
    report.adopted.append(adopt(intent, frame, checksum, datetime.fromisoformat(moment)))
