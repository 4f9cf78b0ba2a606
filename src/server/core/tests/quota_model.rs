//! The quotas and the rate of one user compared with a map of what is published and a number of tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use crate::common::message::{AudienceRef, Quota, Request, Response};
use crate::server::core::{Quotas, ServerConfig};
use crate::server::test_support::{TestClient, TestServer, file, name, origin, user};

const NAMES: [&str; 6] = ["a", "bb", "ccc", "dddd", "e/e", "ff"];
/// Who may see a name; everyone if it is empty.
type Members = BTreeSet<&'static str>;
const MEMBERS: [&str; 4] = ["leia", "luke", "vader", "yoda"];
/// Time from one request to the next, milliseconds.
const STEP_MS: i64 = 250;

#[derive(Debug, Clone)]
enum Op {
    Publish {
        names: Vec<usize>,
        members: usize,
    },
    Unpublish {
        names: Vec<usize>,
    },
    /// The quotas of files, of bytes of names, and of members.
    SetQuotas(u64, u64, u64),
    Pass {
        ms: u16,
    },
}

#[derive(Default)]
struct Model {
    published: BTreeMap<&'static str, Members>,
    /// Thousandths of a token; a user without tokens is delayed.
    level: i64,
}

impl Model {
    /// Files, bytes of their names, and members of the distinct audiences.
    fn usage(published: &BTreeMap<&'static str, Members>) -> [u64; 3] {
        let audiences: BTreeSet<_> = published.values().collect();
        let name_bytes = published.keys().map(|name| name.len()).sum::<usize>();
        let members = audiences.into_iter().map(BTreeSet::len).sum::<usize>();
        [published.len() as u64, name_bytes as u64, members as u64]
    }

    fn pass(&mut self, quotas: &Quotas, ms: i64) {
        let rate = quotas.files_per_s as i64;
        self.level = (self.level + ms * rate).min(50_000 * rate);
    }

    fn charge(&mut self, quotas: &Quotas, tokens: usize) -> Option<Response> {
        if self.level < 1_000 {
            let retry_ms = ((1_000 - self.level) / quotas.files_per_s as i64).clamp(50, 5_000) as u16;
            return Some(Response::Busy { retry_ms });
        }
        self.level -= 1_000 * tokens as i64;
        None
    }

