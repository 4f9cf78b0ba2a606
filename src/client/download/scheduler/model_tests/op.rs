//! What may be called.

use proptest::prelude::*;

use super::{FileId, MIB, SIZES, SOURCES};

#[derive(Debug, Clone)]
pub(super) enum Op {
    Pass {
        ms: u64,
    },
    Add,
    Remove {
        source: usize,
    },
    Announce {
        source: usize,
        file: FileId,
    },
    Confirm {
        source: usize,
        file: FileId,
    },
    Available {
        source: usize,
        file: FileId,
        groups: Option<u8>,
    },
    Unknown {
        source: usize,
        file: FileId,
    },
    RemoveFor {
        source: usize,
        file: FileId,
    },
    Request {
        source: usize,
    },
    Outline {
        file: FileId,
    },
    Opened {
        file: FileId,
        start: u32,
    },
    Scanned {
        file: FileId,
        group: u32,
        is_present: bool,
    },
    Bytes {
        source: usize,
        bytes: u64,
    },
    /// Of this assignment, counted back from the last.
    Received {
        ago: usize,
    },
    NotAvailable {
        ago: usize,
    },
    Checked {
        ago: usize,
        is_right: bool,
    },
    Cancelled {
        source: usize,
    },
    Finish {
        file: FileId,
    },
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let file = || 0..SIZES.len();
    let of = || (0..SOURCES, 0..SIZES.len());
    prop_oneof![
        2 => prop::sample::select(&[1, 60, 301, 1_001][..]).prop_map(|ms| Op::Pass { ms }),
        2 => Just(Op::Add),
        1 => (0..SOURCES).prop_map(|source| Op::Remove { source }),
        2 => of().prop_map(|(source, file)| Op::Announce { source, file }),
        2 => of().prop_map(|(source, file)| Op::Confirm { source, file }),
        4 => (of(), any::<Option<u8>>()).prop_map(|((source, file), groups)| Op::Available { source, file, groups }),
        1 => of().prop_map(|(source, file)| Op::Unknown { source, file }),
        1 => of().prop_map(|(source, file)| Op::RemoveFor { source, file }),
        12 => (0..SOURCES).prop_map(|source| Op::Request { source }),
        3 => file().prop_map(|file| Op::Outline { file }),
        3 => (file(), 0..5_u32).prop_map(|(file, start)| Op::Opened { file, start }),
        8 => (file(), 0..5_u32, prop::bool::weighted(0.2))
            .prop_map(|(file, group, is_present)| Op::Scanned { file, group, is_present }),
        4 => (0..SOURCES, 0..2 * MIB).prop_map(|(source, bytes)| Op::Bytes { source, bytes }),
        6 => (0..8_usize).prop_map(|ago| Op::Received { ago }),
        1 => (0..8_usize).prop_map(|ago| Op::NotAvailable { ago }),
        6 => (0..8_usize, prop::bool::weighted(0.8)).prop_map(|(ago, is_right)| Op::Checked { ago, is_right }),
        3 => (0..SOURCES).prop_map(|source| Op::Cancelled { source }),
        1 => file().prop_map(|file| Op::Finish { file }),
    ]
}
