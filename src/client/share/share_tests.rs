use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::common::limits::GROUP_MIN_BYTES;
use crate::common::ticket::Grant;
use crate::common::transfer::RefusalReason;
use crate::common::types::{ContentHash, UserName};

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

struct Place {
    dir: tempfile::TempDir,
    share: Arc<Share>,
}

/// A share whose cache is a folder beside it.
fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("share")).unwrap();
    let share = open(&dir);
    Place { dir, share }
}

fn open(dir: &tempfile::TempDir) -> Arc<Share> {
    let cache = Cache::at(Some(dir.path().join("cache")));
    Share::with_cache(&dir.path().join("share"), 4, cache).unwrap()
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn vader() -> UserName {
    UserName::parse("vader").unwrap()
}

impl Place {
    /// Writes a file whose stamp is settled: long unchanged, as far as its times tell.
    fn write(&self, file: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join("share").join(file), bytes).unwrap();
        self.settle(file);
    }

    /// Waits until the clock has left the tick of the file's last change.
    fn settle(&self, file: &str) {
        while !self.share.folder.open_file(&name(file)).unwrap().1.is_settled(SystemTime::now()) {
            std::thread::yield_now();
        }
    }

    fn prepare(&self, file: &str) -> Content {
        self.share.prepare(&name(file), &Progress::default()).unwrap().content
    }

    fn serve(&self, file: &str, content: Content) -> Result<(), RefusalReason> {
        let grant = Grant { name: name(file), hash: content.hash, size: content.size };
        self.share.serve(&grant, &vader(), &mut || true).map(drop)
    }
}

#[test]
fn preparing_tells_hash_size_and_time() {
    let place = place();
    for size in [0, 1, GROUP_MIN_BYTES as usize + 1] {
        let bytes = vec![7; size];
        place.write("file", &bytes);
        let progress = Progress::default();
        let file = place.share.prepare(&name("file"), &progress).unwrap();
        let modified = fs::metadata(place.dir.path().join("share/file")).unwrap().modified().unwrap();
        let modified_ms = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(file.content.hash, ContentHash(*blake3::hash(&bytes).as_bytes()));
        assert_eq!((file.content.size, i128::from(file.content.mtime_ms)), (size as u64, modified_ms as i128));
        assert!(size == 0 || progress.last.load(Ordering::Relaxed) > 0);
    }
    let missing = place.share.prepare(&name("nothing"), &Progress::default());
    assert!(matches!(missing, Err(ShareError::Missing(_))));
    let impatient = Progress { interrupted: true.into(), ..Progress::default() };
    assert!(matches!(place.share.prepare(&name("file"), &impatient), Err(ShareError::Interrupted)));
}

#[test]
fn the_second_time_needs_no_look_at_the_bytes() {
    let place = place();
    place.write("file", &vec![1; 3 << 20]);
    let content = place.prepare("file");
    let progress = Progress::default();
    assert_eq!(open(&place.dir).prepare(&name("file"), &progress).unwrap().content, content, "another client's cache");
    assert_eq!(progress.last.load(Ordering::Relaxed), 0);
    place.write("file", &vec![2; 3 << 20]);
    assert_ne!(place.prepare("file").hash, content.hash);
}

#[test]
fn what_changed_or_went_is_refused() {
    let place = place();
    for size in [10, 3 << 20] {
        place.write("file", &vec![1; size]);
        let content = place.prepare("file");
        place.share.published(&name("file"), content, Audience::Everyone);
        assert_eq!(place.serve("file", content), Ok(()));
        place.write("file", &vec![2; size]);
        assert_eq!(place.serve("file", content), Err(RefusalReason::Changed), "other bytes of the same length");
        place.write("file", &vec![1; size + 1]);
        assert_eq!(place.serve("file", content), Err(RefusalReason::Changed), "another length");
        place.write("file", &vec![1; size]);
        assert_eq!(place.serve("file", content), Ok(()), "the same bytes again");
        fs::remove_file(place.dir.path().join("share/file")).unwrap();
        assert_eq!(place.serve("file", content), Err(RefusalReason::Unreadable));
        std::os::unix::fs::symlink("/etc/passwd", place.dir.path().join("share/file")).unwrap();
        assert_eq!(place.serve("file", content), Err(RefusalReason::Unreadable));
        fs::remove_file(place.dir.path().join("share/file")).unwrap();
    }
}

