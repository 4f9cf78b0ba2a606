//! The own publications compared with a plain map, whatever the order of logins, lists and changes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::common::types::ContentHash;

const NAMES: [&str; 6] = ["a", "a/b", "a/b/c", "a.b", "ab", "c"];
const USERS: [&str; 3] = ["hans", "vader", "yoda"];

#[derive(Debug, Clone)]
enum Op {
    Login,
    /// An entry of the list that this login loads, counted back from the latest.
    Loaded {
        logins_ago: u64,
        name: usize,
        content: u8,
        audience: u8,
    },
    EndLoading {
        logins_ago: u64,
        is_complete: bool,
    },
    Publish {
        name: usize,
        content: u8,
        audience: u8,
    },
    Announce {
        name: usize,
        content: u8,
        audience: u8,
    },
    Accept {
        name: usize,
        content: u8,
    },
    Unpublish {
        name: usize,
    },
    BeginGuard,
    EndGuard,
}

#[derive(Debug, Clone)]
struct ModelEntry {
    content: u8,
    audience: u8,
    is_accepted: bool,
    has_place: bool,
}

#[derive(Default)]
struct Model {
    login: u64,
    is_loading: bool,
    is_complete: bool,
    published: BTreeMap<usize, ModelEntry>,
    changed: BTreeSet<usize>,
}

impl Model {
    fn publish(&mut self, name: usize, content: u8, audience: u8, is_accepted: bool) {
        let had_place = self.published.get(&name).is_some_and(|before| before.has_place);
        let has_place = is_accepted || had_place;
        self.published.insert(name, ModelEntry { content, audience, is_accepted, has_place });
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Login => {
                *self = Self { login: self.login + 1, is_loading: true, ..Self::default() };
            }
            // What was changed since the login is newer than the list.
            Op::Loaded { logins_ago, name, content, audience } => {
                if logins_ago == 0 && !self.changed.contains(&name) {
                    self.publish(name, content, audience, true);
                }
            }
            Op::EndLoading { logins_ago: 0, is_complete } => {
                (self.is_loading, self.is_complete) = (false, is_complete);
            }
            Op::Publish { name, content, audience } => {
                self.changed.insert(name);
                self.publish(name, content, audience, true);
            }
            Op::Announce { name, content, audience } => {
                self.changed.insert(name);
                self.publish(name, content, audience, false);
            }
            Op::Accept { name, content } => {
                if let Some(entry) = self.published.get_mut(&name).filter(|entry| entry.content == content) {
                    (entry.is_accepted, entry.has_place) = (true, true);
                }
            }
            Op::Unpublish { name } => {
                self.changed.insert(name);
                self.published.remove(&name);
            }
            Op::EndLoading { .. } | Op::BeginGuard | Op::EndGuard => {}
        }
    }

    fn names(&self, which: impl Fn(&str) -> bool) -> BTreeSet<FileName> {
        let names = self.published.keys().map(|&name| NAMES[name]).filter(|name| which(name));
        names.map(|name| FileName::parse(name).unwrap()).collect()
    }
}

fn name(at: usize) -> FileName {
    FileName::parse(NAMES[at]).unwrap()
}

fn user(at: usize) -> UserName {
    UserName::parse(USERS[at]).unwrap()
}

fn content(number: u8) -> Content {
    // Contents 0 and 1 differ in size only.
    Content { hash: ContentHash([number / 2; 32]), size: number.into(), mtime_ms: 0 }
}

/// One bit a user; 0 is everyone.
fn audience(members: u8) -> Audience {
    match members {
        0 => Audience::Everyone,
        _ => Audience::only((0..USERS.len()).filter(|&at| includes(members, at)).map(user).collect()),
    }
}

fn includes(members: u8, user: usize) -> bool {
    members == 0 || members & 1 << user != 0
}

fn apply(publications: &Arc<OwnPublications>, guards: &mut Vec<LoadingGuard>, login: u64, op: &Op) {
    match *op {
        Op::Login => assert_eq!(publications.begin_login(), login + 1),
        Op::Loaded { logins_ago, name: at, content: number, audience: members } => {
            let entry = OwnPublication { name: name(at), content: content(number), age_s: 0, restricted: members != 0 };
            publications.on_loaded(login - logins_ago, &entry, audience(members));
        }
        Op::EndLoading { logins_ago, is_complete } => {
            publications.end_loading(login - logins_ago, is_complete);
        }
        Op::Publish { name: at, content: number, audience: members } => {
            publications.publish(&name(at), content(number), audience(members));
        }
        Op::Announce { name: at, content: number, audience: members } => {
            publications.announce(&name(at), content(number), audience(members));
        }
        Op::Accept { name: at, content: number } => {
            publications.accept([NamedContent { name: name(at), content: content(number) }].iter());
        }
        Op::Unpublish { name: at } => _ = publications.unpublish(&name(at)),
        Op::BeginGuard => guards.push(LoadingGuard::begin(publications)),
        Op::EndGuard => _ = guards.pop(),
    }
}

