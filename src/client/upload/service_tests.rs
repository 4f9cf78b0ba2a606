use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::common::limits::GROUP_MIN_BYTES;
use crate::common::peer_message::RefusalReason;
use crate::common::types::{ContentHash, ContentRef, UserName};

#[derive(Default)]
struct Progress {
    last: AtomicU64,
    interrupted: AtomicBool,
}

impl HashProgress for Progress {
    fn hashed(&self, _: &FileName, done: u64, _: u64) {
        self.last.fetch_max(done, Ordering::Relaxed);
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

struct ServiceFixture {
    dir: tempfile::TempDir,
    share: Arc<UploadService>,
}

/// A share whose cache is a folder beside it.
fn fixture() -> ServiceFixture {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("share")).unwrap();
    let share = open(&dir);
    ServiceFixture { dir, share }
}

fn open(dir: &tempfile::TempDir) -> Arc<UploadService> {
    let cache = DiskCache::at(Some(dir.path().join("cache")));
    UploadService::with_cache(&dir.path().join("share"), 4, cache).unwrap()
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn vader() -> UserName {
    UserName::parse("vader").unwrap()
}

impl ServiceFixture {
    /// Writes a file whose stamp is settled: long unchanged, as far as its times tell.
    fn write(&self, file: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join("share").join(file), bytes).unwrap();
        self.settle(file);
    }

    /// Waits until the clock has left the tick of the file's last change.
    fn settle(&self, file: &str) {
        while self.share.folder.open_file(&name(file)).unwrap().1.is_racy(SystemTime::now()) {
            std::thread::yield_now();
        }
    }

    fn prepare(&self, file: &str) -> Content {
        self.share.hash_file(&name(file), &Progress::default()).unwrap().content
    }

    fn serve(&self, file: &str, content: Content) -> Result<(), RefusalReason> {
        let grant = ContentRef { name: name(file), hash: content.hash, size: content.size };
        self.share.serve(&grant, &vader(), &mut || true).map(drop)
    }
}

#[test]
fn preparing_tells_hash_size_and_time() {
    let fixture = fixture();
    for size in [0, 1, GROUP_MIN_BYTES as usize + 1] {
        let bytes = vec![7; size];
        fixture.write("file", &bytes);
        let progress = Progress::default();
        let file = fixture.share.hash_file(&name("file"), &progress).unwrap();
        let modified = fs::metadata(fixture.dir.path().join("share/file")).unwrap().modified().unwrap();
        let modified_ms = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(file.content.hash, ContentHash(*blake3::hash(&bytes).as_bytes()));
        assert_eq!((file.content.size, i128::from(file.content.mtime_ms)), (size as u64, modified_ms as i128));
        assert!(size == 0 || progress.last.load(Ordering::Relaxed) > 0);
    }
    let missing = fixture.share.hash_file(&name("nothing"), &Progress::default());
    assert!(matches!(missing, Err(ShareError::Missing(_))));
    let impatient = Progress { interrupted: true.into(), ..Progress::default() };
    assert!(matches!(fixture.share.hash_file(&name("file"), &impatient), Err(ShareError::Interrupted)));
}

#[test]
fn the_second_time_needs_no_look_at_the_bytes() {
    let fixture = fixture();
    fixture.write("file", &vec![1; 3 << 20]);
    let content = fixture.prepare("file");
    let progress = Progress::default();
    assert_eq!(
        open(&fixture.dir).hash_file(&name("file"), &progress).unwrap().content,
        content,
        "another client's cache"
    );
    assert_eq!(progress.last.load(Ordering::Relaxed), 0);
    fixture.write("file", &vec![2; 3 << 20]);
    assert_ne!(fixture.prepare("file").hash, content.hash);
}

#[test]
fn what_changed_or_went_is_refused() {
    let fixture = fixture();
    for size in [10, 3 << 20] {
        fixture.write("file", &vec![1; size]);
        let content = fixture.prepare("file");
        fixture.share.published(&name("file"), content, Audience::Everyone);
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
fn after_a_restart_the_list_of_the_server_is_enough() {
    let fixture = fixture();
    fixture.write("small", b"small");
    fixture.write("large", &vec![1; 3 << 20]);
    let contents = [("small", fixture.prepare("small")), ("large", fixture.prepare("large"))];
    for cached in [true, false] {
        if !cached {
            fs::remove_dir_all(fixture.dir.path().join("cache")).unwrap();
        }
        let fixture = ServiceFixture { share: open(&fixture.dir), dir: tempfile::tempdir().unwrap() };
        for (file, content) in contents {
            fixture.share.published(&name(file), content, Audience::Everyone);
            assert_eq!(fixture.serve(file, content), Ok(()));
        }
    }
}

#[test]
fn only_what_is_published_is_served_and_only_to_whom_it_is() {
    let fixture = fixture();
    fixture.write("file", b"bytes");
    let content = fixture.prepare("file");
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared), "prepared is not published");
    let publish = |audience| fixture.share.published(&name("file"), content, audience);
    publish(Audience::only(vec![UserName::parse("yoda").unwrap()]));
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared));
    publish(Audience::only(vec![vader()]));
    assert_eq!(fixture.serve("file", content), Ok(()));
    let other = Content { hash: ContentHash([1; 32]), ..content };
    assert_eq!(fixture.serve("file", other), Err(RefusalReason::NotShared));
    let longer = Content { size: 6, ..content };
    assert_eq!(fixture.serve("file", longer), Err(RefusalReason::NotShared));
    fixture.share.withdrawn(&name("file"));
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared));
    publish(Audience::Everyone);
    assert_eq!(fixture.serve("file", content), Ok(()));
    fixture.share.clear();
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared));
}

