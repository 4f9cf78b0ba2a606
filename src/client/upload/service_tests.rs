use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use crossbeam_channel::bounded;

use super::serve::{KeepAlive, OpenContent, ServeError, UploadEnd};
use super::*;
use crate::client::files::ShareError;
use crate::client::publications::LoadingGuard;
use crate::common::chunk_tree::GroupHashes;
use crate::common::limits::GROUP_MIN_BYTES;
use crate::common::peer_message::RefusalReason;
use crate::common::types::{Audience, Content, ContentHash, ContentRef, UserName};

struct ServiceFixture {
    dir: tempfile::TempDir,
    service: Arc<UploadService>,
}

/// A service whose cache is a folder beside the shared folder.
fn fixture() -> ServiceFixture {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("share")).unwrap();
    let service = open(&dir);
    ServiceFixture { dir, service }
}

fn open(dir: &tempfile::TempDir) -> Arc<UploadService> {
    let (share, cache) = (dir.path().join("share"), dir.path().join("cache"));
    UploadService::new(SharedFiles::with_cache_dir(&share, Some(&cache)).unwrap(), 4)
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn vader() -> UserName {
    UserName::parse("vader").unwrap()
}

/// Calls `serve` with a keepalive that calls `on_tick` every millisecond.
fn with_keep_alive<T>(
    on_tick: &mut dyn FnMut(),
    serve: impl FnOnce(&mut KeepAlive<'_>) -> Result<T, ServeError>,
) -> Result<T, RefusalReason> {
    let (_running, shutdown) = bounded(0);
    let mut send = || {
        on_tick();
        Ok(())
    };
    let served = serve(&mut KeepAlive { shutdown: &shutdown, interval: Duration::from_millis(1), send: &mut send });
    served.map_err(|error| match error {
        ServeError::Refused(reason) => reason,
        ServeError::Closed(end) => panic!("{end}"),
    })
}

impl ServiceFixture {
    /// Writes a file whose identity is not racy.
    fn write(&self, file: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join("share").join(file), bytes).unwrap();
        self.wait_until_stable(file);
    }

    /// Waits until the file's identity is not racy any more.
    fn wait_until_stable(&self, file: &str) {
        while self.service.files.dir().open_file(&name(file)).unwrap().1.is_racy(SystemTime::now()) {
            std::thread::yield_now();
        }
    }

    /// Renames the only partial file to its final name.
    fn rename_partial(&self, file: &str) {
        let share = self.dir.path().join("share");
        let mut entries = fs::read_dir(&share).unwrap().map(|entry| entry.unwrap().path());
        let partial = entries.find(|path| path.extension().is_some_and(|extension| extension == "part")).unwrap();
        fs::rename(partial, share.join(file)).unwrap();
    }

    fn hash(&self, file: &str) -> Content {
        self.service.files.hash(&name(file), &mut |_| ControlFlow::Continue(())).unwrap().content
    }

    fn serve(&self, file: &str, content: Content) -> Result<(), RefusalReason> {
        let grant = ContentRef { name: name(file), hash: content.hash, size: content.size };
        self.open(&grant).map(drop)
    }

    fn open(&self, grant: &ContentRef) -> Result<OpenContent, RefusalReason> {
        with_keep_alive(&mut || {}, |keep_alive| self.service.open_content(grant, &vader(), keep_alive))
    }
}

#[test]
fn hashing_a_file_returns_hash_size_and_time() {
    let fixture = fixture();
    for size in [0, 1, GROUP_MIN_BYTES as usize + 1] {
        let bytes = vec![7; size];
        fixture.write("file", &bytes);
        let mut last = 0;
        let mut on_progress = |done| {
            last = done;
            ControlFlow::Continue(())
        };
        let file = fixture.service.files.hash(&name("file"), &mut on_progress).unwrap();
        let modified = fs::metadata(fixture.dir.path().join("share/file")).unwrap().modified().unwrap();
        let modified_ms = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(file.content.hash, ContentHash(*blake3::hash(&bytes).as_bytes()));
        assert_eq!((file.content.size, i128::from(file.content.mtime_ms)), (size as u64, modified_ms as i128));
        assert_eq!(last, size as u64);
    }
    let missing = fixture.service.files.hash(&name("nothing"), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(missing, Err(ShareError::Missing(_))));
    let interrupted = fixture.service.files.hash(&name("file"), &mut |_| ControlFlow::Break(()));
    assert!(matches!(interrupted, Err(ShareError::Interrupted)));
}

#[test]
fn a_known_file_is_not_read_again() {
    let fixture = fixture();
    fixture.write("file", &vec![1; 3 << 20]);
    let content = fixture.hash("file");
    let mut last = 0;
    let mut on_progress = |done| {
        last = done;
        ControlFlow::Continue(())
    };
    assert_eq!(
        open(&fixture.dir).files.hash(&name("file"), &mut on_progress).unwrap().content,
        content,
        "another client's cache"
    );
    assert_eq!(last, 0);
    fixture.write("file", &vec![2; 3 << 20]);
    assert_ne!(fixture.hash("file").hash, content.hash);
}

#[test]
fn a_changed_or_missing_file_is_refused() {
    let fixture = fixture();
    for size in [10, 3 << 20] {
        fixture.write("file", &vec![1; size]);
        let content = fixture.hash("file");
        fixture.service.publications().publish(&name("file"), content, Audience::Everyone);
        assert_eq!(fixture.serve("file", content), Ok(()));
        fixture.write("file", &vec![2; size]);
        assert_eq!(fixture.serve("file", content), Err(RefusalReason::Changed), "other bytes of the same length");
        fixture.write("file", &vec![1; size + 1]);
        assert_eq!(fixture.serve("file", content), Err(RefusalReason::Changed), "another length");
        fixture.write("file", &vec![1; size]);
        assert_eq!(fixture.serve("file", content), Ok(()), "the same bytes again");
        fs::remove_file(fixture.dir.path().join("share/file")).unwrap();
        assert_eq!(fixture.serve("file", content), Err(RefusalReason::Unreadable));
        std::os::unix::fs::symlink("/etc/passwd", fixture.dir.path().join("share/file")).unwrap();
        assert_eq!(fixture.serve("file", content), Err(RefusalReason::Unreadable));
        fs::remove_file(fixture.dir.path().join("share/file")).unwrap();
    }
}

#[test]
fn after_a_restart_the_list_of_publications_is_enough_to_serve() {
    let fixture = fixture();
    fixture.write("small", b"small");
    fixture.write("large", &vec![1; 3 << 20]);
    let contents = [("small", fixture.hash("small")), ("large", fixture.hash("large"))];
    for cached in [true, false] {
        if !cached {
            fs::remove_dir_all(fixture.dir.path().join("cache")).unwrap();
        }
        let fixture = ServiceFixture { service: open(&fixture.dir), dir: tempfile::tempdir().unwrap() };
        for (file, content) in contents {
            fixture.service.publications().publish(&name(file), content, Audience::Everyone);
            assert_eq!(fixture.serve(file, content), Ok(()));
        }
    }
}

#[test]
fn only_publications_are_served_and_only_to_their_audience() {
    let fixture = fixture();
    fixture.write("file", b"bytes");
    let content = fixture.hash("file");
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared), "hashed does not mean published");
    let publish = |audience| fixture.service.publications().publish(&name("file"), content, audience);
    publish(Audience::only(vec![UserName::parse("yoda").unwrap()]));
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared));
    publish(Audience::only(vec![vader()]));
    assert_eq!(fixture.serve("file", content), Ok(()));
    let other = Content { hash: ContentHash([1; 32]), ..content };
    assert_eq!(fixture.serve("file", other), Err(RefusalReason::NotShared));
    let longer = Content { size: 6, ..content };
    assert_eq!(fixture.serve("file", longer), Err(RefusalReason::NotShared));
    fixture.service.publications().unpublish(&name("file"));
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared));
    publish(Audience::Everyone);
    assert_eq!(fixture.serve("file", content), Ok(()));
    fixture.service.publications().begin_login();
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared));
}

