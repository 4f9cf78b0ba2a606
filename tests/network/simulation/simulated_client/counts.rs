//! What has happened to a client.

/// Counts of a client's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands that got their response.
    pub commands: usize,
    /// Sessions that replaced one that had ended.
    pub resumed: usize,
    /// Reports of a lost connection.
    pub lost: usize,
    /// Files published again after a reconnect.
    pub resynced: usize,
    /// Client instances that the server has begun.
    pub instances: usize,
    /// Logouts that the user has not asked for.
    pub logged_out: usize,
}
