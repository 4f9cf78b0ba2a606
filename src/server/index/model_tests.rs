//! The index compared with a simple model: one map that every query scans.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::common::message::{NameQuery, ResolvePurpose};
use crate::common::types::{ContentHash, UsersDigest};

/// More than a name scans: from `LOOKUP_FROM` on, owners are found by hash.
const OWNERS: usize = 24;
const NAMES: [&str; 16] = [
    "a",
    "ab",
    "abc",
    "ABC",
    "xabc",
    "abc/d",
    "abc/de",
    "dir/abc",
    "ä/Σς",
    "ΣΣabcΣ",
    "bcd",
    "abcabcabc",
    "a\u{308}/Σς",
    "a\u{323}\u{307}",
    "a\u{307}\u{323}",
    "ạ\u{307}",
];
const NEEDLES: [&str; 16] =
    ["", "ä", "a\u{308}", "Ạ", "ΣΣ", "a", "ab", "abc", "bca", "ABC", "abc/", "dir/", "Σ", "σ", "zzz", "c"];

#[derive(Debug, Clone)]
enum Change {
    Publish { owner: usize, name: usize, content: u8, audience: u8 },
    Unpublish { owner: usize, name: usize },
    Activate { owner: usize, active: bool },
    Defer,
    IndexPending(usize),
}

#[derive(Debug, Clone)]
struct Publication {
    content: Content,
    audience: Arc<Audience>,
    published_s: u64,
}

/// An entry of a list: a name, or a content of it.
type Listed = (FileName, Option<(ContentHash, u64)>);

struct ModelledIndex {
    index: Index,
    users: Vec<UserName>,
    owners: Vec<OwnerId>,
    active: BTreeSet<usize>,
    model: BTreeMap<(usize, FileName), Publication>,
    clock_s: u64,
}

impl ModelledIndex {
    fn new() -> Self {
        let users: Vec<_> = (0..OWNERS).map(|i| UserName::parse(&format!("user{i}")).unwrap()).collect();
        let mut index = Index::default();
        let owners = users.iter().map(|user| index.intern_owner(user)).collect();
        let mut modelled =
            Self { index, users, owners, active: BTreeSet::new(), model: BTreeMap::new(), clock_s: 1_000 };
        (0..OWNERS).for_each(|owner| modelled.apply(&Change::Activate { owner, active: true }));
        modelled
    }

    fn apply(&mut self, change: &Change) {
        self.clock_s += 1;
        match *change {
            Change::Publish { owner, name, content, audience } => {
                let name = FileName::parse(NAMES[name]).unwrap();
                let (hash, size) = (ContentHash([content / 2; 32]), u64::from(content));
                let content = Content { hash, size, mtime_ms: self.clock_s as i64 % 7 };
                let audience = Arc::new(match audience {
                    0 | 1 => Audience::Everyone,
                    _ => Audience::only(self.users.iter().step_by(audience.into()).cloned().collect()),
                });
                let file = NamedContent { name: name.clone(), content };
                let expected = self.index.usage_change(self.owners[owner], std::slice::from_ref(&file), &audience);
                assert_eq!(expected.before, self.index.usage(self.owners[owner]));
                self.index.publish(self.owners[owner], &file, &audience, self.clock_s);
                assert_eq!(expected.after, self.index.usage(self.owners[owner]));
                let before = self.model.get(&(owner, name.clone()));
                let same = before.filter(|before| (before.content.hash, before.content.size) == (hash, size));
                let published_s = same.map_or(self.clock_s, |before| before.published_s);
                self.model.insert((owner, name), Publication { content, audience, published_s });
            }
            Change::Unpublish { owner, name } => {
                let name = FileName::parse(NAMES[name]).unwrap();
                let was_there = self.model.remove(&(owner, name.clone())).is_some();
                assert_eq!(self.index.unpublish(self.owners[owner], &name), was_there);
            }
            Change::Defer => self.index.defer_indexing(),
            Change::IndexPending(limit) => self.index.index_pending(limit),
            Change::Activate { owner, active } => {
                self.index.set_active(self.owners[owner], active);
                if active {
                    self.active.insert(owner)
                } else {
                    self.active.remove(&owner)
                };
            }
        }
    }

    /// Publications of matching names that the requester may see.
    fn visible(&self, requester: usize, query: &NameQuery) -> Vec<(usize, &FileName, &Publication)> {
        let all = self.model.iter().map(|((owner, name), publication)| (*owner, name, publication));
        all.filter(|(owner, name, publication)| {
            *owner != requester
                && self.active.contains(owner)
                && query.matches(name)
                && publication.audience.includes(&self.users[requester])
        })
        .collect()
    }