#[test]
fn after_a_restart_the_list_of_the_server_is_enough() {
    let place = place();
    place.write("small", b"small");
    place.write("large", &vec![1; 3 << 20]);
    let contents = [("small", place.prepare("small")), ("large", place.prepare("large"))];
    for cached in [true, false] {
        if !cached {
            fs::remove_dir_all(place.dir.path().join("cache")).unwrap();
        }
        let place = Place { share: open(&place.dir), dir: tempfile::tempdir().unwrap() };
        for (file, content) in contents {
            place.share.published(&name(file), content, Audience::Everyone);
            assert_eq!(place.serve(file, content), Ok(()));
        }
    }
}

#[test]
fn only_what_is_published_is_served_and_only_to_whom_it_is() {
    let place = place();
    place.write("file", b"bytes");
    let content = place.prepare("file");
    assert_eq!(place.serve("file", content), Err(RefusalReason::NotShared), "prepared is not published");
    let publish = |audience| place.share.published(&name("file"), content, audience);
    publish(Audience::only(vec![UserName::parse("yoda").unwrap()]));
    assert_eq!(place.serve("file", content), Err(RefusalReason::NotShared));
    publish(Audience::only(vec![vader()]));
    assert_eq!(place.serve("file", content), Ok(()));
    let other = Content { hash: ContentHash([1; 32]), ..content };
    assert_eq!(place.serve("file", other), Err(RefusalReason::NotShared));
    let longer = Content { size: 6, ..content };
    assert_eq!(place.serve("file", longer), Err(RefusalReason::NotShared));
    place.share.withdrawn(&name("file"));
    assert_eq!(place.serve("file", content), Err(RefusalReason::NotShared));
    publish(Audience::Everyone);
    assert_eq!(place.serve("file", content), Ok(()));
    place.share.clear();
    assert_eq!(place.serve("file", content), Err(RefusalReason::NotShared));
}

#[test]
fn what_was_opened_is_served_only_while_nothing_changes() {
    let place = place();
    place.write("file", b"bytes");
    let content = place.prepare("file");
    place.share.published(&name("file"), content, Audience::Everyone);
    let grant = Grant { name: name("file"), hash: content.hash, size: content.size };
    let open = || place.share.serve(&grant, &vader(), &mut || true).unwrap();
    let served = open();
    assert!(place.share.still_serves(&served, &grant.name));
    place.share.published(&name("file"), content, Audience::Only(vec![]));
    assert!(!place.share.still_serves(&served, &grant.name), "another audience");
    place.share.published(&name("file"), content, Audience::Everyone);
    let served = open();
    let mut file = fs::OpenOptions::new().append(true).open(place.dir.path().join("share/file")).unwrap();
    file.write_all(b"more").unwrap();
    assert!(!place.share.still_serves(&served, &grant.name), "other bytes");
    place.share.withdrawn(&name("file"));
    assert!(!place.share.still_serves(&served, &grant.name), "withdrawn");
}

#[test]
fn a_downloaded_file_needs_no_hashing() {
    let place = place();
    let bytes = vec![1; 3 << 20];
    place.write("file", &bytes);
    let (file, stamp) = place.share.folder.open_file(&name("file")).unwrap();
    let outline = hash_file(&file, &stamp, &mut |_| true).unwrap();
    let content = Content { hash: outline.root(), size: outline.size(), mtime_ms: 0 };
    place.share.published(&name("file"), content, Audience::Everyone);
    place.share.downloaded(&name("file"), &outline, &file);
    let grant = Grant { name: name("file"), hash: content.hash, size: content.size };
    let mut impatient = || -> bool { panic!("nothing takes long") };
    let served = place.share.serve(&grant, &vader(), &mut impatient).unwrap();
    assert_eq!(*place.share.outline(&served, &mut impatient).unwrap(), outline);
}

