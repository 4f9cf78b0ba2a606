//! The lists: walked in the order of ids, within a budget, showing each asker what it may see.

use std::ops::ControlFlow;

use memchr::memmem::Finder;
use serde::Serialize;

use super::audiences::AudienceId;
use super::names::Name;
use super::publications::{ContentKey, Member};
use super::trigrams::Candidates;
use super::{Budget, Index, OwnerId, Page, Position};
use crate::common::message::{AvailableContent, NameQuery, OwnPublication, ResolvePurpose, encoded_len};
use crate::common::types::{Audience, FileName, UserName};

/// What looking at a restricted publication costs: its audience is searched.
const RESTRICTED_STEPS: usize = 4;
/// Bytes of a name that are folded in one step, when all are ASCII and when not.
const FOLDED_BYTES: usize = 128;
const FOLDED_BYTES_BEYOND_ASCII: usize = 8;

impl Position {
    fn new(name: u32, group: u32) -> Self {
        Self(u64::from(name) << 32 | u64::from(group))
    }
    fn name(self) -> u32 {
        (self.0 >> 32) as u32
    }
    fn group(self) -> u32 {
        self.0 as u32
    }
}

impl Index {
    /// `lpf`.
    pub fn published(&self, owner: OwnerId, from: Position, budget: Budget) -> Page<OwnPublication> {
        let mut page = Builder::new(budget);
        for &id in self.owners[owner.0 as usize].names.range(from.name()..) {
            let at = Position::new(id, 0);
            if page.is_spent() {
                return page.stop(at);
            }
            page.step(1);
            let name = self.names.name(id).expect("an owner's names are there");
            let (key, member) = name.publications.of(owner).expect("an owner's names are published by it");
            let restricted = member.audience != AudienceId::EVERYONE;
            let entry = OwnPublication { name: name.text.clone(), content: key.content(member.mtime_ms), restricted };
            if !page.offer(entry) {
                return page.cut(at);
            }
        }
        page.end()
    }

    /// `sch`: names with at least one publication of an active owner that the asker may see, but for those that the asker
    /// publishes itself: it has them.
    pub fn search(&self, asker: OwnerId, query: &NameQuery, from: Position, budget: Budget) -> Page<FileName> {
        let mut sight = self.sight(asker);
        self.list(query, from, budget, |page, id, name| {
            let publications = &name.publications;
            if publications.of(asker).is_some() {
                return ControlFlow::Continue(());
            }
            let mut visible = false;
            for group in 0..publications.group_end() {
                page.step(1);
                visible = publications.group(group).1.iter().any(|member| {
                    page.step(cost(member));
                    sight.sees(member)
                });
                if visible {
                    break;
                }
            }
            if visible && !page.offer(name.text.clone()) {
                return ControlFlow::Break(Stop::Cut(Position::new(id, 0)));
            }
            ControlFlow::Continue(())
        })
    }

    /// `sch -l`, `get`: the distinct contents of such names. `now_s`: seconds since 1970.
    ///
    /// Names that the asker publishes itself are left out of `sch -l` as they are of `sch`; a `get` may still fetch what
    /// others have under them.
    pub fn resolve(
        &self,
        asker: OwnerId,
        query: &NameQuery,
        from: Position,
        budget: Budget,
        now_s: u64,
        purpose: ResolvePurpose,
    ) -> Page<AvailableContent> {
        let mut sight = self.sight(asker);
        self.list(query, from, budget, |page, id, name| {
            if purpose == ResolvePurpose::List && name.publications.of(asker).is_some() {
                return ControlFlow::Continue(());
            }
            let start = if id == from.name() { from.group() } else { 0 };
            for group in start..name.publications.group_end() {
                if group > start && page.is_spent() {
                    return ControlFlow::Break(Stop::Spent(Position::new(id, group)));
                }
                let (key, members) = name.publications.group(group);
                page.step(1 + members.iter().map(cost).sum::<usize>());
                let visible = members.iter().filter(|member| sight.sees(member));
                if let Some(entry) = found(&name.text, key, visible, now_s)
                    && !page.offer(entry)
                {
                    return ControlFlow::Break(Stop::Cut(Position::new(id, group)));
                }
            }
            ControlFlow::Continue(())
        })
    }

    /// What `asker` can see.
    pub(super) fn sight(&self, asker: OwnerId) -> Sight<'_> {
        Sight { index: self, asker, user: self.user(asker), last: (AudienceId::EVERYONE, true) }
    }

    /// Shows every name that matches, from a position on, to `visit` while there are steps.
    fn list<T: Serialize>(
        &self,
        query: &NameQuery,
        from: Position,
        budget: Budget,
        mut visit: impl FnMut(&mut Builder<T>, u32, &Name) -> ControlFlow<Stop>,
    ) -> Page<T> {
        let mut page = Builder::new(budget);
        let matcher = Matcher::new(query);
        for (id, is_candidate) in self.candidates(query, from.name()) {
            if page.is_spent() {
                return page.stop(if id == from.name() { from } else { Position::new(id, 0) });
            }
            page.step(1);
            let name = if is_candidate { self.names.name(id) } else { None };
            let Some(name) = name else { continue };
            page.step(matcher.extra_steps(name.text.as_str()));
            if matcher.matches(name.text.as_str()) {
                match visit(&mut page, id, name) {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(Stop::Spent(at)) => return page.stop(at),
                    ControlFlow::Break(Stop::Cut(at)) => return page.cut(at),
                }
            }
        }
        page.end()
    }

    /// Ids to look at, rising from `from`, and whether the name may match at all (an id that may not still costs a step).
    fn candidates<'a>(&'a self, query: &NameQuery, from: u32) -> Box<dyn Iterator<Item = (u32, bool)> + 'a> {
        let trigrams = self.names.trigrams();
        let candidates = match query {
            NameQuery::Exact(name) => {
                let id = self.names.find(name).filter(|&id| id >= from);
                return Box::new(id.into_iter().map(|id| (id, true)));
            }
            NameQuery::Prefix(prefix) => trigrams.starting(prefix, from),
            NameQuery::Substring(needle) | NameQuery::SubstringIgnoreCase(needle) => trigrams.containing(needle, from),
        };
        let end = self.names.end();
        let unsettled = (from.max(self.names.settled_to())..end).map(|id| (id, true));
        match candidates {
            Candidates::None => Box::new(unsettled),
            Candidates::All => Box::new((from..end).map(|id| (id, true))),
            Candidates::Some(rarest, others) => {
                let settled = rarest.map(move |id| (id, others.iter().all(|list| list.contains(id))));
                Box::new(settled.chain(unsettled))
            }
        }
    }
}

