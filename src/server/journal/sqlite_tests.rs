//! The data file with access to its internals: limits of SQLite, versions, damage.

use std::fs;
use std::sync::Arc;

use super::*;
use crate::common::types::{Content, ContentHash, FileName, InstanceId, NamedContent, RequestId};
use crate::server::journal::{Journal, LastMutation, StoredPublication};

#[derive(Default)]
struct Contents {
    publications: Vec<StoredPublication>,
    last: Vec<(UserName, LastMutation)>,
}

impl LoadSink for Contents {
    fn publication(&mut self, publication: StoredPublication) {
        self.publications.push(publication);
    }
    fn last_mutation(&mut self, user: UserName, last: LastMutation) {
        self.last.push((user, last));
    }
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn publish(owner: &str, request: u64, names: &[String], audience: Audience) -> Mutation {
    let file = |name: &String| NamedContent {
        name: FileName::parse(name).unwrap(),
        content: Content { hash: ContentHash([request as u8; 32]), size: u64::MAX, mtime_ms: -1 },
    };
    let files = names.iter().map(file).collect();
    let change = Change::Publish { files, audience: Arc::new(audience), published_s: 1_700_000_000 };
    Mutation { user: user(owner), instance: InstanceId(u64::MAX), request: RequestId(request), change }
}

fn unpublish(owner: &str, request: u64, names: &[String]) -> Mutation {
    let names = names.iter().map(|name| FileName::parse(name).unwrap()).collect();
    let change = Change::Unpublish { names, found: 1 };
    Mutation { user: user(owner), instance: InstanceId(u64::MAX), request: RequestId(request), change }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("folder/file {i:06}")).collect()
}

fn open(path: &Path) -> (SqliteStore, Contents) {
    let mut contents = Contents::default();
    let (store, _) = SqliteStore::open(path, &mut contents).unwrap();
    (store, contents)
}

fn refusal(path: &Path) -> JournalError {
    SqliteStore::open(path, &mut Contents::default()).map(|_| ()).unwrap_err()
}

/// A closed data file with some publications.
fn filled(folder: &Path, count: usize) -> PathBuf {
    let path = folder.join("data.db");
    let (mut store, _) = open(&path);
    store.write(&[publish("hans", 1, &names(count), Audience::Everyone)]).unwrap();
    Box::new(store).close().unwrap();
    path
}

#[test]
fn a_full_disk_stores_no_part_of_the_batch_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.db");
    let (mut store, _) = open(&path);
    store.write(&[publish("hans", 1, &names(10), Audience::Everyone)]).unwrap();
    let pages: u32 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    let batch = [
        publish("vader", 1, &names(1), Audience::only(vec![user("yoda")])),
        publish("hans", 2, &names(5_000), Audience::Everyone),
    ];
    let line = format!("cannot store in {}: no room left", path.canonicalize().unwrap().display());
    assert_eq!(store.write(&batch), Err(StoreError::Failed(line)));
    drop(store);

    let (mut store, contents) = open(&path);
    assert_eq!(contents.publications.len(), 10);
    assert_eq!(contents.last.len(), 1);
    // Now there is space: the same batch is stored.
    store.write(&batch).unwrap();
    drop(store);
    assert_eq!(open(&path).1.publications.len(), 5_001);
}

#[test]
fn equal_audiences_are_stored_once_and_deleted_when_unused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.db");
    let count = |store: &SqliteStore| -> i64 {
        store.connection.query_row("SELECT count(*) FROM audiences", [], |row| row.get(0)).unwrap()
    };
    let (mut store, _) = open(&path);
    let some = Audience::only(vec![user("yoda"), user("vader")]);
    let empty = Audience::only(Vec::new());
    store.write(&[publish("hans", 1, &names(3), some.clone())]).unwrap();
    store.write(&[publish("leia", 1, &names(2), some.clone()), publish("luke", 1, &names(1), empty.clone())]).unwrap();
    assert_eq!(count(&store), 2);
    drop(store);
    let (mut store, contents) = open(&path);
    let stored: Vec<_> = contents.publications.iter().map(|p| (p.user.as_str(), (*p.audience).clone())).collect();
    let one = |owner, audience: &Audience| (owner, audience.clone());
    let expected = [
        one("hans", &some),
        one("hans", &some),
        one("hans", &some),
        one("leia", &some),
        one("leia", &some),
        one("luke", &empty),
    ];
    assert_eq!(stored, expected);
    assert!(Arc::ptr_eq(&contents.publications[0].audience, &contents.publications[4].audience));
    store.write(&[publish("luke", 2, &names(1), Audience::Everyone)]).unwrap();
    assert_eq!(count(&store), 1, "deleted with its last publication");
    drop(store);
    let (mut store, contents) = open(&path);
    assert_eq!(*contents.publications[5].audience, Audience::Everyone);
    store.write(&[unpublish("hans", 2, &names(3))]).unwrap();
    assert_eq!(count(&store), 1, "leia's publications have it");
    // In one transaction the last use goes and another comes.
    store.write(&[unpublish("leia", 2, &names(2)), publish("luke", 3, &names(1), some.clone())]).unwrap();
    assert_eq!(count(&store), 1);
    store.write(&[publish("luke", 4, &names(2), empty.clone()), unpublish("luke", 5, &names(2))]).unwrap();
    assert_eq!((count(&store), store.audience_uses.len()), (0, 0));
    store.write(&[publish("luke", 6, &names(1), some.clone())]).unwrap();
    drop(store);
    assert_eq!(*open(&path).1.publications[0].audience, some);
}

