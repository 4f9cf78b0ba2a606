//! Queries: read in the order of ids, within a budget, and limited to what the requester may see.

use std::borrow::Cow;
use std::ops::ControlFlow;

use memchr::memmem::Finder;
use serde::Serialize;

use super::audiences::AudienceId;
use super::names::Name;
use super::publications::{ContentGroup, IndexedPublication, PublicationEntry};
use super::trigrams::Candidates;
use super::{Budget, Index, OwnerId, Page, Position};
use crate::common::case_fold::{fold, fold_into};
use crate::common::message::{AvailableContent, NameQuery, OwnPublication, ResolvePurpose, encoded_len};
use crate::common::normal_form::normal_form;
use crate::common::types::{FileName, UserName, UsersDigest};

/// Steps of a restricted publication, whose audience is searched.
const RESTRICTED_STEPS: usize = 4;
/// Bytes of a name that are folded in one step, for ASCII and for other names.
const FOLDED_BYTES: usize = 128;
const FOLDED_BYTES_NON_ASCII: usize = 8;
/// Bytes of a name that is not ASCII whose normal form is found in one step.
const NORMALIZED_BYTES: usize = 32;

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
    /// `lpf`: the owner's publications. `now_s`: seconds since 1970.
    pub fn published(&self, owner: OwnerId, from: Position, budget: Budget, now_s: u64) -> Page<OwnPublication> {
        self.list_of_owner(owner, from, budget, |page, name, IndexedPublication { key, entry }| {
            let restricted = entry.audience != AudienceId::EVERYONE;
            let content = key.content(entry.mtime_ms);
            let age_s = now_s.saturating_sub(entry.published_s);
            page.try_push(OwnPublication { name: name.clone(), content, restricted, age_s })
        })
    }

    /// `ls`: what the owner publishes visibly to the requester, with the owner as the only source.
    pub fn shared(
        &self,
        requester: OwnerId,
        owner: OwnerId,
        from: Position,
        budget: Budget,
        now_s: u64,
    ) -> Page<AvailableContent> {
        let mut visibility = self.visibility(requester);
        self.list_of_owner(owner, from, budget, |page, name, IndexedPublication { key, entry }| {
            page.step(cost(&entry));
            let group = ContentGroup { key: &key, entries: std::slice::from_ref(&entry) };
            available_content(name, group, &mut visibility, now_s).map_or(Ok(()), |content| page.try_push(content))
        })
    }

    /// Calls `visit` with every publication of the owner, from a position on, while there are steps.
    fn list_of_owner<T: Serialize>(
        &self,
        owner: OwnerId,
        from: Position,
        budget: Budget,
        mut visit: impl FnMut(&mut PageBuilder<T>, &FileName, IndexedPublication) -> Result<(), PageFull>,
    ) -> Page<T> {
        let mut page = PageBuilder::new(budget);
        for &id in self.owners[owner.0 as usize].names.range(from.name()..) {
            let position = Position::new(id, 0);
            if page.is_spent() {
                return page.end(PageStop::Spent(position));
            }
            page.step(1);
            let name = self.names.name(id).expect("an owner's names are in the index");
            let publication = name.publications.of_owner(owner).expect("an owner publishes its names");
            if visit(&mut page, &name.text, publication).is_err() {
                return page.end(PageStop::Full(position));
            }
        }
        page.end(PageStop::Complete)
    }

    /// `sch`: names that an active owner publishes visibly to the requester, without the names that the requester publishes
    /// itself.
    pub fn search(&self, requester: OwnerId, query: &NameQuery, from: Position, budget: Budget) -> Page<FileName> {
        let mut visibility = self.visibility(requester);
        self.list(query, from, budget, |page, id, name| {
            let publications = &name.publications;
            if publications.of_owner(requester).is_some() {
                return ControlFlow::Continue(());
            }
            let mut is_visible = false;
            for group in 0..publications.group_end() {
                page.step(1);
                is_visible = publications.group(group).entries.iter().any(|entry| {
                    page.step(cost(entry));
                    visibility.is_visible(entry)
                });
                if is_visible {
                    break;
                }
            }
            if is_visible && page.try_push(name.text.clone()).is_err() {
                return ControlFlow::Break(PageStop::Full(Position::new(id, 0)));
            }
            ControlFlow::Continue(())
        })
    }

    /// `sch -l`, `get`: the distinct contents of such names. `now_s`: seconds since 1970.
    ///
    /// `sch -l` leaves out the names that the requester publishes itself, as `sch` does; `get` does not, since it can
    /// download what others publish under them.
    pub fn resolve(
        &self,
        requester: OwnerId,
        query: &NameQuery,
        from: Position,
        budget: Budget,
        now_s: u64,
        purpose: ResolvePurpose,
    ) -> Page<AvailableContent> {
        let mut visibility = self.visibility(requester);
        self.list(query, from, budget, |page, id, name| {
            if purpose == ResolvePurpose::List && name.publications.of_owner(requester).is_some() {
                return ControlFlow::Continue(());
            }
            let start = if id == from.name() { from.group() } else { 0 };
            for number in start..name.publications.group_end() {
                if number > start && page.is_spent() {
                    return ControlFlow::Break(PageStop::Spent(Position::new(id, number)));
                }
                let group = name.publications.group(number);
                page.step(1 + group.entries.iter().map(cost).sum::<usize>());
                if let Some(available) = available_content(&name.text, group, &mut visibility, now_s)
                    && page.try_push(available).is_err()
                {
                    return ControlFlow::Break(PageStop::Full(Position::new(id, number)));
                }
            }
            ControlFlow::Continue(())
        })
    }

    pub(super) fn visibility(&self, requester: OwnerId) -> Visibility<'_> {
        Visibility { index: self, requester, user: self.user(requester), last: (AudienceId::EVERYONE, true) }
    }

    /// Calls `visit` with every name that matches, from a position on, while there are steps.
    fn list<T: Serialize>(
        &self,
        query: &NameQuery,
        from: Position,
        budget: Budget,
        mut visit: impl FnMut(&mut PageBuilder<T>, u32, &Name) -> ControlFlow<PageStop>,
    ) -> Page<T> {
        let mut page = PageBuilder::new(budget);
        let mut matcher = Matcher::new(query);
        for CandidateId { id, may_match } in self.candidates(query, from.name()) {
            if page.is_spent() {
                let next = if id == from.name() { from } else { Position::new(id, 0) };
                return page.end(PageStop::Spent(next));
            }
            page.step(1);
            let Some(name) = self.names.name(id).filter(|_| may_match) else { continue };
            page.step(matcher.extra_steps(name.text.as_str()));
            if matcher.matches(name.text.as_str())
                && let ControlFlow::Break(end) = visit(&mut page, id, name)
            {
                return page.end(end);
            }
        }
        page.end(PageStop::Complete)
    }

    /// Ids to examine, ascending from `from`.
    fn candidates<'a>(&'a self, query: &NameQuery, from: u32) -> Box<dyn Iterator<Item = CandidateId> + 'a> {
        let may_match = |id| CandidateId { id, may_match: true };
        let trigrams = self.names.trigrams();
        let candidates = match query {
            NameQuery::Exact(name) => {
                return Box::new(self.names.find(name).filter(|&id| id >= from).into_iter().map(may_match));
            }
            NameQuery::Equivalent(name) => return Box::new(self.names.equivalent(name, from).map(may_match)),
            NameQuery::Prefix(prefix) => trigrams.starting_with(prefix),
            NameQuery::Substring(needle) | NameQuery::SubstringIgnoreCase(needle) => trigrams.containing(needle),
        };
        let end = self.names.end();
        let not_indexed = (from.max(self.names.indexed_up_to())..end).map(may_match);
        match candidates {
            Candidates::None => Box::new(not_indexed),
            Candidates::All => Box::new((from..end).map(may_match)),
            Candidates::Rarest(rarest, others) => {
                let in_all = move |id| others.iter().all(|list| list.contains(id));
                let indexed = rarest.iter_from(from).map(move |id| CandidateId { id, may_match: in_all(id) });
                Box::new(indexed.chain(not_indexed))
            }
        }
    }
}