/// What one asker can see.
pub(super) struct Sight<'a> {
    index: &'a Index,
    asker: OwnerId,
    user: &'a UserName,
    /// The answer for the audience looked at last: often the next has the same.
    last: (AudienceId, bool),
}

impl Sight<'_> {
    /// Whether the asker may find and fetch this publication now.
    pub(super) fn sees(&mut self, member: &Member) -> bool {
        if member.owner == self.asker || !self.index.active[member.owner.0 as usize] {
            return false;
        }
        if member.audience == AudienceId::EVERYONE {
            return true;
        }
        if self.last.0 != member.audience {
            let audience: &Audience = self.index.audiences.audience(member.audience);
            self.last = (member.audience, audience.includes(self.user));
        }
        self.last.1
    }
}

/// Why a walk ended early, and where to go on.
enum Stop {
    Spent(Position),
    Cut(Position),
}

/// A page in the making.
struct Builder<T> {
    entries: Vec<T>,
    bytes_left: usize,
    steps: usize,
    steps_left: usize,
}

impl<T: Serialize> Builder<T> {
    fn new(budget: Budget) -> Self {
        let steps = budget.steps.max(1);
        Self { entries: Vec::new(), bytes_left: budget.bytes, steps, steps_left: steps }
    }
    fn is_spent(&self) -> bool {
        self.steps_left == 0
    }
    fn step(&mut self, cost: usize) {
        self.steps_left = self.steps_left.saturating_sub(cost);
    }
    /// Takes the entry if it fits.
    fn offer(&mut self, entry: T) -> bool {
        match self.bytes_left.checked_sub(encoded_len(&entry)) {
            Some(left) => {
                self.bytes_left = left;
                self.entries.push(entry);
                true
            }
            None => false,
        }
    }
    fn end(self) -> Page<T> {
        self.page(None, false)
    }
    fn stop(self, at: Position) -> Page<T> {
        self.page(Some(at), false)
    }
    fn cut(self, at: Position) -> Page<T> {
        self.page(Some(at), true)
    }
    fn page(self, next: Option<Position>, full: bool) -> Page<T> {
        Page { entries: self.entries, next, full, steps: self.steps - self.steps_left }
    }
}

/// The query, prepared for many names.
enum Matcher<'a> {
    /// Found by its text.
    Exact,
    Prefix(&'a str),
    Contains(Finder<'a>),
    ContainsIgnoringCase(Finder<'static>),
}

impl<'a> Matcher<'a> {
    fn new(query: &'a NameQuery) -> Self {
        match query {
            NameQuery::Exact(_) => Self::Exact,
            NameQuery::Prefix(prefix) => Self::Prefix(prefix),
            NameQuery::Substring(needle) => Self::Contains(Finder::new(needle)),
            NameQuery::SubstringIgnoreCase(needle) => {
                Self::ContainsIgnoringCase(Finder::new(&needle.to_lowercase()).into_owned())
            }
        }
    }

    /// What comparing with this name costs beyond looking at it.
    fn extra_steps(&self, name: &str) -> usize {
        match self {
            Self::ContainsIgnoringCase(_) if name.is_ascii() => name.len() / FOLDED_BYTES,
            Self::ContainsIgnoringCase(_) => name.len() / FOLDED_BYTES_BEYOND_ASCII,
            Self::Exact | Self::Prefix(_) | Self::Contains(_) => 0,
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact => true,
            Self::Prefix(prefix) => name.starts_with(prefix),
            Self::Contains(needle) => needle.find(name.as_bytes()).is_some(),
            Self::ContainsIgnoringCase(needle) => needle.find(name.to_lowercase().as_bytes()).is_some(),
        }
    }
}

fn cost(member: &Member) -> usize {
    if member.audience == AudienceId::EVERYONE { 1 } else { RESTRICTED_STEPS }
}

fn found<'a>(
    name: &FileName,
    key: &ContentKey,
    visible: impl Iterator<Item = &'a Member>,
    now_s: u64,
) -> Option<AvailableContent> {
    let (mut sources, mut mtime_ms, mut oldest_s) = (0, i64::MIN, u64::MAX);
    for member in visible {
        sources += 1;
        mtime_ms = mtime_ms.max(member.mtime_ms);
        oldest_s = oldest_s.min(member.published_s);
    }
    let age_s = now_s.saturating_sub(oldest_s);
    (sources > 0).then(|| AvailableContent { name: name.clone(), content: key.content(mtime_ms), sources, age_s })
}
