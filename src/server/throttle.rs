//! Stand-in until the real one lands.
use std::net::IpAddr;
use std::time::Instant;

use crate::common::types::UserName;

/// Stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(IpAddr);
/// Stand-in.
pub fn prefix(ip: IpAddr) -> Prefix {
    Prefix(ip)
}
/// Stand-in.
pub struct Charge;
/// Stand-in.
pub struct RetryAfter {
    /// Stand-in.
    pub seconds: u16,
}
/// Stand-in.
pub struct Throttle;
impl Throttle {
    /// Stand-in.
    #[expect(clippy::new_without_default, reason = "stand-in")]
    pub fn new() -> Self {
        Self
    }
    /// Stand-in.
    pub fn check(&mut self, _now: Instant, _ip: IpAddr, _user: &UserName) -> Result<Charge, RetryAfter> {
        Ok(Charge)
    }
    /// Stand-in.
    pub fn refund(&mut self, _now: Instant, _charge: Charge) {}
    /// Stand-in.
    pub fn proven(&mut self, _now: Instant, _ip: IpAddr, _user: &UserName) {}
}
/// Stand-in.
pub struct RateLimit;
impl RateLimit {
    /// Stand-in.
    pub fn new(_burst: u32, _per_second: f64) -> Self {
        Self
    }
    /// Stand-in.
    pub fn allow(&mut self, _now: Instant) -> bool {
        true
    }
}
