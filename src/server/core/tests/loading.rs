//! What the journal had stored comes back: at start, and of users who are in the credentials only later.

use std::sync::Arc;

use crate::common::message::{Request, Response};
use crate::common::types::{Audience, InstanceId, RequestId};
use crate::server::auth::credentials_reload::StoredRows;
use crate::server::core::LoadedState;
use crate::server::journal::{LastMutation, LoadSink, StoredPublication};
use crate::server::test_support::{TestServer, WALL_MS, credentials, file, name, user};

fn stored(owner: &str, text: &str) -> StoredPublication {
    let audience = Arc::new(Audience::only(vec![user("yoda")]));
    StoredPublication { user: user(owner), file: file(text), audience, published_s: WALL_MS / 1_000 - 100 }
}

#[test]
fn what_listed_users_have_stored_is_loaded_user_by_user() {
    let mut state = LoadedState::of_users(["hans", "leia"].map(user).into_iter());
    assert!(state.wants(&user("hans")) && state.wants(&user("leia")) && !state.wants(&user("vader")));
    assert!(LoadedState::new().wants(&user("vader")));
    let publications = [("hans", "a"), ("hans", "b"), ("leia", "a"), ("leia", "c")];
    publications.into_iter().for_each(|(owner, text)| state.publication(stored(owner, text)));
    for owner in ["hans", "leia"] {
        let id = state.index.find_owner(&user(owner)).unwrap();
        let names: Vec<_> = state.index.names_of(id, 0).map(|(_, name)| name.to_string()).collect();
        let expected: Vec<_> = publications.iter().filter(|(of, _)| *of == owner).map(|(_, name)| *name).collect();
        assert_eq!(names, expected);
        let (content, audience) = state.index.publication(id, &name("a")).unwrap();
        assert_eq!((content, audience), (file("a").content, &Audience::only(vec![user("yoda")])));
    }
}

#[test]
fn a_user_who_comes_back_to_the_credentials_has_what_was_stored() {
    let mut test = TestServer::new(&["vader"]);
    assert_eq!(test.server.loaded_users(), [user("vader")].into());
    let last = LastMutation { instance: InstanceId(7), request: RequestId(9), found: None };
    let (publications, last_mutations) = (vec![stored("hans", "a"), stored("hans", "b")], vec![(user("hans"), last)]);
    test.server.load(StoredRows { publications, last_mutations });
    test.set_credentials(credentials(&["hans", "vader"]));
    assert_eq!(test.server.loaded_users(), ["hans", "vader"].map(user).into());
    let mut hans = test.login("127.0.0.1:4000", "hans");
    assert_eq!(hans.params.last_writer, InstanceId(7));
    let own = Request::OwnPublications { user_initiated: true, cursor: None };
    let Response::OwnPublications { entries, .. } = test.request(&mut hans, own) else { panic!("no list") };
    let entries: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.restricted, entry.age_s)).collect();
    assert_eq!(entries, [("a", true, 100), ("b", true, 100)]);
}