#[test]
fn a_private_name_is_served_only_if_the_user_has_published_it() {
    let fixture = fixture();
    for private in [".bashrc", "credentials.txt"] {
        fixture.write(private, b"secret");
        let content = fixture.hash(private);
        // As after a login: the server's list has it.
        fixture.service.publications().publish(&name(private), content, Audience::Everyone);
        assert_eq!(fixture.serve(private, content), Err(RefusalReason::NotShared), "{private}");
        let missing = Content { hash: ContentHash([1; 32]), ..content };
        assert_eq!(fixture.serve(private, missing), Err(RefusalReason::NotShared), "nor is its existence told");
        fixture.service.files.private_names().record(&name(private));
        assert_eq!(fixture.serve(private, content), Ok(()), "{private}");
    }
}

#[test]
fn an_open_content_is_valid_until_something_changes() {
    let fixture = fixture();
    fixture.write("file", b"bytes");
    let content = fixture.hash("file");
    fixture.service.publications().publish(&name("file"), content, Audience::Everyone);
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let open = || fixture.open(&grant).unwrap();
    let opened = open();
    assert!(fixture.service.is_still_valid(&opened, &grant.name));
    fixture.service.publications().publish(&name("file"), content, Audience::Only(vec![]));
    assert!(!fixture.service.is_still_valid(&opened, &grant.name), "another audience");
    fixture.service.publications().publish(&name("file"), content, Audience::Everyone);
    let opened = open();
    let mut file = fs::OpenOptions::new().append(true).open(fixture.dir.path().join("share/file")).unwrap();
    file.write_all(b"more").unwrap();
    assert!(!fixture.service.is_still_valid(&opened, &grant.name), "other bytes");
    fixture.service.publications().unpublish(&name("file"));
    assert!(!fixture.service.is_still_valid(&opened, &grant.name), "withdrawn");
}