#[test]
fn audiences_without_use_are_deleted_at_the_start_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 3);
    let (store, _) = open(&path);
    // An old server left them; a row that nothing refers to cannot make the file unusable.
    store.connection.execute_batch("INSERT INTO audiences VALUES (7, x'00', 'b a')").unwrap();
    drop(store);
    let (store, contents) = open(&path);
    assert_eq!(contents.publications.len(), 3);
    let count: i64 = store.connection.query_row("SELECT count(*) FROM audiences", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn publishing_for_growing_audiences_grows_neither_the_file_nor_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.db");
    let (mut store, _) = open(&path);
    let users: Vec<_> = (0..1_500).map(|number| user(&format!("{number:064}"))).collect();
    for size in 1_200..users.len() {
        let audience = Audience::only(users[..size].to_vec());
        store.write(&[publish("hans", size as u64, &names(1), audience)]).unwrap();
    }
    // 26 MB of audiences were written; the last one has 100 kB.
    let bytes = |suffix| fs::metadata(data_file::with_suffix(&path, suffix)).unwrap().len();
    assert!(bytes("") < 1 << 20, "{}", bytes(""));
    assert!(bytes("-wal") < 20 << 20, "{}", bytes("-wal"));
    let limit: i64 = store.connection.pragma_query_value(None, "journal_size_limit", |row| row.get(0)).unwrap();
    assert_eq!(limit, 18 << 20, "what a large transaction leaves");
    assert_eq!(store.audience_uses.len(), 1);
}

#[test]
fn names_that_several_audiences_have_share_their_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.db");
    let (mut store, _) = open(&path);
    let one = Audience::only(vec![user("yoda")]);
    let two = Audience::only(vec![user("vader"), user("yoda")]);
    store.write(&[publish("hans", 1, &names(1), one), publish("leia", 1, &names(1), two)]).unwrap();
    drop(store);
    let contents = open(&path).1;
    let text = |at: usize, member: usize| match &*contents.publications[at].audience {
        Audience::Only(users) => users[member].as_str().as_ptr(),
        Audience::Everyone => panic!("a restricted publication"),
    };
    assert_eq!(text(0, 0), text(1, 1));
}

