//! The client's modules, in the tree that they expect.

pub mod attach;
#[path = "../../../src/client/cancel.rs"]
pub mod cancel;
pub mod commands;
pub mod control;
pub mod download;
pub mod ui;
pub mod upload;

pub mod direct {
    pub struct PassedFiles;

    impl PassedFiles {
        pub fn close(&self) {}
    }
}

pub mod jobs {
    #[derive(Debug, Default)]
    pub struct JobOwner;

    impl JobOwner {
        pub fn leave(&self) {}
    }
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    [attach::tests(), control::tests(), download::tests(), ui::tests(), upload::tests()].concat()
}
