//! The client's modules, in the tree that they expect.

pub mod attach;
#[path = "../../../src/client/cancel.rs"]
pub mod cancel;
pub mod commands;
pub mod control;
pub mod download;
pub mod jobs;
#[path = "../../../src/client/jobs_by_key.rs"]
pub mod jobs_by_key;
pub mod ui;
pub mod upload;

pub mod direct {
    pub struct PassedFiles;

    impl PassedFiles {
        pub fn close(&self) {}
    }
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    [attach::tests(), control::tests(), download::tests(), jobs::tests(), ui::tests(), upload::tests()].concat()
}
