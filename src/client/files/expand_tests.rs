use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::*;

const TREE: [&str; 15] = [
    "a.pdf",
    "b.txt",
    "[1].txt",
    "credentials.txt",
    "fileshare.db",
    "fileshare.db-wal",
    ".hidden",
    ".0123456789abcdef0123456789abcdef.part",
    ".config/x.pdf",
    "photos/2.jpg",
    "photos/1.jpg",
    "photos/.thumb",
    "photos/sub/3.jpg",
    "photos/sub/credentials.txt",
    "music/4.mp3",
];

fn tree() -> (tempfile::TempDir, SharedDir) {
    let dir = tempfile::tempdir().unwrap();
    for file in TREE {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    symlink("/etc", dir.path().join("photos/etc")).unwrap();
    symlink("a.pdf", dir.path().join("link.pdf")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let folder = SharedDir::open(dir.path()).unwrap();
    (dir, folder)
}

fn files(folder: &SharedDir, text: &str, pattern: bool) -> Vec<String> {
    let found = expand(folder, text, pattern);
    assert!(found.errors.is_empty(), "{text}: {:?}", found.errors);
    found.files.iter().map(ToString::to_string).collect()
}

fn expand(folder: &SharedDir, text: &str, pattern: bool) -> ExpandedPaths {
    folder.expand(&PathArg { text: text.into(), pattern: pattern.then(|| text.into()) })
}

#[test]
fn a_name_means_its_file_even_if_excluded_elsewhere() {
    let (_dir, folder) = tree();
    for name in TREE {
        assert_eq!(files(&folder, name, false), [name]);
    }
}

#[test]
fn a_folder_means_everything_in_it_that_is_not_excluded() {
    let (_dir, folder) = tree();
    for photos in ["photos", "photos/"] {
        assert_eq!(files(&folder, photos, false), ["photos/1.jpg", "photos/2.jpg", "photos/sub/3.jpg"]);
    }
    let all = ["[1].txt", "a.pdf", "b.txt", "music/4.mp3", "photos/1.jpg", "photos/2.jpg", "photos/sub/3.jpg"];
    assert_eq!(files(&folder, ".", false), all);
    assert_eq!(files(&folder, ".config", false), [".config/x.pdf"], "named explicitly");
}

#[test]
fn patterns_match_as_in_a_shell() {
    let (_dir, folder) = tree();
    assert_eq!(files(&folder, "*", true), files(&folder, ".", false), "folders, but no links and nothing left out");
    assert_eq!(files(&folder, "[ap]*", true), ["a.pdf", "photos/1.jpg", "photos/2.jpg", "photos/sub/3.jpg"]);
    assert_eq!(files(&folder, "*.pdf", true), ["a.pdf"]);
    assert_eq!(files(&folder, "photos/*", true), ["photos/1.jpg", "photos/2.jpg", "photos/sub/3.jpg"]);
    assert_eq!(files(&folder, "*/sub", true), ["photos/sub/3.jpg"]);
    assert_eq!(files(&folder, "p*/[1-9].jpg", true), ["photos/1.jpg", "photos/2.jpg"]);
    assert_eq!(files(&folder, "*/*/3.jp?", true), ["photos/sub/3.jpg"]);
    assert_eq!(files(&folder, ".config/*", true), [".config/x.pdf"]);
    assert_eq!(files(&folder, ".*", true), [".config/x.pdf", ".hidden"], "a pattern with a dot; never a part file");
    assert_eq!(files(&folder, "m*/", true), ["music/4.mp3"], "a pattern for folders");
    assert_eq!(files(&folder, "[1].txt", true), ["[1].txt"], "no match, but a file of this name");
    assert_eq!(files(&folder, "\\[1\\].t*", true), ["[1].txt"], "quoted characters are not special");
}

#[test]
fn files_that_cannot_be_published_are_reported() {
    let (dir, folder) = tree();
    let error = |text: &str, pattern| {
        let found = expand(&folder, text, pattern);
        assert!(found.files.is_empty() && found.errors.len() == 1, "{text}: {found:?}");
        found.errors.into_iter().next().unwrap()
    };
    assert!(matches!(error("nothing", false), ShareError::Missing(_)));
    assert!(matches!(error("a.[x-", true), ShareError::Missing(_)), "neither a pattern nor a file");
    assert!(matches!(error("a.pdf/", false), ShareError::Missing(_)));
    assert!(matches!(error("link.pdf", false), ShareError::Special(_)));
    assert!(matches!(error("photos/etc", false), ShareError::Special(_)));
    assert!(matches!(error("photos/etc/passwd", false), ShareError::Special(_)));
    assert!(matches!(error("empty", false), ShareError::Empty(_)));
    assert!(matches!(error("*.nothing", true), ShareError::NoMatch(_)));
    assert!(matches!(error("emp*", true), ShareError::NoMatch(_)), "nothing but an empty folder");
    assert!(matches!(error("../*", true), ShareError::NoMatch(_)));
    fs::create_dir(dir.path().join("[2]")).unwrap();
    assert!(matches!(error("[2]", true), ShareError::NoMatch(_)), "a pattern that is the name of a folder");
    assert!(matches!(error("a/../../etc/passwd", false), ShareError::Name(..)));
    assert!(matches!(error("/etc/passwd", false), ShareError::Name(..)));
    let music = dir.path().join("music");
    fs::write(music.join(OsStr::from_bytes(b"\xff")), "").unwrap();
    fs::write(music.join("back\\slash"), "").unwrap();
    fs::create_dir(music.join("esc\x1b[31m")).unwrap();
    let found = expand(&folder, "music", false);
    assert_eq!(found.files.len(), 1, "the other file is published");
    assert_eq!(found.errors.len(), 3);
    assert!(!found.errors.iter().any(|error| error.to_string().contains('\x1b')), "control characters are escaped");
}

#[test]
fn private_files_are_excluded() {
    let private = [
        "credentials.txt",
        "credentials.txt~",
        "credentials.txt.bak",
        "#credentials.txt#",
        ".credentials.txt.swp",
        ".#credentials.txt",
        "my-credentials.txt",
        "fileshare.db",
        "fileshare.db-wal",
        "fileshare.db~",
        ".0123456789abcdef0123456789ABCDEF.part",
    ];
    for name in private {
        assert!(is_excluded(name.as_bytes()), "{name}");
    }
    for public in ["a", "credentials.pdf", "my-fileshare.db", ".0123.part", "0123456789abcdef0123456789abcdef.part"] {
        assert!(!is_excluded(public.as_bytes()), "{public}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("old.credentials.txt.d")).unwrap();
    for name in ["x.txt", "old.credentials.txt.d/x"].iter().chain(&private) {
        fs::write(dir.path().join(name), "hans falcon*solo\n").unwrap();
    }
    let folder = SharedDir::open(dir.path()).unwrap();
    for (argument, is_pattern) in [(".", false), ("*", true), ("*.txt", true)] {
        let found = expand(&folder, argument, is_pattern);
        assert_eq!(found.files.iter().map(FileName::as_str).collect::<Vec<_>>(), ["x.txt"], "{argument}");
    }
    assert!(expand(&folder, ".*", true).files.is_empty(), "a pattern for hidden entries");
    assert_eq!(expand(&folder, "credentials.txt", false).files.len(), 1, "its own name");
}
