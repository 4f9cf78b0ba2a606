//! What was true of a user, and when. While a change is on its way both the old and the new may be true: it is sure only
//! what the user has had a response for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fileshare::internals::common::types::{FileName, UserName};

/// From the first to the second.
pub type Period = (Instant, Instant);

/// When something was true: maybe, and surely.
#[derive(Debug, Clone)]
struct Span {
    maybe_from: Instant,
    sure_from: Option<Instant>,
    sure_until: Option<Instant>,
    maybe_until: Option<Instant>,
}

impl Span {
    fn beginning(now: Instant) -> Self {
        Self { maybe_from: now, sure_from: None, sure_until: None, maybe_until: None }
    }

    fn sure(&self, (start, end): Period) -> Option<Period> {
        let period = (self.sure_from?.max(start), self.sure_until.unwrap_or(end).min(end));
        (period.0 <= period.1).then_some(period)
    }

    fn maybe(&self, (start, end): Period) -> Option<Period> {
        let period = (self.maybe_from.max(start), self.maybe_until.unwrap_or(end).min(end));
        (period.0 <= period.1).then_some(period)
    }
}

/// A publication of one name.
#[derive(Debug, Clone)]
struct Version {
    /// `None`: everyone.
    audience: Option<BTreeSet<UserName>>,
    span: Span,
}

/// What others may see of a user. See the module.
#[derive(Debug, Default)]
pub struct UserHistory {
    presence: Vec<Span>,
    versions: BTreeMap<FileName, Vec<Version>>,
}

impl UserHistory {
    /// The user logs in.
    pub fn logging_in(&mut self, now: Instant) {
        self.presence.push(Span::beginning(now));
    }

    /// A session has begun, of a login or a reconnect. Returns the time since the login began.
    pub fn online(&mut self, now: Instant) -> Duration {
        let last = self.presence.last_mut().expect("a login precedes it");
        let time = now - last.maybe_from;
        if last.maybe_until.is_some() {
            // A client that is away reconnects to log out.
            return time;
        }
        if last.sure_from.is_none() {
            last.sure_from = Some(now);
        } else if last.sure_until.is_some() {
            last.maybe_until = Some(now);
            self.presence.push(Span { sure_from: Some(now), ..Span::beginning(now) });
        }
        time
    }

    /// From then on the server may not hear from the user, until the next session.
    pub fn unsure(&mut self, from: Instant) {
        let last = self.presence.last_mut().filter(|last| last.sure_until.is_none());
        if let Some(Span { sure_from: Some(sure_from), sure_until, .. }) = last {
            *sure_until = Some(from.max(*sure_from));
        }
    }

    /// The user leaves, or dies. `last`: when the server knows at the latest.
    pub fn leaving(&mut self, now: Instant, last: Instant) {
        self.unsure(now);
        self.presence.iter_mut().for_each(|span| _ = span.maybe_until.get_or_insert(last));
    }

    pub fn is_surely_online(&self, now: Instant) -> bool {
        let is_open = |span: &Span| span.sure_from.is_some() && span.sure_until.is_none_or(|until| until > now);
        self.presence.last().is_some_and(is_open)
    }

    /// The user asks for a change of these names; `None`: they are withdrawn.
    pub fn changing(&mut self, now: Instant, names: &[FileName], audience: Option<&Option<BTreeSet<UserName>>>) {
        for name in names {
            let versions = self.versions.entry(name.clone()).or_default();
            versions.iter_mut().for_each(|version| _ = version.span.sure_until.get_or_insert(now));
            let new = audience.map(|audience| Version { audience: audience.clone(), span: Span::beginning(now) });
            versions.extend(new);
        }
    }

    /// The server has made the change.
    pub fn changed(&mut self, now: Instant, names: &[FileName]) {
        for version in self.versions.iter_mut().filter(|(name, _)| names.contains(name)).flat_map(|(_, of)| of) {
            match version.span.sure_until {
                Some(_) => _ = version.span.maybe_until.get_or_insert(now),
                None => _ = version.span.sure_from.get_or_insert(now),
            }
        }
    }

    /// The server has refused the change.
    pub fn unchanged(&mut self, now: Instant, names: &[FileName]) {
        for (_, versions) in self.versions.iter_mut().filter(|(name, _)| names.contains(name)) {
            let is_as_before =
                |version: &&Version| version.span.sure_from.is_some() && version.span.maybe_until.is_none();
            let before: Vec<Version> = versions.iter().filter(is_as_before).cloned().collect();
            versions.iter_mut().for_each(|version| {
                version.span.sure_until.get_or_insert(now);
                version.span.maybe_until.get_or_insert(now);
            });
            let span = Span { sure_from: Some(now), ..Span::beginning(now) };
            versions.extend(before.into_iter().map(|version| Version { span: span.clone(), ..version }));
        }
    }

    /// When the user was surely, or maybe, active.
    pub fn active(&self, is_sure: bool, within: Period) -> Vec<Period> {
        self.presence.iter().filter_map(|span| if is_sure { span.sure(within) } else { span.maybe(within) }).collect()
    }

    /// When the viewer could surely, or maybe, see a file of this user.
    pub fn visible(&self, is_sure: bool, viewer: &UserName, name: &FileName, within: Period) -> Vec<Period> {
        let shown = |version: &&Version| version.audience.as_ref().is_none_or(|audience| audience.contains(viewer));
        let versions = self.versions.get(name).into_iter().flatten().filter(shown);
        let spans =
            versions.filter_map(|Version { span, .. }| if is_sure { span.sure(within) } else { span.maybe(within) });
        spans.flat_map(|span| self.active(is_sure, span)).collect()
    }
}

/// What the periods leave of another one.
pub fn complement(mut periods: Vec<Period>, (start, end): Period) -> Vec<Period> {
    periods.sort_unstable();
    let (mut left, mut from) = (Vec::new(), start);
    for (start, until) in periods {
        if start > from {
            left.push((from, start.min(end)));
        }
        from = from.max(until);
    }
    left.extend((from < end).then_some((from, end)));
    left
}