/// Compares what uploads and commands ask for.
fn check(publications: &OwnPublications, model: &Model) -> Result<(), TestCaseError> {
    for (at, path) in NAMES.into_iter().enumerate() {
        let (entry, found) = (model.published.get(&at), publications.get(&name(at)));
        prop_assert_eq!(found.is_some(), entry.is_some());
        prop_assert_eq!(publications.audience_of(&name(at)), entry.map(|entry| audience(entry.audience)));
        if let (Some(entry), Some(found)) = (entry, found) {
            prop_assert_eq!(found.content, content(entry.content));
            prop_assert_eq!(found.is_accepted.load(Relaxed), entry.is_accepted);
            prop_assert_eq!(found.has_place(), entry.has_place);
        }
        for (number, at_user) in (0..4_u8).flat_map(|number| (0..USERS.len()).map(move |at| (number, at))) {
            let Content { hash, size, .. } = content(number);
            let granted = publications.lookup_granted(&ContentRef { name: name(at), hash, size }, &user(at_user));
            let is_granted = entry.is_some_and(|entry| entry.content == number && includes(entry.audience, at_user));
            prop_assert_eq!(granted.is_some(), is_granted, "{} {}", path, USERS[at_user]);
        }
        let beneath = format!("{path}/");
        let found = publications.names_beneath(path);
        prop_assert_eq!(BTreeSet::from_iter(found.clone()).len(), found.len(), "each once");
        prop_assert_eq!(BTreeSet::from_iter(found), model.names(|of| of == path || of.starts_with(&beneath)));
        let expected = model.names(|of| of.starts_with(path)).into_iter().take(2).collect::<Vec<_>>();
        prop_assert_eq!(publications.names_with_prefix(path, 2), expected);
    }
    if !model.is_loading {
        prop_assert_eq!(publications.is_complete(), model.is_complete);
        let names: Vec<FileName> = (0..NAMES.len()).map(name).collect();
        let restricted = publications.restricted_among(names.iter()).into_iter().collect::<BTreeSet<_>>();
        let expected = model.published.iter().filter(|(_, entry)| entry.audience != 0);
        prop_assert_eq!(restricted, expected.map(|(&at, _)| name(at)).collect());
        for at in 0..NAMES.len() {
            let is_absent = model.is_complete && !model.published.contains_key(&at);
            prop_assert_eq!(publications.is_known_absent(&name(at)), is_absent);
        }
    }
    Ok(())
}

fn op() -> impl Strategy<Value = Op> {
    let file = || (0..NAMES.len(), 0..4_u8, 0..8_u8);
    prop_oneof![
        1 => Just(Op::Login),
        4 => (0..2_u64, file()).prop_map(|(logins_ago, (name, content, audience))| {
            Op::Loaded { logins_ago, name, content, audience }
        }),
        1 => (0..2_u64, any::<bool>()).prop_map(|(logins_ago, is_complete)| Op::EndLoading { logins_ago, is_complete }),
        2 => file().prop_map(|(name, content, audience)| Op::Publish { name, content, audience }),
        2 => file().prop_map(|(name, content, audience)| Op::Announce { name, content, audience }),
        2 => (0..NAMES.len(), 0..4_u8).prop_map(|(name, content)| Op::Accept { name, content }),
        2 => (0..NAMES.len()).prop_map(|name| Op::Unpublish { name }),
        1 => Just(Op::BeginGuard),
        1 => Just(Op::EndGuard),
    ]
}

proptest! {
    #[test]
    fn own_publications_agree_with_a_map(ops in prop::collection::vec(op(), 0..60)) {
        let (publications, mut guards) = (Arc::new(OwnPublications::default()), Vec::new());
        let mut model = Model::default();
        let mut waiting: Option<Receiver<Infallible>> = None;
        for op in [Op::Login].iter().chain(&ops) {
            apply(&publications, &mut guards, model.login, op);
            model.apply(op);
            check(&publications, &model)?;
            prop_assert_eq!(publications.is_loading(), !guards.is_empty());
            // An upload that waits is woken when the last guard is gone.
            if guards.is_empty() {
                let is_woken = |waiting: Receiver<Infallible>| waiting.try_recv().is_err_and(|error| error.is_disconnected());
                prop_assert!(waiting.take().is_none_or(is_woken));
            } else if waiting.is_none() {
                waiting = publications.loading();
            }
        }
        let members: BTreeSet<u8> = model.published.values().map(|entry| entry.audience).collect();
        prop_assert!(lock(&publications.table).members() >= members.iter().map(|members| members.count_ones() as usize).sum());
    }
}