/// The group hashes of a file of the shared folder.
fn group_hashes(fixture: &ServiceFixture, file: &str) -> GroupHashes {
    let (file, identity) = fixture.service.files.dir().open_file(&name(file)).unwrap();
    let hashes = SharedFiles::with_cache_dir(fixture.dir.path(), None).unwrap();
    (*hashes.hash_open_file(&file, &identity, &mut |_| ControlFlow::Continue(())).unwrap()).clone()
}

#[test]
fn a_downloaded_file_needs_no_hashing() {
    let fixture = fixture();
    let bytes = vec![1; 3 << 20];
    fixture.write("model", &bytes);
    let hashes = group_hashes(&fixture, "model");
    let content = Content { hash: hashes.root(), size: hashes.size(), mtime_ms: 0 };
    let share = fixture.dir.path().join("share");
    let downloaded = IncompleteFile::with_verified(&share, hashes.clone(), &[0, 1, 2]);
    downloaded.file().write_all_at(&bytes, 0).unwrap();
    fixture.rename_partial("file");
    fixture.service.publications().publish(&name("file"), content, Audience::Everyone);
    fixture.service.register_downloaded(&name("file"), &downloaded);
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    // The permit is never released: hashing would wait forever.
    let _permit = fixture.service.hash_lock.acquire_now();
    let opened = fixture.open(&grant).unwrap();
    let served = with_keep_alive(&mut || {}, |keep_alive| fixture.service.group_hashes(&opened, keep_alive));
    assert_eq!(*served.unwrap(), hashes);
}

#[test]
fn an_incomplete_file_is_served_as_far_as_it_is_verified() {
    let fixture = fixture();
    let bytes = vec![1; 3 << 20];
    fixture.write("model", &bytes);
    let hashes = group_hashes(&fixture, "model");
    let content = Content { hash: hashes.root(), size: hashes.size(), mtime_ms: 0 };
    let share = fixture.dir.path().join("share");
    let incomplete = IncompleteFile::with_verified(&share, hashes, &[0, 2]);
    incomplete.file().write_all_at(&bytes, 0).unwrap();
    fixture.service.serve_incomplete(&name("file"), &incomplete);
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared), "incomplete does not mean published");
    fixture.service.publications().publish(&name("file"), content, Audience::Everyone);
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let opened = fixture.open(&grant).unwrap();
    assert!(opened.has_group(0) && !opened.has_group(1) && opened.has_group(2) && !opened.is_complete());
    let mut piece = [0; 4];
    opened.read(&mut piece, 2 << 20).unwrap();
    assert_eq!(piece, [1; 4]);
    fixture.rename_partial("file");
    let _permit = fixture.service.hash_lock.acquire_now();
    fixture.service.register_downloaded(&name("file"), &incomplete);
    assert!(!fixture.service.is_still_valid(&opened, &grant.name), "the file is opened anew");
    assert!(fixture.open(&grant).unwrap().is_complete(), "its hash is known");
    fixture.service.serve_incomplete(&name("file"), &incomplete);
    fixture.service.drop_incomplete(&name("file"));
    assert!(fixture.open(&grant).unwrap().is_complete());
}

