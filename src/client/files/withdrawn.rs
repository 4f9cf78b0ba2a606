//! To whom withdrawn names were published: a name that a watch publishes again is for the same users, never for more.
//!
//! They are kept in the user's state folder, in a file for each shared folder, a JSON line for the names of one user that
//! are withdrawn at once with one audience. What a user has published at one server counts at any other.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::record_file::RecordFile;
use crate::common::sync::lock;
use crate::common::types::{Audience, FileName, UserName};

/// A file with so many names more than it needs is written anew.
const SURPLUS_MAX_NAMES: usize = 10_000;

/// See the [module](self).
pub struct WithdrawnAudiences(Mutex<WithdrawnTable>);

#[derive(Default)]
struct WithdrawnTable {
    by_user: HashMap<UserName, HashMap<FileName, Arc<Audience>>>,
    file: RecordFile,
}

#[derive(Serialize, Deserialize)]
struct WithdrawnLine {
    user: UserName,
    /// `None`: forgotten.
    audience: Option<Audience>,
    names: Vec<FileName>,
}

impl WithdrawnAudiences {
    pub fn open(file: RecordFile) -> Self {
        let mut table = WithdrawnTable { file, ..WithdrawnTable::default() };
        let names = table.read();
        let needed: usize = table.by_user.values().map(HashMap::len).sum();
        let WithdrawnTable { by_user, file } = &mut table;
        file.opened((names > needed + SURPLUS_MAX_NAMES).then_some(|_: &str| compact(by_user)));
        Self(Mutex::new(table))
    }

    /// Why not everything is kept after the end of the client.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.0).file.trouble().map(str::to_owned)
    }

    /// The audience that the user has last published a name for, if it was withdrawn.
    pub fn get(&self, user: &UserName, name: &FileName) -> Option<Audience> {
        self.table().by_user.get(user)?.get(name).map(|audience| Audience::clone(audience))
    }

    /// The user is about to withdraw these names, which have this audience; `None`: they are as if never published. An error
    /// means that it is only known until the client ends.
    pub fn record(&self, user: &UserName, names: Vec<FileName>, audience: Option<Audience>) -> io::Result<()> {
        let mut table = self.table();
        let known = table.by_user.get(user);
        let is_new =
            |name: &FileName| known.and_then(|known| known.get(name)).map(|known| &**known) != audience.as_ref();
        let names: Vec<FileName> = names.into_iter().filter(is_new).collect();
        if names.is_empty() {
            return table.file.write_failure().map_or(Ok(()), |why| Err(io::Error::other(why.to_owned())));
        }
        let line = WithdrawnLine { user: user.clone(), audience, names };
        let text = line.to_text();
        table.apply(line);
        table.file.append(&text)
    }

    /// With what other clients of the folder have recorded.
    fn table(&self) -> MutexGuard<'_, WithdrawnTable> {
        let mut table = lock(&self.0);
        table.read();
        table
    }
}

impl WithdrawnTable {
    /// Reads what has been written since. Returns the number of names.
    fn read(&mut self) -> usize {
        let text = self.file.read();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<WithdrawnLine>(line).ok());
        let count = |line: WithdrawnLine| {
            let names = line.names.len();
            self.apply(line);
            names
        };
        lines.map(count).sum()
    }

    fn apply(&mut self, WithdrawnLine { user, audience, names }: WithdrawnLine) {
        let known = self.by_user.entry(user).or_default();
        match audience.map(Arc::new) {
            Some(audience) => known.extend(names.into_iter().map(|name| (name, Arc::clone(&audience)))),
            None => names.iter().for_each(|name| drop(known.remove(name))),
        }
    }
}

impl WithdrawnLine {
    fn to_text(&self) -> String {
        serde_json::to_string(self).map(|line| line + "\n").unwrap_or_default()
    }
}

/// The same without lines that others replace.
fn compact(by_user: &HashMap<UserName, HashMap<FileName, Arc<Audience>>>) -> String {
    let mut lines: BTreeMap<(&UserName, &Audience), Vec<FileName>> = BTreeMap::new();
    for (user, names) in by_user {
        for (name, audience) in names {
            lines.entry((user, audience)).or_default().push(name.clone());
        }
    }
    let line = |((user, audience), names): ((&UserName, &Audience), Vec<FileName>)| {
        WithdrawnLine { user: user.clone(), audience: Some(audience.clone()), names }.to_text()
    };
    lines.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::parse(name).unwrap()
    }

    #[test]
    fn an_audience_is_known_after_a_restart_until_it_is_forgotten() {
        let [dir, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let open = || {
            let audiences = WithdrawnAudiences::open(RecordFile::open(dir.path(), Some(state.path())));
            assert_eq!(audiences.trouble(), None);
            audiences
        };
        let [hans, vader, yoda] = ["hans", "vader", "yoda"].map(|user| UserName::parse(user).unwrap());
        let audience = Audience::only(vec![vader.clone()]);
        let audiences = open();
        let names = ["a", "b/c d"].map(name);
        audiences.record(&hans, names.to_vec(), Some(audience.clone())).unwrap();
        audiences.record(&yoda, vec![name("a")], Some(Audience::Everyone)).unwrap();
        for audiences in [audiences, open()] {
            assert_eq!(
                names.each_ref().map(|name| audiences.get(&hans, name)),
                [(); 2].map(|()| Some(audience.clone()))
            );
            assert_eq!(audiences.get(&yoda, &name("a")), Some(Audience::Everyone));
            assert_eq!([audiences.get(&vader, &name("a")), audiences.get(&hans, &name("b"))], [None, None]);
        }
        let audiences = open();
        (0..=SURPLUS_MAX_NAMES).for_each(|at| {
            let audience = if at % 2 == 0 { Audience::Everyone } else { audience.clone() };
            audiences.record(&hans, vec![name("x")], Some(audience)).unwrap();
        });
        audiences.record(&hans, vec![name("a")], None).unwrap();
        drop(audiences);
        for audiences in [open(), open()] {
            assert_eq!(
                [audiences.get(&hans, &name("a")), audiences.get(&hans, &name("x"))],
                [None, Some(Audience::Everyone)]
            );
            assert_eq!(audiences.get(&yoda, &name("a")), Some(Audience::Everyone));
        }
        let file = std::fs::read_dir(state.path()).unwrap().next().unwrap().unwrap().path();
        assert!(std::fs::read_to_string(file).unwrap().lines().count() < 10);
    }

    #[test]
    fn what_cannot_be_written_is_said_again_and_known_until_the_end() {
        let [dir, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let audiences = WithdrawnAudiences::open(RecordFile::open(dir.path(), Some(state.path())));
        lock(&audiences.0).file.set_writable(false);
        let hans = UserName::parse("hans").unwrap();
        for _ in 0..2 {
            audiences.record(&hans, vec![name("a")], Some(Audience::Everyone)).unwrap_err();
        }
        assert!(audiences.trouble().is_some());
        assert_eq!(audiences.get(&hans, &name("a")), Some(Audience::Everyone));
    }
}
