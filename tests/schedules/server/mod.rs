//! The server's modules, in the tree that they expect.

#[path = "../../../src/server/histogram.rs"]
pub mod histogram;
mod journal;

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    journal::tests()
}