/// An id that a search examines, in one step.
struct CandidateId {
    id: u32,
    /// `false`: the trigrams exclude a match.
    may_match: bool,
}

/// What one requester may see.
pub(super) struct Visibility<'a> {
    index: &'a Index,
    requester: OwnerId,
    user: &'a UserName,
    /// The audience examined last, and whether it includes the requester: the next is often the same.
    last: (AudienceId, bool),
}

impl Visibility<'_> {
    /// Whether the requester may find and download this publication of another user now.
    pub(super) fn is_visible(&mut self, entry: &PublicationEntry) -> bool {
        if entry.owner == self.requester || !self.index.active[entry.owner.0 as usize] {
            return false;
        }
        if entry.audience == AudienceId::EVERYONE {
            return true;
        }
        if self.last.0 != entry.audience {
            self.last = (entry.audience, self.index.audiences.audience(entry.audience).includes(self.user));
        }
        self.last.1
    }
}

/// Why a page ends, and where the list continues.
enum PageStop {
    Complete,
    /// The steps are used up.
    Spent(Position),
    /// The next entry does not fit.
    Full(Position),
}

/// A page under construction.
struct PageBuilder<T> {
    entries: Vec<T>,
    bytes_left: usize,
    steps: usize,
    steps_left: usize,
}

