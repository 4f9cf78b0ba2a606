//! The server: knows who is online and who shares what, and never touches file content. Never imports `client`.

pub mod credentials;
pub mod enrolment;
pub mod index;
pub mod journal;
