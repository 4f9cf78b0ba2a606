//! The core against a model of a folder, in virtual time and from seeds.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;

const FOLDER: &str = "w";
const SEEDS: u64 = 200;

/// A file of the model. Each change makes a new version.
#[derive(Debug, Clone, Copy)]
struct ModelFile {
    version: u64,
    changed: Instant,
    /// Since when a writer has it open, if no event was lost since.
    is_open: bool,
}

/// A folder, the watch over it, and what is published.
struct Model {
    random: ChaCha20Rng,
    now: Instant,
    core: WatchCore,
    files: BTreeMap<FileName, ModelFile>,
    published: BTreeMap<FileName, u64>,
    versions: u64,
    is_away: bool,
    is_unreadable: bool,
    notes: usize,
}

fn name(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "an instant to count from")]
fn start() -> Instant {
    Instant::now()
}

impl Model {
    fn new(seed: u64) -> Self {
        let now = start();
        Self {
            random: ChaCha20Rng::seed_from_u64(seed),
            now,
            core: WatchCore::new(FOLDER, now),
            files: BTreeMap::new(),
            published: BTreeMap::new(),
            versions: 0,
            is_away: false,
            is_unreadable: false,
            notes: 0,
        }
    }

    fn event(&mut self, path: &str, event: PathEvent) {
        self.core.on_event(self.now, path, event);
    }

    /// The kernel has dropped events: nothing is known of writers either.
    fn lose(&mut self) {
        self.files.values_mut().for_each(|file| file.is_open = false);
        self.core.on_lost(self.now);
    }

    fn random_name(&mut self) -> FileName {
        let folder = ["", "x/", "x/y/", "z/"][self.random.gen_range(0..4)];
        name(&format!("{FOLDER}/{folder}{}", self.random.gen_range(0..6)))
    }

    fn write(&mut self, name: FileName, is_open: bool) {
        self.versions += 1;
        let file = ModelFile { version: self.versions, changed: self.now, is_open };
        self.files.insert(name, file);
    }

    /// Something happens, and its events come or are lost.
    fn act(&mut self) {
        let is_lost = self.random.gen_bool(0.05);
        let path = self.random_name();
        match self.random.gen_range(0..10) {
            0..4 => {
                self.write(path.clone(), !is_lost);
                if !is_lost {
                    self.event(path.as_str(), PathEvent::Changed);
                    self.event(path.as_str(), PathEvent::Writing);
                }
            }
            4..6 => {
                if let Some(file) = self.files.get_mut(&path) {
                    file.is_open = false;
                    if !is_lost {
                        self.event(path.as_str(), PathEvent::Settled);
                    }
                }
            }
            6..8 => {
                if self.files.remove(&path).is_some() && !is_lost {
                    self.event(path.as_str(), PathEvent::Settled);
                }
            }
            8 => self.rename_folder(is_lost),
            _ => {
                self.is_away = self.random.gen_bool(0.1);
                self.is_unreadable = self.random.gen_bool(0.2);
            }
        }
        if is_lost {
            self.lose();
        }
    }

    fn rename_folder(&mut self, is_lost: bool) {
        let moved: Vec<FileName> = self.files.keys().filter(|name| is_beneath(name.as_str(), "w/x")).cloned().collect();
        for old in moved {
            let file = self.files.remove(&old).unwrap();
            let new = name(&old.as_str().replacen("w/x", "w/z", 1));
            self.files.insert(new, ModelFile { is_open: false, ..file });
        }
        if !is_lost {
            self.event("w/x", PathEvent::Settled);
            self.event("w/z", PathEvent::Settled);
        }
    }

