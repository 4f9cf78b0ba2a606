//! Who may join, and what login attempts from unauthenticated addresses may cost the server.

pub(crate) mod accounts;
pub(crate) mod address_validator;
pub(crate) mod credentials;
pub(crate) mod credentials_reload;
pub(crate) mod enrolment;
pub(crate) mod expiring_map;
pub(crate) mod keys;
pub(crate) mod rate_limit;
pub(crate) mod throttle;