#[test]
fn requests_wait_until_the_publications_are_loaded() {
    let fixture = fixture();
    fixture.write("file", b"bytes");
    let content = fixture.hash("file");
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let service = &fixture.service;
    let serve = |on_tick: &mut dyn FnMut()| {
        with_keep_alive(on_tick, |keep_alive| service.open_content(&grant, &vader(), keep_alive)).map(drop)
    };
    let begin = || LoadingGuard::begin(service.publications());
    let mut loading = vec![begin(), begin()];
    let mut ticks = 0;
    let served = serve(&mut || {
        ticks += 1;
        match ticks {
            1 => drop(loading.pop()),
            _ => {
                service.publications().publish(&grant.name, content, Audience::Everyone);
                loading.clear();
            }
        }
    });
    assert_eq!((served, ticks), (Ok(()), 2));
    service.publications().unpublish(&grant.name);
    let mut loading = Some(begin());
    assert_eq!(serve(&mut || loading = None), Err(RefusalReason::NotShared));
}

#[test]
fn a_shutdown_ends_every_wait() {
    let fixture = fixture();
    fixture.write("file", &vec![1; 3 << 20]);
    let content = fixture.hash("file");
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let serve = || {
        let (running, shutdown) = bounded(0);
        let mut running = Some(running);
        let mut send = || {
            running = None;
            Ok(())
        };
        let interval = Duration::from_millis(1);
        let mut keep_alive = KeepAlive { shutdown: &shutdown, interval, send: &mut send };
        fixture.service.open_content(&grant, &vader(), &mut keep_alive).map(drop)
    };
    let _loading = LoadingGuard::begin(fixture.service.publications());
    assert!(matches!(serve(), Err(ServeError::Closed(UploadEnd::ShuttingDown))), "the load");
    fixture.service.publications().publish(&grant.name, content, Audience::Everyone);
    fixture.write("file", &vec![1; 3 << 20]);
    let _permit = fixture.service.hash_lock.acquire_now();
    assert!(matches!(serve(), Err(ServeError::Closed(UploadEnd::ShuttingDown))), "the hash permit");
}

#[test]
fn files_are_hashed_concurrently() {
    let fixture = fixture();
    let sizes = [5, GROUP_MIN_BYTES as usize + 1, 3, 2 * GROUP_MIN_BYTES as usize, 0, GROUP_MIN_BYTES as usize + 9];
    for (at, &size) in sizes.iter().enumerate() {
        fixture.write(&at.to_string(), &vec![at as u8; size]);
        assert_eq!(fixture.service.files.size(&name(&at.to_string())), size as u64);
    }
    assert_eq!(fixture.service.files.size(&name("nothing")), 0);
    let hash = |at: usize| fixture.hash(&at.to_string());
    let contents = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sizes.len()).map(|at| scope.spawn(move || hash(at))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (at, (content, size)) in contents.iter().zip(sizes).enumerate() {
        assert_eq!(content.hash.0, *blake3::hash(&vec![at as u8; size]).as_bytes());
    }
}

#[test]
fn a_changed_file_is_reported_once_for_each_publication() {
    let ServiceFixture { service, .. } = fixture();
    let (sender, reported) = crossbeam_channel::unbounded();
    service.set_on_changed(move |name| sender.send(name.to_string()).unwrap());
    let content = |byte| Content { hash: ContentHash([byte; 32]), size: 1, mtime_ms: 0 };
    let asked_for = |byte| ContentRef { name: name("a"), hash: content(byte).hash, size: 1 };
    service.report_changed(&asked_for(1));
    service.publications().publish(&name("a"), content(1), Audience::Everyone);
    service.report_changed(&asked_for(2));
    assert!(reported.is_empty(), "neither is published");
    (0..3).for_each(|_| service.report_changed(&asked_for(1)));
    assert_eq!(reported.try_iter().collect::<Vec<_>>(), ["a"]);
    service.publications().publish(&name("a"), content(2), Audience::Everyone);
    (0..3).for_each(|_| service.report_changed(&asked_for(2)));
    assert_eq!(reported.try_iter().collect::<Vec<_>>(), ["a"]);
}