    fn shown(&self, requester: usize, query: &NameQuery, contents: bool) -> BTreeSet<Listed> {
        let visible = self.visible(requester, query).into_iter();
        let visible =
            visible.filter(|(_, name, _)| contents || !self.model.contains_key(&(requester, (*name).clone())));
        let key = |content: &Content| contents.then_some((content.hash, content.size));
        visible.map(|(_, name, publication)| (name.clone(), key(&publication.content))).collect()
    }

    fn page(
        &self,
        requester: usize,
        query: &NameQuery,
        contents: bool,
        from: Position,
        budget: Budget,
    ) -> Page<Listed> {
        let requester = self.owners[requester];
        if contents {
            let page = self.index.resolve(requester, query, from, budget, self.clock_s, ResolvePurpose::Download);
            let key = |content: Content| Some((content.hash, content.size));
            let entries = page.entries.into_iter().map(|entry| (entry.name, key(entry.content))).collect();
            Page { entries, next: page.next, full: page.full, steps: page.steps }
        } else {
            let page = self.index.search(requester, query, from, budget);
            let entries = page.entries.into_iter().map(|name| (name, None)).collect();
            Page { entries, next: page.next, full: page.full, steps: page.steps }
        }
    }

    /// Compares every result of one query by one requester with the model.
    fn check(&self, requester: usize, query: &NameQuery, budget: Budget) {
        for contents in [false, true] {
            let (mut shown, mut from) = (Vec::new(), Some(Position::default()));
            while let Some(position) = from {
                let page = self.page(requester, query, contents, position, budget);
                assert!(page.next != from, "a page makes progress");
                shown.extend(page.entries);
                from = page.next;
            }
            shown.sort();
            assert_eq!(shown, Vec::from_iter(self.shown(requester, query, contents)), "{query:?}");
        }
        for entry in self
            .index
            .resolve(self.owners[requester], query, Position::default(), budget, self.clock_s, ResolvePurpose::Download)
            .entries
        {
            let visible = self.visible(requester, &NameQuery::Exact(entry.name.clone())).into_iter();
            let key = (entry.content.hash, entry.content.size);
            let same: Vec<_> = visible.filter(|(_, _, p)| (p.content.hash, p.content.size) == key).collect();
            assert_eq!(entry.sources as usize, same.len());
            let oldest = same.iter().map(|(_, _, p)| (p.published_s, p.content.mtime_ms)).min();
            assert_eq!(Some((self.clock_s - entry.age_s, entry.content.mtime_ms)), oldest);
            let users = same.iter().map(|&(owner, ..)| UsersDigest::of(self.index.user(self.owners[owner])));
            assert_eq!(entry.users, users.collect());
            let wanted = ContentRef { name: entry.name, hash: entry.content.hash, size: entry.content.size };
            let sources = self.index.sources(self.owners[requester], &wanted, OWNERS, 5).into_iter();
            let expected = same.iter().map(|&(owner, ..)| self.owners[owner]).collect();
            assert_eq!(sources.collect::<BTreeSet<_>>(), expected);
        }
    }

    fn check_own(&self, owner: usize, budget: Budget) {
        let mut rebuilt = Index::default();
        let (id, again) = (self.owners[owner], rebuilt.intern_owner(&self.users[owner]));
        let mut expected = Vec::new();
        for ((_, name), publication) in self.model.iter().filter(|((of, _), _)| *of == owner) {
            let (content, audience) = (publication.content, &publication.audience);
            rebuilt.publish(again, &NamedContent { name: name.clone(), content }, audience, 0);
            expected.push((name.clone(), content, **audience != Audience::Everyone));
            assert_eq!(self.index.publication(id, name), Some((content, &**audience)));
        }
        assert_eq!(self.index.digest(id), rebuilt.digest(again));
        let own = || self.model.iter().filter(|((of, _), _)| *of == owner);
        let members = |audience: &Audience| if let Audience::Only(users) = audience { users.len() } else { 0 };
        let audiences: BTreeSet<_> = own().map(|(_, publication)| &publication.audience).collect();
        let usage = Usage {
            files: own().count() as u64,
            name_bytes: own().map(|((_, name), _)| name.as_str().len() as u64).sum(),
            audience_members: audiences.into_iter().map(|audience| members(audience) as u64).sum(),
        };
        assert_eq!(self.index.usage(id), usage);
        let (mut own, mut from) = (Vec::new(), Some(Position::default()));
        while let Some(position) = from {
            let page = self.index.published(id, position, budget, 0);
            own.extend(page.entries.into_iter().map(|entry| (entry.name, entry.content, entry.restricted)));
            from = page.next;
        }
        own.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(own, expected);
        for requester in 0..OWNERS {
            let visible = self.visible(requester, &NameQuery::Prefix(String::new())).into_iter();
            let expected: Vec<FileName> =
                visible.filter(|(of, ..)| *of == owner).map(|(_, name, _)| name.clone()).collect();
            let (mut shared, mut from) = (Vec::new(), Some(Position::default()));
            while let Some(position) = from {
                let page = self.index.shared(self.owners[requester], id, position, budget, 0);
                shared.extend(page.entries.into_iter().map(|entry| entry.name));
                from = page.next;
            }
            shared.sort();
            assert_eq!(shared, expected);
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (0..OWNERS, 0..NAMES.len(), 0..6_u8, 0..5_u8)
            .prop_map(|(owner, name, content, audience)| Change::Publish { owner, name, content, audience }),
        3 => (0..OWNERS, 0..NAMES.len()).prop_map(|(owner, name)| Change::Unpublish { owner, name }),
        1 => prop_oneof![Just(Change::Defer), (0..4_usize).prop_map(Change::IndexPending)],
        1 => (0..OWNERS, any::<bool>()).prop_map(|(owner, active)| Change::Activate { owner, active }),
    ]
}

/// Changes to many names with few owners each, or to two names with many.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let to_few = |change| match change {
        Change::Publish { owner, name, content, audience } => {
            Change::Publish { owner, name: name % 2, content, audience }
        }
        Change::Unpublish { owner, name } => Change::Unpublish { owner, name: name % 2 },
        other => other,
    };
    prop_oneof![prop::collection::vec(change(), 0..150), prop::collection::vec(change().prop_map(to_few), 0..300),]
}

