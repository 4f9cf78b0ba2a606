//! Tests of the core, in virtual time.

mod abuse;
mod lists;
mod logins;
mod mutations;
mod resumption;
mod sessions;
mod sharing;