    /// Why it is refused, if it is.
    fn publish(&mut self, quotas: &Quotas, names: &[&'static str], members: &Members) -> Option<Response> {
        let is_new = !self.published.values().any(|of| of == members);
        let delay = self.charge(quotas, names.len() + if is_new { members.len() } else { 0 });
        if delay.is_some() {
            return delay;
        }
        let mut after = self.published.clone();
        after.extend(names.iter().map(|name| (*name, members.clone())));
        let maxima = [quotas.files, quotas.name_bytes, quotas.audience_members];
        let kinds = [Quota::Files, Quota::NameBytes, Quota::AudienceMembers];
        for (at, quota) in kinds.into_iter().enumerate() {
            let (before, after) = (Self::usage(&self.published)[at], Self::usage(&after)[at]);
            if after > maxima[at] && after > before {
                return Some(Response::OverQuota { quota, max: maxima[at] });
            }
        }
        self.published = after;
        None
    }

    /// Which of them were published, or why it is delayed.
    fn unpublish(&mut self, quotas: &Quotas, names: &[&'static str]) -> Result<u64, Response> {
        if !names.iter().any(|name| self.published.contains_key(name)) {
            return Ok(0);
        }
        if let Some(delay) = self.charge(quotas, names.len()) {
            return Err(delay);
        }
        let removed = names.iter().map(|name| self.published.remove(name).is_some());
        Ok(removed.zip(0..).fold(0, |mask, (was_there, at)| mask | u64::from(was_there) << at))
    }
}

fn chosen(names: &[usize]) -> Vec<&'static str> {
    names.iter().map(|&at| NAMES[at]).collect()
}

fn publish(test: &mut TestServer, client: &mut TestClient, names: &[&str], members: &Members) -> Response {
    let audience = match members.is_empty() {
        true => AudienceRef::Everyone,
        false => {
            let users = members.iter().map(|name| user(name)).collect();
            let staged = test.request(client, Request::StageAudience { key: 1, part: 0, users });
            assert_eq!(staged, Response::AudienceStaged);
            AudienceRef::Staged(1)
        }
    };
    test.request(client, Request::Publish { files: names.iter().map(|name| file(name)).collect(), audience })
}

fn listed(test: &mut TestServer, client: &mut TestClient) -> Vec<(String, bool)> {
    match test.request(client, Request::OwnPublications { user_initiated: true, cursor: None }) {
        Response::OwnPublications { entries, next: None } => {
            entries.into_iter().map(|entry| (entry.name.as_str().to_owned(), entry.restricted)).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The session stays alive meanwhile.
fn pass(test: &mut TestServer, client: &mut TestClient, ms: u16) {
    for at in (0..ms).step_by(1_000) {
        test.advance(Duration::from_millis((ms - at).min(1_000).into()));
        test.heartbeat(client);
    }
}

fn op() -> impl Strategy<Value = Op> {
    let names = || prop::collection::vec(0..NAMES.len(), 1..4);
    prop_oneof![
        8 => (names(), 0..1_usize << MEMBERS.len()).prop_map(|(names, members)| Op::Publish { names, members }),
        3 => names().prop_map(|names| Op::Unpublish { names }),
        1 => (0..7_u64, 0..16_u64, 0..12_u64).prop_map(|(files, bytes, members)| Op::SetQuotas(files, bytes, members)),
        1 => (0..8_000_u16).prop_map(|ms| Op::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn quotas_and_rate_agree_with_a_map(
        // A token comes back after whole milliseconds, so that nothing is rounded.
        files_per_s in prop::sample::select(&[1, 2, 4][..]),
        ops in prop::collection::vec(op(), 0..120)) {
        let mut quotas = Quotas { files: 5, name_bytes: 12, audience_members: 7, files_per_s };
        let mut test = TestServer::start(&[], ServerConfig { quotas, ..ServerConfig::default() }, origin());
        let mut client = test.insert_session("hans");
        let mut model = Model { level: 50_000 * files_per_s as i64, ..Model::default() };
        for op in ops {
            test.advance(Duration::from_millis(STEP_MS as u64));
            model.pass(&quotas, STEP_MS);
            match op {
                Op::Publish { names, members } => {
                    let names = chosen(&names);
                    let members = MEMBERS.into_iter().enumerate().filter(|(at, _)| members & (1 << at) != 0);
                    let members: Members = members.map(|(_, name)| name).collect();
                    let response = publish(&mut test, &mut client, &names, &members);
                    match model.publish(&quotas, &names, &members) {
                        Some(refusal) => prop_assert_eq!(response, refusal),
                        None => prop_assert!(matches!(response, Response::Published { .. }), "{:?}", response),
                    }
                }
                Op::Unpublish { names } => {
                    let names = chosen(&names);
                    let removed = Request::Unpublish { names: names.iter().map(|text| name(text)).collect() };
                    let result = match test.request(&mut client, removed) {
                        Response::Unpublished { published_mask, .. } => Ok(published_mask),
                        other => Err(other),
                    };
                    prop_assert_eq!(result, model.unpublish(&quotas, &names));
                }
                Op::SetQuotas(files, name_bytes, audience_members) => {
                    quotas = Quotas { files, name_bytes, audience_members, files_per_s };
                    test.server.config.quotas = quotas;
                }
                Op::Pass { ms } => {
                    pass(&mut test, &mut client, ms);
                    model.pass(&quotas, ms.into());
                }
            }
            let expected: Vec<_> =
                model.published.iter().map(|(name, members)| (name.to_string(), !members.is_empty())).collect();
            let mut listed = listed(&mut test, &mut client);
            listed.sort();
            prop_assert_eq!(listed, expected);
        }
    }
}
