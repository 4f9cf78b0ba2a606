//! The index beside a model too simple to be wrong: one map, walked whole for every question.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::common::message::{NameQuery, ResolvePurpose};

/// More than a name looks through one by one.
const OWNERS: usize = 24;
const NAMES: [&str; 12] =
    ["a", "ab", "abc", "ABC", "xabc", "abc/d", "abc/de", "dir/abc", "ä/Σς", "ΣΣabcΣ", "bcd", "abcabcabc"];
const NEEDLES: [&str; 12] = ["", "a", "ab", "abc", "bca", "ABC", "abc/", "dir/", "Σ", "σ", "zzz", "c"];

#[derive(Debug, Clone)]
enum Change {
    Publish { owner: usize, name: usize, content: u8, audience: u8 },
    Unpublish { owner: usize, name: usize },
    Activate { owner: usize, active: bool },
    Defer,
    Settle(usize),
}

#[derive(Debug, Clone)]
struct Publication {
    content: Content,
    audience: Arc<Audience>,
    published_s: u64,
}

/// What a list shows: a name, or a content of it.
type Shown = (FileName, Option<(ContentHash, u64)>);

struct World {
    index: Index,
    users: Vec<UserName>,
    owners: Vec<OwnerId>,
    active: BTreeSet<usize>,
    model: BTreeMap<(usize, FileName), Publication>,
    clock_s: u64,
}

impl World {
    fn new() -> Self {
        let users: Vec<_> = (0..OWNERS).map(|i| UserName::parse(&format!("user{i}")).unwrap()).collect();
        let mut index = Index::new();
        let owners = users.iter().map(|user| index.intern_owner(user)).collect();
        let mut world = Self { index, users, owners, active: BTreeSet::new(), model: BTreeMap::new(), clock_s: 1_000 };
        (0..OWNERS).for_each(|owner| world.apply(&Change::Activate { owner, active: true }));
        world
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
                self.index.publish(self.owners[owner], &file, &audience, self.clock_s);
                self.model.insert((owner, name), Publication { content, audience, published_s: self.clock_s });
            }
            Change::Unpublish { owner, name } => {
                let name = FileName::parse(NAMES[name]).unwrap();
                let was_there = self.model.remove(&(owner, name.clone())).is_some();
                assert_eq!(self.index.unpublish(self.owners[owner], &name), was_there);
            }
            Change::Defer => self.index.defer_indexing(),
            Change::Settle(most) => {
                self.index.index_pending(most);
            }
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

    /// Publications of matching names that the asker may see.
    fn visible(&self, asker: usize, query: &NameQuery) -> Vec<(usize, &FileName, &Publication)> {
        let matches = |name: &str| match query {
            NameQuery::Exact(exact) => name == exact.as_str(),
            NameQuery::Prefix(prefix) => name.starts_with(prefix),
            NameQuery::Substring(needle) => name.contains(needle),
            NameQuery::SubstringIgnoreCase(needle) => name.to_lowercase().contains(&needle.to_lowercase()),
        };
        let all = self.model.iter().map(|((owner, name), publication)| (*owner, name, publication));
        all.filter(|(owner, name, publication)| {
            *owner != asker
                && self.active.contains(owner)
                && matches(name.as_str())
                && publication.audience.includes(&self.users[asker])
        })
        .collect()
    }

    fn shown(&self, asker: usize, query: &NameQuery, contents: bool) -> BTreeSet<Shown> {
        let visible = self.visible(asker, query).into_iter();
        let visible = visible.filter(|(_, name, _)| contents || !self.model.contains_key(&(asker, (*name).clone())));
        let key = |content: &Content| contents.then_some((content.hash, content.size));
        visible.map(|(_, name, publication)| (name.clone(), key(&publication.content))).collect()
    }

    fn page(&self, asker: usize, query: &NameQuery, contents: bool, from: Position, budget: Budget) -> Page<Shown> {
        let asker = self.owners[asker];
        if contents {
            let page = self.index.resolve(asker, query, from, budget, self.clock_s, ResolvePurpose::Download);
            let key = |content: Content| Some((content.hash, content.size));
            let entries = page.entries.into_iter().map(|entry| (entry.name, key(entry.content))).collect();
            Page { entries, next: page.next, full: page.full, steps: page.steps }
        } else {
            let page = self.index.search(asker, query, from, budget);
            let entries = page.entries.into_iter().map(|name| (name, None)).collect();
            Page { entries, next: page.next, full: page.full, steps: page.steps }
        }
    }