#[test]
fn what_unwanted_users_have_published_is_checked_but_not_loaded() {
    struct Of(Contents, &'static str);
    impl LoadSink for Of {
        fn wants(&self, user: &UserName) -> bool {
            user.as_str() == self.1
        }
        fn publication(&mut self, publication: StoredPublication) {
            self.0.publication(publication);
        }
        fn last_mutation(&mut self, user: UserName, last: LastMutation) {
            self.0.last_mutation(user, last);
        }
    }
    let loaded = |of: Of| {
        let names = of.0.publications.iter().map(|publication| publication.user.to_string()).collect::<Vec<_>>();
        (names, of.0.last.iter().map(|(user, _)| user.to_string()).collect::<Vec<_>>())
    };
    let one = |name: &str, count| (vec![name.to_owned(); count], vec![name.to_owned()]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.db");
    let (mut store, _) = open(&path);
    let some = Audience::only(vec![user("yoda")]);
    store.write(&[publish("hans", 1, &names(3), some.clone()), publish("leia", 1, &names(2), some)]).unwrap();
    drop(store);
    let mut sink = Of(Contents::default(), "leia");
    let (store, _) = SqliteStore::open(&path, &mut sink).unwrap();
    assert_eq!(loaded(sink), one("leia", 2));
    assert_eq!(store.audience_uses.values().collect::<Vec<_>>(), [&5], "hans's publications use it too");

    let mut sink = Of(Contents::default(), "hans");
    read_users(&path, &mut sink).unwrap();
    assert_eq!(loaded(sink), one("hans", 3), "read while the store is open");

    store.connection.execute_batch("UPDATE publications SET hash = x'00' WHERE user = 1").unwrap();
    drop(store);
    let error = SqliteStore::open(&path, &mut Of(Contents::default(), "leia")).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

#[test]
fn a_forgotten_user_leaves_the_publications_of_others_and_a_smaller_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.db");
    let missing = Journal::forget(&path, &user("hans")).unwrap_err();
    assert!(missing.to_string().contains("there is no data file") && !path.exists(), "{missing}");
    let (mut store, _) = open(&path);
    let (some, shared) = (Audience::only(vec![user("yoda")]), Audience::only(vec![user("vader")]));
    store.write(&[publish("hans", 1, &names(5_000), some), publish("hans", 2, &names(2), shared.clone())]).unwrap();
    store.write(&[publish("leia", 1, &names(2), shared.clone())]).unwrap();
    let in_use = Journal::forget(&path, &user("hans")).unwrap_err();
    assert!(matches!(in_use, JournalError::InUse { .. }), "{in_use}");
    Box::new(store).close().unwrap();

    let before = fs::metadata(&path).unwrap().len();
    let forgotten = Journal::forget(&path, &user("hans")).unwrap();
    let after = fs::metadata(&path).unwrap().len();
    assert_eq!((forgotten.publications, forgotten.bytes), (5_000, before - after));
    assert!(after < before / 4, "{after} of {before}");
    let (store, contents) = open(&path);
    let left: Vec<_> =
        contents.publications.iter().map(|left| (left.user.as_str(), (*left.audience).clone())).collect();
    assert_eq!(left, [("leia", shared.clone()), ("leia", shared)]);
    assert_eq!(contents.last.len(), 2, "a request of hans is still not executed twice");
    assert_eq!(store.audience_uses.values().collect::<Vec<_>>(), [&2]);
    drop(store);
    assert_eq!(Journal::forget(&path, &user("nobody")).unwrap().publications, 0);
}

#[test]
fn the_same_content_published_again_keeps_its_age() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.db");
    let (mut store, _) = open(&path);
    let at = |request, mut mutation: Mutation| {
        let Change::Publish { files, published_s, .. } = &mut mutation.change else { panic!("a PUBLISH") };
        files[0].content.mtime_ms = request;
        *published_s = 1_000 + request as u64;
        mutation
    };
    let to_yoda = Audience::only(vec![user("yoda")]);
    store.write(&[at(1, publish("hans", 7, &names(1), Audience::Everyone))]).unwrap();
    store.write(&[at(2, publish("hans", 7, &names(1), to_yoda.clone()))]).unwrap();
    drop(store);
    let (mut store, contents) = open(&path);
    let stored = &contents.publications[0];
    assert_eq!((stored.published_s, stored.file.content.mtime_ms, &*stored.audience), (1_001, 2, &to_yoda));
    // Another content, or another size, is a new publication; so is the old content after that.
    store.write(&[at(3, publish("hans", 8, &names(1), Audience::Everyone))]).unwrap();
    store.write(&[at(4, publish("hans", 7, &names(1), Audience::Everyone))]).unwrap();
    drop(store);
    assert_eq!(open(&path).1.publications[0].published_s, 1_004);
}

#[test]
fn an_older_file_is_migrated_and_a_newer_one_rejected() {
    const NEXT: [Migration; 2] = [data_file::MIGRATIONS[0], "ALTER TABLE publications ADD COLUMN note TEXT"];
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 3);
    let mut contents = Contents::default();
    let (store, secret) = SqliteStore::open_with(&path, &mut contents, &NEXT).unwrap();
    assert_eq!(contents.publications.len(), 3);
    let version: u32 = store.connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
    store.connection.execute("UPDATE publications SET note = 'x'", []).unwrap();
    drop(store);

    // This program does not know version 2, and leaves the file unchanged.
    let before = fs::read(&path).unwrap();
    let error = refusal(&path);
    assert!(matches!(error, JournalError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("written by a newer server (format 2, this one knows 1)"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    let (store, again) = SqliteStore::open_with(&path, &mut Contents::default(), &NEXT).unwrap();
    assert_eq!(again, secret);
    let notes: i64 = store.connection.query_row("SELECT count(note) FROM publications", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 3, "a migration runs once");
}

#[test]
fn a_failed_migration_changes_nothing() {
    const BROKEN: [Migration; 2] = [data_file::MIGRATIONS[0], "DELETE FROM publications; CREATE TABLE users (x)"];
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 3);
    assert!(SqliteStore::open_with(&path, &mut Contents::default(), &BROKEN).is_err());
    assert_eq!(open(&path).1.publications.len(), 3);
}

#[test]
fn an_inconsistent_file_is_rejected_unchanged() {
    let cases = [
        ("DELETE FROM meta", "its root secret is missing"),
        ("UPDATE meta SET value = x'00'", "damaged"),
        ("DELETE FROM users", "a publication of the unknown user 1"),
        ("UPDATE users SET name = 'a b'", "user 1: a user name is printable ASCII without spaces"),
        ("UPDATE publications SET name = '../' || name", "a file name cannot have '.' or '..' as a part"),
        ("UPDATE publications SET hash = x'00'", "a hash of hans has the wrong size"),
        ("UPDATE publications SET audience = 7", "the unknown audience 7"),
        (
            "INSERT INTO audiences VALUES (7, x'00', 'b a'); UPDATE publications SET audience = 7",
            "audience 7 cannot be read",
        ),
        ("INSERT INTO last_mutations VALUES (9, 1, 1, NULL)", "a mutation of the unknown user 9"),
        ("DROP TABLE last_mutations", "damaged"),
        ("PRAGMA user_version = 0", "it has no format version"),
    ];
    for (damage, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path(), 3);
        let (store, _) = open(&path);
        store.connection.execute_batch(damage).unwrap();
        Box::new(store).close().unwrap();
        let before = fs::read(&path).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, JournalError::Damaged { .. }), "{damage}: {error}");
        let line = error.to_string();
        assert!(line.contains(expected) && line.contains("data.db") && !line.contains('\n'), "{damage}: {line}");
        assert_eq!(fs::read(&path).unwrap(), before, "{damage}");
    }
}

