//! What happens in one batch of downloads, and how it is chosen.

use proptest::prelude::*;

use crate::common::peer_message::RefusalReason;

/// Milliseconds of virtual time.
pub(super) type Ms = u64;

/// Retry time after which every fault of any plan is over.
pub(super) const LONG_RETRY_MS: Ms = 3_600_000;
/// Sources that the server names for one file.
pub(super) const NAMED_MAX: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct DownloadStorm {
    pub files: Vec<PlannedFile>,
    pub peers: Vec<PlannedPeer>,
    /// The server's first answers, in turn. Later ones are prompt and right.
    pub answers: Vec<PlannedAnswer>,
    /// The server knows who was there so long ago.
    pub lag_ms: Ms,
    pub retry_ms: Ms,
    /// How long it takes to store a group.
    pub store_ms: Ms,
    /// Events of the same time are taken in together.
    pub is_batched: bool,
    pub interrupt_ms: Option<Ms>,
}

#[derive(Debug, Clone)]
pub(super) struct PlannedFile {
    pub groups: u32,
    /// Groups that the partial file may hold, and those of them that it does: bits.
    pub candidates: u32,
    pub present: u32,
    pub disk: DiskFault,
    /// It has the content of the file before it, and so its partial file.
    pub is_repeated: bool,
}

/// What fails on the local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskFault {
    None,
    Open,
    /// Storing a group, after so many were stored.
    Write(u32),
    Finalize,
}