    /// Every answer about one asker and query is the model's.
    fn check(&self, asker: usize, query: &NameQuery, budget: Budget) {
        for contents in [false, true] {
            let (mut shown, mut from) = (Vec::new(), Some(Position::default()));
            while let Some(position) = from {
                let page = self.page(asker, query, contents, position, budget);
                assert!(page.next != from, "a page makes progress");
                shown.extend(page.entries);
                from = page.next;
            }
            shown.sort();
            assert_eq!(shown, Vec::from_iter(self.shown(asker, query, contents)), "{query:?}");
        }
        for entry in self
            .index
            .resolve(self.owners[asker], query, Position::default(), budget, self.clock_s, ResolvePurpose::Download)
            .entries
        {
            let visible = self.visible(asker, &NameQuery::Exact(entry.name.clone())).into_iter();
            let key = (entry.content.hash, entry.content.size);
            let same: Vec<_> = visible.filter(|(_, _, p)| (p.content.hash, p.content.size) == key).collect();
            assert_eq!(entry.sources as usize, same.len());
            assert_eq!(Some(entry.content.mtime_ms), same.iter().map(|(_, _, p)| p.content.mtime_ms).max());
            assert_eq!(Some(self.clock_s - entry.age_s), same.iter().map(|(_, _, p)| p.published_s).min());
            let wanted = ContentRef { name: entry.name, hash: entry.content.hash, size: entry.content.size };
            let sources = self.index.sources(self.owners[asker], &wanted, OWNERS, 5).into_iter();
            let expected = same.iter().map(|&(owner, ..)| self.owners[owner]).collect();
            assert_eq!(sources.collect::<BTreeSet<_>>(), expected);
        }
    }

    fn check_own(&self, owner: usize, budget: Budget) {
        let mut rebuilt = Index::new();
        let (id, again) = (self.owners[owner], rebuilt.intern_owner(&self.users[owner]));
        let mut expected = Vec::new();
        for ((_, name), publication) in self.model.iter().filter(|((of, _), _)| *of == owner) {
            let (content, audience) = (publication.content, &publication.audience);
            rebuilt.publish(again, &NamedContent { name: name.clone(), content }, audience, 0);
            expected.push((name.clone(), content, **audience != Audience::Everyone));
            assert_eq!(self.index.publication(id, name), Some((content, &**audience)));
        }
        assert_eq!(self.index.digest(id), rebuilt.digest(again));
        let (mut own, mut from) = (Vec::new(), Some(Position::default()));
        while let Some(position) = from {
            let page = self.index.published(id, position, budget);
            own.extend(page.entries.into_iter().map(|entry| (entry.name, entry.content, entry.restricted)));
            from = page.next;
        }
        own.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(own, expected);
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (0..OWNERS, 0..NAMES.len(), 0..6_u8, 0..5_u8)
            .prop_map(|(owner, name, content, audience)| Change::Publish { owner, name, content, audience }),
        3 => (0..OWNERS, 0..NAMES.len()).prop_map(|(owner, name)| Change::Unpublish { owner, name }),
        1 => prop_oneof![Just(Change::Defer), (0..4_usize).prop_map(Change::Settle)],
        1 => (0..OWNERS, any::<bool>()).prop_map(|(owner, active)| Change::Activate { owner, active }),
    ]
}

/// Many owners of few names, or few of each.
fn crowd() -> impl Strategy<Value = Vec<Change>> {
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
        needle().prop_map(NameQuery::Prefix),
        needle().prop_map(NameQuery::Substring),
        needle().prop_map(NameQuery::SubstringIgnoreCase),
    ]
}

/// Room for one to a few entries.
fn budget() -> impl Strategy<Value = Budget> {
    (70..200_usize, 0..40_usize).prop_map(|(bytes, steps)| Budget { bytes, steps })
}

proptest! {
    #[test]
    fn the_index_answers_as_the_model(
        changes in crowd(),
        questions in prop::collection::vec((0..OWNERS, query(), budget()), 20),
    ) {
        let mut world = World::new();
        let every = changes.len().div_ceil(questions.len()).max(1);
        for (at, change) in changes.iter().enumerate() {
            world.apply(change);
            if at % every == 0 {
                let (asker, query, budget) = &questions[at / every];
                world.check(*asker, query, *budget);
            }
        }
        for (asker, query, budget) in &questions {
            world.check(*asker, query, *budget);
            world.check_own(*asker, *budget);
        }
        prop_assert_eq!(world.index.publication_count(), world.model.len());
        for (owner, name) in world.model.keys().cloned().collect::<Vec<_>>() {
            prop_assert!(world.index.unpublish(world.owners[owner], &name));
        }
        prop_assert!(world.index.names.is_clear());
        prop_assert_eq!(world.index.audiences.len(), 1);
    }

    #[test]
    fn a_changing_list_shows_what_was_there_throughout_once(
        before in crowd(),
        meanwhile in prop::collection::vec(prop::collection::vec(change(), 0..5), 1..30),
        asker in 0..OWNERS,
        query in query(),
        budget in budget(),
        contents in any::<bool>(),
    ) {
        let mut world = World::new();
        before.iter().for_each(|change| world.apply(change));
        let mut throughout = world.shown(asker, &query, contents);
        let mut ever = throughout.clone();
        let (mut shown, mut from, mut meanwhile) = (Vec::new(), Some(Position::default()), meanwhile.iter());
        while let Some(position) = from {
            let page = world.page(asker, &query, contents, position, budget);
            shown.extend(page.entries);
            from = page.next;
            for change in meanwhile.next().into_iter().flatten() {
                // The last changes come after the list has ended, and must not count.
                if from.is_some() {
                    world.apply(change);
                    let now = world.shown(asker, &query, contents);
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