#[test]
fn publications_out_of_order_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 3);
    let whole = fs::read(&path).unwrap();
    let names = names(3);
    for replacement in ["folder/file 999999", names[1].as_str()] {
        let mut damaged = whole.clone();
        let at = whole.windows(names[0].len()).position(|bytes| bytes == names[0].as_bytes()).unwrap();
        damaged[at..at + replacement.len()].copy_from_slice(replacement.as_bytes());
        fs::write(&path, &damaged).unwrap();
        let error = refusal(&path).to_string();
        assert!(error.contains("its publications are out of order"), "{replacement}: {error}");
    }
}

#[test]
fn an_overwritten_page_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 2_000);
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > 20 * 4_096);
    for page in 0..whole.len() / 4_096 {
        let mut damaged = whole.clone();
        // The header of the page. On the first page the header of the file stays, so that the file is recognised.
        let at = page * 4_096 + if page == 0 { 100 } else { 0 };
        damaged[at..at + 64].fill(0xa5);
        fs::write(&path, &damaged).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, JournalError::Damaged { .. }), "page {page}: {error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "page {page}");
    }
    // Truncated.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(refusal(&path), JournalError::Damaged { .. }));
}

#[test]
fn a_lock_by_another_program_is_not_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 1);
    let (mut store, _) = open(&path);
    let other_program = Connection::open(&path).unwrap();
    other_program.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.connection.busy_timeout(Duration::ZERO).unwrap();
    let batch = [publish("new", 1, &names(1), Audience::only(vec![user("yoda")]))];
    assert!(matches!(store.write(&batch), Err(StoreError::Locked(_))));
    other_program.execute_batch("ROLLBACK").unwrap();
    store.write(&batch).unwrap();
    // A long read transaction of another program does not block writes.
    other_program.execute_batch("BEGIN; SELECT count(*) FROM publications").unwrap();
    store.write(&[publish("new", 2, &names(2), Audience::Everyone)]).unwrap();
    Box::new(store).close().unwrap();
    drop(other_program);
    assert_eq!(open(&path).1.publications.len(), 3);
}

#[test]
fn a_file_whose_creation_crashed_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let (making, path) = (folder.path().join("making.db"), folder.path().join("data.db"));
    fs::write(&making, b"").unwrap();
    let mut connection = Connection::open(&making).unwrap();
    // With one page of cache, SQLite writes to the file before the commit.
    connection.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1").unwrap();
    let transaction = connection.transaction().unwrap();
    transaction.pragma_update(None, "application_id", data_file::APPLICATION_ID).unwrap();
    transaction.execute_batch(data_file::MIGRATIONS[0]).unwrap();
    let filler = "INSERT INTO users (name) VALUES (hex(randomblob(30)))";
    while fs::metadata(&making).unwrap().len() == 0 {
        transaction.execute(filler, []).unwrap();
    }
    // A copy of the files is their state after a crash at this moment.
    for suffix in ["", "-journal"] {
        fs::copy(data_file::with_suffix(&making, suffix), data_file::with_suffix(&path, suffix)).unwrap();
    }
    assert_eq!(data_file::check_data_file(&path).unwrap(), data_file::DataFileState::DataFile);
    let (mut store, contents) = open(&path);
    assert!(contents.publications.is_empty());
    store.write(&[publish("hans", 1, &names(1), Audience::Everyone)]).unwrap();
    drop(store);
    assert_eq!(open(&path).1.publications.len(), 1);
}