fn query() -> impl Strategy<Value = NameQuery> {
    let needle = || prop::sample::select(&NEEDLES[..]).prop_map(String::from);
    prop_oneof![
        prop::sample::select(&NAMES[..]).prop_map(|name| NameQuery::Exact(FileName::parse(name).unwrap())),
        prop::sample::select(&NAMES[..]).prop_map(|name| NameQuery::Equivalent(FileName::parse(name).unwrap())),
        needle().prop_map(NameQuery::Prefix),
        needle().prop_map(NameQuery::Substring),
        needle().prop_map(NameQuery::SubstringIgnoreCase),
    ]
}

/// Enough for one to a few entries.
fn budget() -> impl Strategy<Value = Budget> {
    (70..200_usize, 0..40_usize).prop_map(|(bytes, steps)| Budget { bytes, steps })
}

proptest! {
    #[test]
    fn the_index_agrees_with_the_model(
        changes in changes(),
        queries in prop::collection::vec((0..OWNERS, query(), budget()), 20),
    ) {
        let mut modelled = ModelledIndex::new();
        let every = changes.len().div_ceil(queries.len()).max(1);
        for (at, change) in changes.iter().enumerate() {
            modelled.apply(change);
            if at % every == 0 {
                let (requester, query, budget) = &queries[at / every];
                modelled.check(*requester, query, *budget);
            }
        }
        for (requester, query, budget) in &queries {
            modelled.check(*requester, query, *budget);
            modelled.check_own(*requester, *budget);
        }
        let published: usize = modelled.index.owners.iter().map(|owner| owner.names.len()).sum();
        prop_assert_eq!(published, modelled.model.len());
        prop_assert_eq!(modelled.index.publication_count(), published as u64);
        for (owner, name) in modelled.model.keys().cloned().collect::<Vec<_>>() {
            prop_assert!(modelled.index.unpublish(modelled.owners[owner], &name));
        }
        prop_assert!(modelled.index.names.is_clear());
        prop_assert_eq!(modelled.index.audiences.len(), 1);
    }

    #[test]
    fn a_changing_list_shows_entries_that_existed_throughout_once(
        before in changes(),
        meanwhile in prop::collection::vec(prop::collection::vec(change(), 0..5), 1..30),
        requester in 0..OWNERS,
        query in query(),
        budget in budget(),
        contents in any::<bool>(),
    ) {
        let mut modelled = ModelledIndex::new();
        before.iter().for_each(|change| modelled.apply(change));
        let mut throughout = modelled.shown(requester, &query, contents);
        let mut ever = throughout.clone();
        let (mut shown, mut from, mut meanwhile) = (Vec::new(), Some(Position::default()), meanwhile.iter());
        while let Some(position) = from {
            let page = modelled.page(requester, &query, contents, position, budget);
            shown.extend(page.entries);
            from = page.next;
            for change in meanwhile.next().into_iter().flatten() {
                // Changes after the end of the list do not count.
                if from.is_some() {
                    modelled.apply(change);
                    let now = modelled.shown(requester, &query, contents);
                    throughout.retain(|entry| now.contains(entry));
                    ever.extend(now);
                }
            }
        }
        for entry in &throughout {
            let times = shown.iter().filter(|other| *other == entry).count();
            prop_assert_eq!(times, 1, "{:?}", entry);
        }
        prop_assert!(shown.iter().all(|entry| ever.contains(entry)));
    }
}