/// The entry does not fit into the page.
struct PageFull;

impl<T: Serialize> PageBuilder<T> {
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

    fn try_push(&mut self, entry: T) -> Result<(), PageFull> {
        self.bytes_left = self.bytes_left.checked_sub(encoded_len(&entry)).ok_or(PageFull)?;
        self.entries.push(entry);
        Ok(())
    }

    fn end(self, end: PageStop) -> Page<T> {
        let (next, full) = match end {
            PageStop::Complete => (None, false),
            PageStop::Spent(position) => (Some(position), false),
            PageStop::Full(position) => (Some(position), true),
        };
        Page { entries: self.entries, next, full, steps: self.steps - self.steps_left }
    }
}

/// The query, prepared for many names.
enum Matcher<'a> {
    /// The name was found by its text.
    Found,
    /// The normal form of the prefix.
    Prefix(Cow<'a, str>),
    /// The normal form of the needle.
    Contains(Finder<'static>),
    /// The folded needle, and a buffer for a folded name.
    ContainsIgnoringCase(Finder<'static>, Vec<u8>),
}

impl<'a> Matcher<'a> {
    fn new(query: &'a NameQuery) -> Self {
        match query {
            NameQuery::Exact(_) | NameQuery::Equivalent(_) => Self::Found,
            NameQuery::Prefix(prefix) => Self::Prefix(normal_form(prefix)),
            NameQuery::Substring(needle) => Self::Contains(Finder::new(&*normal_form(needle)).into_owned()),
            NameQuery::SubstringIgnoreCase(needle) => {
                Self::ContainsIgnoringCase(Finder::new(&fold(needle)).into_owned(), Vec::new())
            }
        }
    }

    /// Steps of the comparison with this name, besides one for the name.
    fn extra_steps(&self, name: &str) -> usize {
        match self {
            Self::ContainsIgnoringCase(..) if name.is_ascii() => name.len() / FOLDED_BYTES,
            Self::ContainsIgnoringCase(..) => name.len() / FOLDED_BYTES_NON_ASCII,
            Self::Prefix(_) | Self::Contains(_) if !name.is_ascii() => name.len() / NORMALIZED_BYTES,
            Self::Found | Self::Prefix(_) | Self::Contains(_) => 0,
        }
    }

    fn matches(&mut self, name: &str) -> bool {
        match self {
            Self::Found => true,
            Self::Prefix(prefix) => normal_form(name).starts_with(&**prefix),
            Self::Contains(needle) => needle.find(normal_form(name).as_bytes()).is_some(),
            Self::ContainsIgnoringCase(needle, folded) => {
                folded.clear();
                fold_into(name, folded);
                needle.find(folded).is_some()
            }
        }
    }
}

fn cost(entry: &PublicationEntry) -> usize {
    if entry.audience == AudienceId::EVERYONE { 1 } else { RESTRICTED_STEPS }
}

/// One content of a name; `None` if no publication of it is visible.
fn available_content(
    name: &FileName,
    group: ContentGroup<'_>,
    visibility: &mut Visibility<'_>,
    now_s: u64,
) -> Option<AvailableContent> {
    let digests = &visibility.index.user_digests;
    let visible = group.entries.iter().filter(|entry| visibility.is_visible(entry));
    // The time of the oldest publication: a user who publishes the same content later must not set it for everyone.
    let (mut sources, mut oldest, mut users) = (0, None, UsersDigest::default());
    for entry in visible {
        let this = (entry.published_s, entry.mtime_ms);
        oldest = Some(oldest.map_or(this, |oldest| this.min(oldest)));
        users = [users, digests[entry.owner.0 as usize]].into_iter().collect();
        sources += 1;
    }
    let (published_s, mtime_ms) = oldest?;
    let (content, age_s) = (group.key.content(mtime_ms), now_s.saturating_sub(published_s));
    Some(AvailableContent { name: name.clone(), content, sources, age_s, users })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::common::types::{Audience, Content, ContentHash, NamedContent};

    fn name(text: &str) -> FileName {
        FileName::parse(text).unwrap()
    }

    #[test]
    fn a_long_name_that_must_be_folded_or_normalized_costs_several_steps() {
        let steps = |query: NameQuery, name: &str| Matcher::new(&query).extra_steps(name);
        let ignoring_case = |name: &str| steps(NameQuery::SubstringIgnoreCase("x".into()), name);
        let ascii = |len| "a".repeat(len);
        assert_eq!([127, 128, 255, 256, 512].map(|len| ignoring_case(&ascii(len))), [0, 1, 1, 2, 4]);
        let other = |len: usize| "é".repeat(len / 2);
        assert_eq!([6, 8, 14, 16, 512].map(|len| ignoring_case(&other(len))), [0, 1, 1, 2, 64]);
        for query in [NameQuery::Prefix("x".into()), NameQuery::Substring("x".into())] {
            let of = |name: &str| steps(query.clone(), name);
            assert_eq!([30, 32, 62, 64, 512].map(|len| of(&other(len))), [0, 1, 1, 2, 16]);
            assert_eq!(of(&ascii(512)), 0);
        }
        assert_eq!(steps(NameQuery::Exact(name("x")), &other(512)), 0, "found by its text");
    }

    #[test]
    fn a_page_costs_a_step_for_whatever_it_examines() {
        let mut index = Index::default();
        let users = ["hans", "vader", "yoda"].map(|name| UserName::parse(name).unwrap());
        let [hans, vader, yoda] = users.each_ref().map(|user| index.intern_owner(user));
        [hans, vader, yoda].into_iter().for_each(|owner| index.set_active(owner, true));
        let (everyone, restricted) = (Arc::new(Audience::Everyone), Arc::new(Audience::only(vec![users[2].clone()])));
        let file = |text, content| {
            let content = Content { hash: ContentHash([content; 32]), size: 1, mtime_ms: 2 };
            NamedContent { name: name(text), content }
        };
        index.publish(hans, &file("a", 1), &everyone, 0);
        index.publish(hans, &file("b", 1), &restricted, 0);
        index.publish(vader, &file("b", 2), &restricted, 0);

        let costs = |requester, text: &str| {
            let (query, from) = (NameQuery::Exact(name(text)), Position::default());
            let search = index.search(requester, &query, from, Budget::PAGE);
            let resolve = index.resolve(requester, &query, from, Budget::PAGE, 0, ResolvePurpose::List);
            (search.steps, resolve.steps)
        };
        // The name, its contents, their publications: of a restricted one, the audience is searched.
        assert_eq!(costs(yoda, "a"), (1 + 1 + 1, 1 + 1 + 1));
        assert_eq!(costs(yoda, "b"), (1 + 1 + RESTRICTED_STEPS, 1 + 2 * (1 + RESTRICTED_STEPS)), "one is enough");
        assert_eq!(costs(vader, "b"), (1, 1), "an own name is listed by neither");
        assert_eq!(costs(yoda, "none"), (0, 0));
        let mut steps =
            |page: usize| index.published(hans, Position::default(), Budget { bytes: 1_000, steps: page }, 0).steps;
        assert_eq!([0, 1, 2, 9].map(&mut steps), [1, 1, 2, 2], "at least one name");
        assert_eq!(index.shared(yoda, hans, Position::default(), Budget::PAGE, 0).steps, 2 + 1 + RESTRICTED_STEPS);
        let is_available = |requester, text| index.is_available(requester, &name(text));
        assert_eq!(is_available(yoda, "a"), (true, 3));
        assert_eq!(is_available(yoda, "b"), (true, 3));
        // Under itself, and among the names of its normal form.
        assert_eq!(is_available(hans, "b"), (false, 1 + 2 * 3));
        assert_eq!(is_available(yoda, "none"), (false, 1));
    }
}