#[derive(Debug, Clone)]
pub(super) struct PlannedPeer {
    /// The files that it has: bits.
    pub files: u32,
    /// Time until a reply, and for each group.
    pub delay_ms: Ms,
    pub group_ms: Ms,
    /// What it does with its first connections, in turn. With later ones it is honest.
    pub conducts: Vec<Conduct>,
    pub away: Option<Absence>,
    /// From this time on it refuses this file, and the server does not name it for it.
    pub forgets: Option<(usize, Ms)>,
    /// It downloads its large files itself: it has a further group each time.
    pub grow_ms: Option<Ms>,
    /// It claims the address of the peer before it, which refuses its tickets.
    pub is_liar: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Absence {
    pub from_ms: Ms,
    /// `None`: for ever.
    pub until_ms: Option<Ms>,
    /// It comes back at another address.
    pub is_moved: bool,
}

/// What a peer does with a connection, after it has sent so many groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    Honest,
    /// It cannot be reached.
    Refuses,
    /// Nothing comes back: the dial takes as long as it may.
    Ignores,
    Busy {
        after: u32,
        retry_ms: u16,
    },
    Cuts {
        after: u32,
    },
    /// It sends nothing any more and does not end.
    Stalls {
        after: u32,
    },
    /// This machine has no descriptor for it.
    NoResources,
    /// It refuses each file that is requested.
    LacksFiles(RefusalReason),
    /// It says that it has all groups, and then that it does not.
    BreaksPromises,
    SendsWrongBytes {
        after: u32,
    },
    BreaksProtocol {
        after: u32,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PlannedAnswer {
    pub delay_ms: Ms,
    pub kind: AnswerKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerKind {
    Right,
    /// It has waited for so long that it may be out of date.
    Outdated,
    /// The server has lost its index.
    Empty,
    Error,
}

impl Conduct {
    /// An honest source may do it, and its downloads are delayed only.
    fn is_harmless(self, retry_ms: Ms) -> bool {
        match self {
            Self::Honest => true,
            // Without a retry time nobody is waited for.
            Self::Busy { after: 0, .. } => retry_ms > 0,
            Self::Refuses | Self::Ignores | Self::Busy { .. } | Self::Cuts { .. } => retry_ms == LONG_RETRY_MS,
            Self::Stalls { .. } | Self::NoResources => retry_ms == LONG_RETRY_MS,
            _ => false,
        }
    }
}

impl DownloadStorm {
    /// Whether the file must be saved: a source of it is honest, and stays; or comes back while files are still waited for. The
    /// same holds for the file before it if it waits for that one.
    pub(super) fn must_succeed(&self, file: usize) -> bool {
        self.has_good_source(file) && (!self.waits_for_previous(file) || self.must_succeed(file - 1))
    }

    /// Whether the file has the content of the one before it.
    pub(super) fn repeats_previous(&self, file: usize) -> bool {
        file > 0 && self.files[file].is_repeated && self.files[file].groups == self.files[file - 1].groups
    }

    /// Whether it waits for the partial file of the one before it: small files do not.
    pub(super) fn waits_for_previous(&self, file: usize) -> bool {
        self.repeats_previous(file) && self.files[file].groups > 1
    }

    fn has_good_source(&self, file: usize) -> bool {
        let is_patient = self.retry_ms == LONG_RETRY_MS;
        let is_right = |answer: &PlannedAnswer| matches!(answer.kind, AnswerKind::Right | AnswerKind::Outdated);
        let is_server_right = match is_patient {
            true => self.answers.first().is_none_or(is_right),
            false => self.answers.iter().all(is_right) && self.answers_soon(),
        };
        self.interrupt_ms.is_none()
            && is_server_right
            && self.peers.len() <= NAMED_MAX
            && self.files[file].disk == DiskFault::None
            && self.peers.iter().any(|peer| self.stays(peer, file))
            && (!is_patient || self.peers.iter().any(|peer| self.is_named_first(peer, file)))
            && (!is_patient || !self.peers.iter().any(|peer| self.drops_out(peer, file)))
    }

    /// Whether no file is abandoned while an answer is awaited.
    fn answers_soon(&self) -> bool {
        self.answers.iter().skip(1).map(|answer| answer.delay_ms).sum::<Ms>() <= self.retry_ms / 2
    }

    /// Whether the peer may be found unable to serve the file. A file fails at once when all that are named are.
    fn drops_out(&self, peer: &PlannedPeer, file: usize) -> bool {
        peer.forgets.is_some_and(|(forgotten, _)| forgotten == file)
            || !peer.conducts.iter().all(|conduct| conduct.is_harmless(LONG_RETRY_MS))
    }

    /// Whether the peer is a source of the file to the end.
    fn stays(&self, peer: &PlannedPeer, file: usize) -> bool {
        let is_patient = self.retry_ms == LONG_RETRY_MS;
        peer.files & 1 << file != 0
            && !peer.is_liar
            && peer.forgets.is_none_or(|(forgotten, _)| forgotten != file)
            && peer.conducts.iter().all(|conduct| conduct.is_harmless(self.retry_ms))
            && peer.away.is_none_or(|away| is_patient && away.until_ms.is_some())
            && (is_patient || peer.grow_ms.is_none())
    }

    /// Whether the server's first answer names the peer for the file.
    fn is_named_first(&self, peer: &PlannedPeer, file: usize) -> bool {
        let latest = self.answers.first().map_or(0, |answer| answer.delay_ms) + 1;
        peer.files & 1 << file != 0
            && peer.forgets.is_none_or(|(forgotten, at)| forgotten != file || at > latest)
            && peer.away.is_none_or(|away| away.from_ms > latest)
    }

    /// A time within which everything has ended that can.
    pub(super) fn longest_ms(&self) -> Ms {
        let groups: Ms = self.files.iter().map(|file| Ms::from(file.groups)).sum();
        let of_peer = |peer: &PlannedPeer| {
            let faults: Ms = peer.conducts.iter().map(|conduct| conduct.longest_ms()).sum();
            let away = peer.away.and_then(|away| away.until_ms).unwrap_or(0);
            let growth = peer.grow_ms.unwrap_or(0) * 2 * groups;
            faults + away + growth + groups * (peer.group_ms + 2 * peer.delay_ms + self.store_ms)
        };
        let answers: Ms = self.answers.iter().map(|answer| answer.delay_ms + 4_000).sum();
        60_000 + self.peers.iter().map(of_peer).sum::<Ms>() + answers + self.lag_ms
    }
}

impl Conduct {
    /// How long it may keep a download, with the wait before the next dial.
    fn longest_ms(self) -> Ms {
        match self {
            Self::Busy { retry_ms, .. } => 10_000 + Ms::from(retry_ms),
            _ => 45_000,
        }
    }
}

pub(super) fn storm() -> impl Strategy<Value = DownloadStorm> {
    let files = prop_oneof![9 => prop::collection::vec(file(), 1..5), 1 => prop::collection::vec(file(), 18..24)];
    let peers = prop_oneof![9 => prop::collection::vec(peer(), 1..5), 1 => prop::collection::vec(peer(), 10..13)];
    let retry = prop::sample::select(&[0, 1_000, 10_000, LONG_RETRY_MS][..]);
    let lag = prop::sample::select(&[0, 0, 3_000][..]);
    let store = prop::sample::select(&[0, 3, 40][..]);
    let interrupt = prop::option::weighted(0.1, 0..20_000_u64);
    let answers = prop::collection::vec(answer(), 0..4);
    let parts = (files, peers, answers, lag, retry, store, any::<bool>(), interrupt);
    parts.prop_map(|(files, peers, answers, lag_ms, retry_ms, store_ms, is_batched, interrupt_ms)| DownloadStorm {
        files,
        peers,
        answers,
        lag_ms,
        retry_ms,
        store_ms,
        is_batched,
        interrupt_ms,
    })
}

fn file() -> impl Strategy<Value = PlannedFile> {
    let groups = prop_oneof![2 => Just(1), 3 => 2..8_u32];
    let found = prop_oneof![2 => Just((0, 0)), 1 => (0..256_u32, 0..256_u32)];
    let disk = prop_oneof![
        12 => Just(DiskFault::None),
        1 => Just(DiskFault::Open),
        1 => (0..4_u32).prop_map(DiskFault::Write),
        1 => Just(DiskFault::Finalize),
    ];
    (groups, found, disk, prop::bool::weighted(0.1)).prop_map(|(groups, (candidates, present), disk, is_repeated)| {
        let candidates = candidates & ((1 << groups) - 1);
        PlannedFile { groups, candidates, present: present & candidates, disk, is_repeated }
    })
}

fn peer() -> impl Strategy<Value = PlannedPeer> {
    let files = prop_oneof![3 => Just(u32::MAX), 1 => any::<u32>()];
    let pace = (prop::sample::select(&[0, 1, 30, 400][..]), prop::sample::select(&[1, 10, 90, 700, 3_000][..]));
    let away = prop::option::weighted(0.3, absence());
    let forgets = prop::option::weighted(0.2, (0..4_usize, 0..8_000_u64));
    let grow = prop::option::weighted(0.2, prop::sample::select(&[50, 900, 4_000][..]));
    let conducts = prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec(conduct(), 0..4)];
    (files, pace, conducts, away, forgets, grow, prop::bool::weighted(0.1)).prop_map(
        |(files, (delay_ms, group_ms), conducts, away, forgets, grow_ms, is_liar)| PlannedPeer {
            files,
            delay_ms,
            group_ms,
            conducts,
            away,
            forgets,
            grow_ms,
            is_liar,
        },
    )
}

fn absence() -> impl Strategy<Value = Absence> {
    let from = prop_oneof![1 => Just(0), 2 => 0..10_000_u64];
    let length = prop::option::weighted(0.7, 0..20_000_u64);
    (from, length, any::<bool>()).prop_map(|(from_ms, length, is_moved)| Absence {
        from_ms,
        until_ms: length.map(|length| from_ms + length),
        is_moved,
    })
}

fn conduct() -> impl Strategy<Value = Conduct> {
    let reason =
        prop::sample::select(&[RefusalReason::NotShared, RefusalReason::Changed, RefusalReason::Unreadable][..]);
    let retry = prop::sample::select(&[0, 250, 5_000, 60_000][..]);
    let after = || 0..4_u32;
    prop_oneof![
        3 => Just(Conduct::Honest),
        2 => Just(Conduct::Refuses),
        1 => Just(Conduct::Ignores),
        3 => (after(), retry).prop_map(|(after, retry_ms)| Conduct::Busy { after: after.saturating_sub(1), retry_ms }),
        3 => after().prop_map(|after| Conduct::Cuts { after }),
        2 => after().prop_map(|after| Conduct::Stalls { after }),
        1 => Just(Conduct::NoResources),
        1 => reason.prop_map(Conduct::LacksFiles),
        1 => Just(Conduct::BreaksPromises),
        1 => after().prop_map(|after| Conduct::SendsWrongBytes { after }),
        1 => after().prop_map(|after| Conduct::BreaksProtocol { after }),
    ]
}

fn answer() -> impl Strategy<Value = PlannedAnswer> {
    let kind = prop_oneof![
        6 => Just(AnswerKind::Right),
        1 => Just(AnswerKind::Outdated),
        1 => Just(AnswerKind::Empty),
        1 => Just(AnswerKind::Error),
    ];
    let delay = prop::sample::select(&[1, 30, 500, 9_000, 25_000][..]);
    (delay, kind).prop_map(|(delay_ms, kind)| PlannedAnswer { delay_ms, kind })
}
