use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn name(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

/// The names that are found, and those that are gone.
fn look(root: &Path, folder: &WatchedFolder, due: &[&str], published: &[&str]) -> (Vec<String>, Vec<String>) {
    let dir = SharedDir::open(root).unwrap();
    let due = due.iter().map(ToString::to_string).collect();
    let names = |path: &str| -> Vec<FileName> {
        published.iter().filter(|name| **name == path || is_beneath(name, path)).map(|text| name(text)).collect()
    };
    let survey = folder.survey(&dir, &due, &names, &mut |_| ());
    assert!(survey.errors.is_empty() && survey.folder.is_ok(), "{survey:?}");
    let text = |names: Vec<FileName>| names.iter().map(ToString::to_string).collect();
    (text(survey.files.into_keys().collect()), text(survey.gone))
}

#[test]
fn a_survey_finds_what_folders_publish_and_what_is_gone() {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in [("w/a", "a"), ("w/x/b", "b"), ("w/.h", ""), ("w/x/.h/c", ""), ("other", "")] {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    symlink("a", root.path().join("w/link")).unwrap();
    let folder = WatchedFolder::open(&SharedDir::open(root.path()).unwrap(), "w").unwrap();
    let published = ["w/a", "w/gone", "w/.h", "w/link", "w/x", "w/x/gone", "other", "nothing"];
    let (files, gone) = look(root.path(), &folder, &["w"], &published);
    assert_eq!(files, ["w/a", "w/x/b"]);
    assert_eq!(gone, ["w/gone", "w/link", "w/x", "w/x/gone"], "also what is no file any more, but not what is hidden");
    let (files, gone) = look(root.path(), &folder, &["w/a", "w/nothing", "w/x/b"], &published);
    assert_eq!((files, gone), (vec!["w/a".into(), "w/x/b".into()], vec![]));
}

#[test]
fn a_folder_that_is_replaced_is_another_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = SharedDir::open(root.path()).unwrap();
    let path = root.path().join("w");
    assert!(matches!(WatchedFolder::open(&dir, "w"), Err(ShareError::Missing(_))));
    fs::create_dir(&path).unwrap();
    let folder = WatchedFolder::open(&dir, "w").unwrap();
    let whole = WatchedFolder::open(&dir, "").unwrap();
    let check = |folder: &WatchedFolder| {
        folder.survey(&dir, &BTreeSet::from([folder.path.clone()]), &|_| Vec::new(), &mut |_| ()).folder
    };
    assert!(check(&folder).is_ok() && check(&whole).is_ok() && folder.is_at(&path) && whole.is_at(root.path()));
    fs::rename(&path, root.path().join("old")).unwrap();
    assert_eq!(check(&folder), Err("w: no such file in the shared folder".into()));
    fs::create_dir(&path).unwrap();
    assert_eq!(check(&folder), Err("w: is another folder than the one that is watched".into()));
    assert!(check(&whole).is_ok() && !folder.is_at(&path));
}