#[test]
fn what_was_opened_is_served_only_while_nothing_changes() {
    let fixture = fixture();
    fixture.write("file", b"bytes");
    let content = fixture.prepare("file");
    fixture.share.published(&name("file"), content, Audience::Everyone);
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let open = || fixture.share.serve(&grant, &vader(), &mut || true).unwrap();
    let served = open();
    assert!(fixture.share.is_still_valid(&served, &grant.name));
    fixture.share.published(&name("file"), content, Audience::Only(vec![]));
    assert!(!fixture.share.is_still_valid(&served, &grant.name), "another audience");
    fixture.share.published(&name("file"), content, Audience::Everyone);
    let served = open();
    let mut file = fs::OpenOptions::new().append(true).open(fixture.dir.path().join("share/file")).unwrap();
    file.write_all(b"more").unwrap();
    assert!(!fixture.share.is_still_valid(&served, &grant.name), "other bytes");
    fixture.share.withdrawn(&name("file"));
    assert!(!fixture.share.is_still_valid(&served, &grant.name), "withdrawn");
}

#[test]
fn a_downloaded_file_needs_no_hashing() {
    let fixture = fixture();
    let bytes = vec![1; 3 << 20];
    fixture.write("file", &bytes);
    let (file, stamp) = fixture.share.folder.open_file(&name("file")).unwrap();
    let outline = hash_file(&file, &stamp, &mut |_| true).unwrap();
    let content = Content { hash: outline.root(), size: outline.size(), mtime_ms: 0 };
    fixture.share.published(&name("file"), content, Audience::Everyone);
    fixture.share.register_downloaded(&name("file"), &outline, &file);
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let mut impatient = || -> bool { panic!("nothing takes long") };
    let served = fixture.share.serve(&grant, &vader(), &mut impatient).unwrap();
    assert_eq!(*fixture.share.outline(&served, &mut impatient).unwrap(), outline);
}