    fn survey(&self, due: &BTreeSet<String>) -> Survey {
        let is_covered =
            |name: &FileName| due.iter().any(|path| name.as_str() == path || is_beneath(name.as_str(), path));
        let found = |(name, file): (&FileName, &ModelFile)| {
            let identity = FileIdentity { device: 1, inode: file.version, size: 0, modified_ns: 0, changed_ns: 0 };
            let age = self.now - file.changed;
            (name.clone(), FoundFile { identity, age, is_racy: age < Duration::from_millis(20) })
        };
        let files = self.files.iter().filter(|(name, _)| is_covered(name)).map(found);
        let gone = self.published.keys().filter(|name| is_covered(name) && !self.files.contains_key(*name));
        Survey {
            folder: if self.is_away { Err("away".into()) } else { Ok(()) },
            files: files.collect(),
            gone: gone.cloned().collect(),
            mounts: BTreeSet::new(),
            errors: if self.is_unreadable { vec!["unreadable".into()] } else { Vec::new() },
            invalid: Vec::new(),
        }
    }

    /// Does what is due until then.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let paths = self.core.poll(self.now);
            let survey = self.survey(&paths);
            let plan = self.core.on_survey(self.now, &paths, survey);
            self.carry_out(plan);
        }
        self.now = end;
    }

    fn carry_out(&mut self, plan: WatchPlan) {
        assert!(plan.withdraw.is_empty() || !(self.is_away || self.is_unreadable), "{plan:?}");
        self.notes += usize::from(plan.note.is_some());
        for name in plan.withdraw {
            assert!(!self.files.contains_key(&name), "{name} is there");
            assert!(self.published.remove(&name).is_some(), "{name} was not published");
        }
        for name in plan.publish {
            let file = self.files[&name];
            let quiet = if file.is_open { WRITER_QUIET } else { QUIET };
            assert!(self.now - file.changed >= quiet, "{name} changed {:?} ago", self.now - file.changed);
            if self.random.gen_bool(0.1) {
                self.core.on_failed(self.now, [&name]);
            } else {
                self.published.insert(name, file.version);
            }
        }
    }
}

#[test]
fn what_is_published_follows_the_folder_whatever_happens() {
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        model.advance(Duration::ZERO);
        for _ in 0..300 {
            model.act();
            let pause = model.random.gen_range(0..400);
            model.advance(Duration::from_millis(pause));
        }
        (model.is_away, model.is_unreadable) = (false, false);
        // No trouble lasts longer than its last retry.
        model.advance(SURVEY_RETRY_MAX * 2);
        let expected: BTreeMap<_, _> = model.files.iter().map(|(name, file)| (name.clone(), file.version)).collect();
        assert_eq!(model.published, expected, "seed {seed}");
        assert_eq!(model.core.poll_timeout(), None, "an idle watch has no deadline");
    }
}

#[test]
fn a_change_is_published_when_it_is_quiet_and_a_slow_writer_s_once() {
    let mut model = Model::new(0);
    model.advance(Duration::ZERO);
    let slow = name("w/slow");
    for _ in 0..20 {
        model.write(slow.clone(), true);
        model.event("w/slow", PathEvent::Writing);
        model.advance(Duration::from_secs(4));
    }
    assert!(model.published.is_empty());
    model.event("w/slow", PathEvent::Settled);
    model.files.get_mut(&slow).unwrap().is_open = false;
    model.advance(QUIET - Duration::from_millis(1));
    assert!(model.published.is_empty());
    while model.published.is_empty() {
        model.advance(Duration::from_millis(1));
    }
    assert_eq!(model.published, BTreeMap::from([(slow, 20)]));
}

#[test]
fn one_note_says_why_nothing_is_withdrawn_until_all_is_well() {
    let mut model = Model::new(0);
    model.advance(Duration::ZERO);
    for trouble in 1..3 {
        model.write(name("w/a"), false);
        model.event("w/a", PathEvent::Settled);
        model.advance(Duration::from_secs(10));
        (model.is_away, model.is_unreadable) = (trouble == 1, trouble == 2);
        let file = model.files.remove(&name("w/a")).unwrap();
        model.event("w/a", PathEvent::Settled);
        model.event("w", PathEvent::Settled);
        model.advance(Duration::from_secs(1_000));
        assert_eq!((model.notes, model.published.len()), (trouble, 1));
        (model.is_away, model.is_unreadable) = (false, false);
        model.files.insert(name("w/b"), file);
        model.advance(SURVEY_RETRY_MAX * 2);
        assert_eq!(model.published.keys().collect::<Vec<_>>(), [&name("w/b")]);
        model.files.remove(&name("w/b"));
        model.event("w/b", PathEvent::Settled);
        model.advance(Duration::from_secs(10));
    }
}

