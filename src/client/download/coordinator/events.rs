//! What the coordinator and the threads of a batch send each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::control::RequestError;
use crate::client::download::discovery::SourceOffer;
use crate::client::download::group_set::GroupSet;
use crate::client::download::incomplete_file::IncompleteFile;
use crate::client::download::scheduler::{Assignment, FileId, SourceId};
use crate::client::download::{DownloadError, DownloadOutcome, DownloadReport};
use crate::common::chunk_tree::GroupHashes;
use crate::common::peer_message::RefusalReason;
use crate::common::types::UserName;

/// The threads of a source report what they received and wrote at least this often.
pub(in crate::client::download) const REPORT_INTERVAL: Duration = Duration::from_millis(20);

/// What a thread reports to the coordinator.
pub(in crate::client::download) enum DownloadEvent {
    SourcesFound(SourcesFound),
    Source(SourceId, SourceEvent),
    File(FileId, FileEvent),
    /// The user wants to stop.
    Interrupted,
}

/// The server's response to [`Effect::FindSources`].
pub(in crate::client::download) struct SourcesFound {
    /// Identifies the query.
    pub requested_at: Instant,
    pub received_at: Instant,
    /// The files that were asked about: offers name them by their index here.
    pub files: Vec<FileId>,
    pub offers: Result<Vec<SourceOffer>, RequestError>,
}

/// From the threads of a source; [`SourceEvent::Ended`] is the last.
pub(in crate::client::download) enum SourceEvent {
    /// Connected; the first ticket was accepted, for these files.
    Connected(Vec<FileId>),
    /// A further ticket was accepted.
    Granted(Vec<FileId>),
    /// A further ticket was refused; these files were not granted before.
    GrantRefused(Vec<FileId>),
    /// Data has arrived, among it the last bytes of these groups. Sent before the writer gets them.
    Received { bytes: u64, completed: Vec<Assignment> },
    /// A verified outline.
    Outline(FileId, GroupHashes),
    /// It cannot serve the file.
    Refused(FileId, RefusalReason),
    /// Which groups it has of a file that it is still downloading; `None`: all.
    Availability(FileId, Option<GroupSet>),
    /// It does not have these groups of the file yet.
    NotAvailable(FileId, Vec<Assignment>),
    /// It has been hashing a file for a while before it sends anything.
    Hashing,
    /// It has confirmed a cancel.
    Cancelled,
    /// The writer's results.
    Stored(Vec<StoreResult>),
    /// The connection has ended and all its data has been handled.
    Ended(SourceEnd),
}

/// What the writer did with a received group.
pub(in crate::client::download) enum StoreResult {
    /// Verified and written.
    Verified(Assignment),
    /// Not written: the group has another assignment, or the source is not trusted any more.
    Discarded(Assignment),
    /// It does not match the published hash.
    Corrupt(Assignment),
    /// The only group of its file is verified, and the file saved or not.
    SmallFile(FileId, DownloadOutcome),
    /// Writing a large file failed.
    WriteFailed(FileId, DownloadError),
}

/// Why a connection ended.
#[derive(Debug)]
pub(in crate::client::download) enum SourceEnd {
    /// We closed it.
    Done,
    /// All upload slots are taken: dial again after this time.
    Busy { retry_ms: u16 },
    /// It could not be established or was lost.
    Lost(String),
    /// This machine has no thread or descriptor for it.
    NoResources(String),
    /// The source violated the protocol or sent other content than published, while it sent this file.
    Misbehaved { file: FileId, reason: String },
}

/// A large file whose partial file is open.
pub(in crate::client::download) struct OpenedFile {
    pub incomplete: Arc<IncompleteFile>,
    /// Groups that it may hold, ascending; they are being verified. The others are missing.
    pub candidates: Vec<u32>,
    /// The group to begin with.
    pub start_group: u32,
}

/// From the threads that open, scan and rename large files.
pub(in crate::client::download) enum FileEvent {
    Opened(OpenedFile),
    /// One of those groups is verified.
    GroupPresent(u32),
    /// One of those groups is not valid.
    GroupMissing(u32),
    Finished(DownloadOutcome),
}

/// What the source's thread is to do.
pub(in crate::client::download) enum SourceCommand {
    /// Request these groups; with the open file, if it is a large one.
    RequestGroups(Vec<GroupRequest>),
    RequestOutline(FileId),
    /// Ask which groups it has of a file that it is still downloading.
    QueryAvailability(FileId),
    /// Present a further ticket.
    Grant(SourceOffer),
    /// Cancel what was requested and has not begun to arrive.
    Cancel,
    /// End the connection.
    Stop,
}

pub(in crate::client::download) struct GroupRequest {
    pub assignment: Assignment,
    /// The file to write to, of a large file.
    pub incomplete: Option<Arc<IncompleteFile>>,
}

/// What the coordinator wants done.
pub(in crate::client::download) enum Effect {
    /// Ask the server for sources.
    FindSources {
        requested_at: Instant,
        files: Vec<FileId>,
        /// Users that brought nothing.
        avoid: Vec<UserName>,
    },
    Dial(SourceId, SourceOffer),
    /// Send a command to a source. Until it is connected, only [`SourceCommand::Stop`] is sent.
    Send(SourceId, SourceCommand),
    /// Open and scan the partial file of a large file.
    Open(FileId, GroupHashes),
    /// Give a complete large file its name.
    Finalize(FileId, Arc<IncompleteFile>),
    /// End all writing to the partial file of a failed download, and unlock it.
    Close(Arc<IncompleteFile>),
    Report(DownloadReport),
}
