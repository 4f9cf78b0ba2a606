//! Who may join: the credentials file, how it is read again, and the records made from its passwords.

pub mod credentials;
pub(crate) mod credentials_reload;
pub mod enrolment;