#[test]
fn an_arriving_file_is_served_as_far_as_it_is_there() {
    let fixture = fixture();
    let bytes = vec![1; 3 << 20];
    fixture.write("part", &bytes);
    let (file, stamp) = fixture.share.folder.open_file(&name("part")).unwrap();
    let outline = Arc::new(hash_file(&file, &stamp, &mut |_| true).unwrap());
    let content = Content { hash: outline.root(), size: outline.size(), mtime_ms: 0 };
    let file = Arc::new(file);
    fixture.share.serve_incomplete(&name("file"), outline.clone(), file.clone(), Arc::new(|group| group != 1));
    assert_eq!(fixture.serve("file", content), Err(RefusalReason::NotShared), "arriving is not published");
    fixture.share.published(&name("file"), content, Audience::Everyone);
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let served = fixture.share.serve(&grant, &vader(), &mut || true).unwrap();
    assert!(served.has(0) && !served.has(1) && served.has(2) && !served.is_whole());
    let mut piece = [0; 4];
    served.read(&mut piece, 2 << 20).unwrap();
    assert_eq!(piece, [1; 4]);
    fs::rename(fixture.dir.path().join("share/part"), fixture.dir.path().join("share/file")).unwrap();
    fixture.share.register_downloaded(&name("file"), &outline, &file);
    assert!(!fixture.share.is_still_valid(&served, &grant.name), "it is looked at anew");
    assert!(fixture.share.serve(&grant, &vader(), &mut || panic!("it is known")).unwrap().is_whole());
    fixture.share.serve_incomplete(&name("file"), outline, file, Arc::new(|_| false));
    fixture.share.drop_incomplete(&name("file"));
    assert!(fixture.share.serve(&grant, &vader(), &mut || true).unwrap().is_whole());
}

#[test]
fn what_is_not_listed_yet_is_waited_for() {
    let fixture = fixture();
    fixture.write("file", b"bytes");
    let content = fixture.prepare("file");
    let grant = ContentRef { name: name("file"), hash: content.hash, size: content.size };
    let serve = |patience: &mut dyn FnMut() -> bool| fixture.share.serve(&grant, &vader(), patience).map(drop);
    fixture.share.begin_loading();
    fixture.share.begin_loading();
    let mut looks = 0;
    let served = serve(&mut || {
        looks += 1;
        match looks {
            1 => fixture.share.end_loading(),
            _ => {
                fixture.share.published(&grant.name, content, Audience::Everyone);
                fixture.share.end_loading();
            }
        }
        true
    });
    assert_eq!((served, looks), (Ok(()), 2));
    fixture.share.withdrawn(&grant.name);
    fixture.share.begin_loading();
    assert_eq!(serve(&mut || false), Err(RefusalReason::Unreadable));
    let ended = serve(&mut || {
        fixture.share.end_loading();
        true
    });
    assert_eq!(ended, Err(RefusalReason::NotShared));
}

#[test]
fn many_files_are_hashed_at_once_and_the_large_ones_in_turn() {
    let fixture = fixture();
    let sizes = [5, GROUP_MIN_BYTES as usize + 1, 3, 2 * GROUP_MIN_BYTES as usize, 0, GROUP_MIN_BYTES as usize + 9];
    for (at, &size) in sizes.iter().enumerate() {
        fixture.write(&at.to_string(), &vec![at as u8; size]);
        assert_eq!(fixture.share.size(&name(&at.to_string())), size as u64);
    }
    assert_eq!(fixture.share.size(&name("nothing")), 0);
    let prepare = |at: usize| fixture.prepare(&at.to_string());
    let contents = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sizes.len()).map(|at| scope.spawn(move || prepare(at))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (at, (content, size)) in contents.iter().zip(sizes).enumerate() {
        assert_eq!(content.hash.0, *blake3::hash(&vec![at as u8; size]).as_bytes());
    }
    let _turn = fixture.share.publishing.acquire(&mut || true);
    fixture.write("large", &vec![7; GROUP_MIN_BYTES as usize + 1]);
    let stopped = fixture.share.hash_file(&name("large"), &InterruptedWhileItWaits::default());
    assert!(matches!(stopped, Err(ShareError::Interrupted)));
}

/// The second time it is asked.
#[derive(Default)]
struct InterruptedWhileItWaits(AtomicBool);

impl HashProgress for InterruptedWhileItWaits {
    fn hashed(&self, name: &FileName, _: u64, _: u64) {
        panic!("{name}: it is another's turn");
    }

    fn interrupted(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }
}
