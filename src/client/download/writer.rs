//! The other half of a connection: hashes what has arrived and writes it, while more is being received.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use super::incomplete_file::IncompleteFile;
use super::run::Run;
use super::scheduler::{Assignment, FileId};
use super::{DownloadError, DownloadOutcome};
use crate::common::chunk_tree::{GroupHasher, group_count, group_range};

/// What has arrived in one buffer.
#[derive(Default)]
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    pub pieces: Vec<Piece>,
}

/// Bytes of one group, as they arrived.
pub(super) struct Piece {
    pub assignment: Assignment,
    pub offset: u64,
    /// Where in the batch's bytes.
    pub at: Range<usize>,
    /// The group ends with it.
    pub is_last: bool,
    /// The group is still wanted of this source; known with the last piece.
    pub is_wanted: bool,
}

/// The group that is arriving.
enum Group {
    /// The only group of its file: gathered, then written in one go.
    Small {
        turn: u32,
        gathered: Vec<u8>,
    },
    Large {
        turn: u32,
        arriving: Arc<IncompleteFile>,
        hasher: Box<GroupHasher>,
    },
    /// Of a file that is finished.
    Stale {
        turn: u32,
    },
}

impl Group {
    fn turn(&self) -> u32 {
        match self {
            Self::Small { turn, .. } | Self::Large { turn, .. } | Self::Stale { turn } => *turn,
        }
    }
}

/// What became of all that a source sent.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Verdict {
    /// Something was verified.
    pub has_delivered: bool,
    /// The file whose bytes were wrong: then nothing more was taken.
    pub lie: Option<FileId>,
}

/// Takes batches until there are no more, and gives them back empty.
pub(super) fn keep(run: &Run<'_>, inbox: Receiver<Batch>, spare: Sender<Batch>, has_lied: &AtomicBool) -> Verdict {
    let mut group = None;
    let mut verdict = Verdict::default();
    for mut batch in inbox {
        for piece in batch.pieces.drain(..) {
            if verdict.lie.is_some() {
                if piece.is_last && piece.is_wanted {
                    run.state().plan.spoiled(piece.assignment);
                }
            } else if !take(run, &mut group, &piece, &batch.bytes[piece.at.clone()]) {
                verdict.lie = Some(piece.assignment.file);
                has_lied.store(true, Ordering::Relaxed);
            } else {
                verdict.has_delivered |= piece.is_last && piece.is_wanted;
            }
        }
        let _ = spare.send(batch);
    }
    verdict
}

/// `false` when the group turns out wrong.
fn take(run: &Run<'_>, current: &mut Option<Group>, piece: &Piece, bytes: &[u8]) -> bool {
    let Assignment { file, group, turn } = piece.assignment;
    let size = run.jobs[file].content.size;
    let is_small = group_count(size) == 1;
    if is_small && piece.is_last && piece.offset == 0 {
        *current = None;
        return end_small(run, piece, bytes);
    }
    if current.as_ref().is_none_or(|current| current.turn() != turn) {
        *current = Some(begin(run, piece.assignment, size, is_small));
    }
    match current.as_mut().expect("begun above") {
        Group::Small { gathered, .. } => {
            gathered.extend_from_slice(bytes);
            !piece.is_last || end_small(run, piece, &std::mem::take(gathered))
        }
        Group::Large { arriving, hasher, .. } => {
            hasher.update(bytes);
            match arriving.write(group, turn, bytes, piece.offset) {
                Ok(true) => {}
                // What is not on the disk must not count, whatever its hash.
                Ok(false) => {
                    *current = Some(Group::Stale { turn });
                    return end_stale(run, piece);
                }
                Err(error) => {
                    run.finish(file, DownloadOutcome::Failed(DownloadError::from(error)));
                    *current = Some(Group::Stale { turn });
                    return true;
                }
            }
            if !piece.is_last || !piece.is_wanted {
                return true;
            }
            let is_good = Some(&hasher.finish()) == arriving.outline().group(group);
            match is_good {
                true => run.verified(piece.assignment, arriving),
                false => run.state().plan.spoiled(piece.assignment),
            }
            is_good
        }
        Group::Stale { .. } => end_stale(run, piece),
    }
}

fn begin(run: &Run<'_>, assignment: Assignment, size: u64, is_small: bool) -> Group {
    let Assignment { file, group, turn } = assignment;
    if is_small {
        let range = group_range(size, group);
        return Group::Small { turn, gathered: Vec::with_capacity((range.end - range.start) as usize) };
    }
    match run.state().jobs[file].arriving.clone() {
        Some(arriving) => Group::Large { turn, arriving, hasher: Box::new(GroupHasher::new(size, group)) },
        None => Group::Stale { turn },
    }
}

fn end_stale(run: &Run<'_>, piece: &Piece) -> bool {
    if piece.is_last && piece.is_wanted {
        run.state().plan.spoiled(piece.assignment);
    }
    true
}

fn end_small(run: &Run<'_>, piece: &Piece, bytes: &[u8]) -> bool {
    if !piece.is_wanted {
        return true;
    }
    let is_good = run.save_small(piece.assignment.file, bytes);
    if !is_good {
        run.state().plan.spoiled(piece.assignment);
    }
    is_good
}