#[test]
fn an_arriving_file_is_served_as_far_as_it_is_there() {
    let place = place();
    let bytes = vec![1; 3 << 20];
    place.write("part", &bytes);
    let (file, stamp) = place.share.folder.open_file(&name("part")).unwrap();
    let outline = Arc::new(hash_file(&file, &stamp, &mut |_| true).unwrap());
    let content = Content { hash: outline.root(), size: outline.size(), mtime_ms: 0 };
    let file = Arc::new(file);
    place.share.arriving(&name("file"), outline.clone(), file.clone(), Arc::new(|group| group != 1));
    assert_eq!(place.serve("file", content), Err(RefusalReason::NotShared), "arriving is not published");
    place.share.published(&name("file"), content, Audience::Everyone);
    let grant = Grant { name: name("file"), hash: content.hash, size: content.size };
    let served = place.share.serve(&grant, &vader(), &mut || true).unwrap();
    assert!(served.has(0) && !served.has(1) && served.has(2) && !served.is_whole());
    let mut piece = [0; 4];
    served.read(&mut piece, 2 << 20).unwrap();
    assert_eq!(piece, [1; 4]);
    fs::rename(place.dir.path().join("share/part"), place.dir.path().join("share/file")).unwrap();
    place.share.downloaded(&name("file"), &outline, &file);
    assert!(!place.share.still_serves(&served, &grant.name), "it is looked at anew");
    assert!(place.share.serve(&grant, &vader(), &mut || panic!("it is known")).unwrap().is_whole());
    place.share.arriving(&name("file"), outline, file, Arc::new(|_| false));
    place.share.gave_up(&name("file"));
    assert!(place.share.serve(&grant, &vader(), &mut || true).unwrap().is_whole());
}

#[test]
fn what_is_not_listed_yet_is_waited_for() {
    let place = place();
    place.write("file", b"bytes");
    let content = place.prepare("file");
    let grant = Grant { name: name("file"), hash: content.hash, size: content.size };
    let serve = |patience: &mut dyn FnMut() -> bool| place.share.serve(&grant, &vader(), patience).map(drop);
    place.share.list_begins();
    place.share.list_begins();
    let mut looks = 0;
    let served = serve(&mut || {
        looks += 1;
        match looks {
            1 => place.share.list_ends(),
            _ => {
                place.share.published(&grant.name, content, Audience::Everyone);
                place.share.list_ends();
            }
        }
        true
    });
    assert_eq!((served, looks), (Ok(()), 2));
    place.share.withdrawn(&grant.name);
    place.share.list_begins();
    assert_eq!(serve(&mut || false), Err(RefusalReason::Unreadable));
    let ended = serve(&mut || {
        place.share.list_ends();
        true
    });
    assert_eq!(ended, Err(RefusalReason::NotShared));
}

#[test]
fn many_files_are_hashed_at_once_and_the_large_ones_in_turn() {
    let place = place();
    let sizes = [5, GROUP_MIN_BYTES as usize + 1, 3, 2 * GROUP_MIN_BYTES as usize, 0, GROUP_MIN_BYTES as usize + 9];
    for (at, &size) in sizes.iter().enumerate() {
        place.write(&at.to_string(), &vec![at as u8; size]);
        assert_eq!(place.share.size(&name(&at.to_string())), size as u64);
    }
    assert_eq!(place.share.size(&name("nothing")), 0);
    let prepare = |at: usize| place.prepare(&at.to_string());
    let contents = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sizes.len()).map(|at| scope.spawn(move || prepare(at))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (at, (content, size)) in contents.iter().zip(sizes).enumerate() {
        assert_eq!(content.hash.0, *blake3::hash(&vec![at as u8; size]).as_bytes());
    }
    let _turn = place.share.publishing.enter(&mut || true);
    place.write("large", &vec![7; GROUP_MIN_BYTES as usize + 1]);
    let stopped = place.share.prepare(&name("large"), &InterruptedWhileItWaits::default());
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