/// A survey that found these file systems and missed these files.
fn survey(mounts: &[&str], gone: &[&str]) -> Survey {
    Survey {
        gone: gone.iter().map(|gone| name(gone)).collect(),
        mounts: mounts.iter().map(ToString::to_string).collect(),
        ..Survey::empty()
    }
}

#[test]
fn a_file_system_that_is_missing_withdraws_nothing() {
    let now = start();
    let mut core = WatchCore::new("", now);
    let due = core.poll(now);
    assert_eq!(core.on_survey(now, &due, survey(&["usb"], &["x"])).withdraw, [name("x")]);
    let plan = core.on_survey(now, &due, survey(&[], &["usb/a", "b"]));
    assert!(plan.withdraw.is_empty() && plan.note.is_some_and(|note| note.starts_with("usb: another file system")));
    let other = BTreeSet::from(["b".to_owned()]);
    assert_eq!(core.on_survey(now, &other, survey(&[], &["b"])).withdraw, [name("b")], "elsewhere all is well");
    assert_eq!(core.on_survey(now, &due, survey(&["usb"], &["usb/a"])).withdraw, [name("usb/a")]);
}

#[test]
fn a_flood_of_events_has_the_folder_examined() {
    let now = start();
    let mut core = WatchCore::new("w", now);
    core.poll(now);
    (0..=PENDING_MAX).for_each(|at| core.on_event(now, &format!("w/{at}"), PathEvent::Changed));
    assert_eq!(core.poll(now + QUIET), BTreeSet::from(["w".to_owned()]));
}

#[test]
fn a_file_system_above_what_is_examined_is_looked_for_too() {
    let now = start();
    let mut core = WatchCore::new("", now);
    let due = core.poll(now);
    core.on_survey(now, &due, survey(&["usb"], &[]));
    let beneath = BTreeSet::from(["usb/x/a".to_owned()]);
    assert!(core.on_survey(now, &beneath, survey(&[], &["usb/x/a"])).withdraw.is_empty());
    assert_eq!(core.poll(now + SURVEY_RETRY), beneath);
    assert_eq!(core.on_survey(now, &beneath, survey(&["usb"], &["usb/x/a"])).withdraw, [name("usb/x/a")]);
}

#[test]
fn what_is_refused_is_tried_again_ever_more_rarely_until_it_is_not() {
    let mut now = start();
    let mut core = WatchCore::new("", now);
    core.poll(now);
    let names = [name("a"), name("b")];
    let survey = |core: &mut WatchCore, now: Instant| {
        let due = core.poll(now);
        core.on_survey(now, &due, Survey::empty());
    };
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        core.on_refused(now, &names);
        assert!(core.has_failed());
        let due = core.poll_timeout().unwrap();
        assert_eq!((due - now).as_secs(), seconds);
        now = due;
        survey(&mut core, now);
    }
    assert!(!core.has_failed());
    core.on_failed(now, &names);
    assert_eq!(core.poll_timeout(), Some(now + RETRY), "that is no refusal");
    survey(&mut core, now + RETRY);
    core.put_back(now, BTreeSet::from(["x".to_owned()]));
    assert_eq!(core.poll_timeout(), Some(now + RETRY));
    survey(&mut core, now + RETRY);
    core.on_refused(now, &names);
    assert_eq!(core.poll_timeout(), Some(now + RETRY), "all was well meanwhile");
}
