//! What `follow` does about a name: to whom it belongs, and whether it is fetched, removed or left alone.
//!
//! A name belongs to the owner it was first fetched from: only that user's publication replaces the file, and only while the
//! file is what was fetched.

use serde::{Deserialize, Serialize};

use crate::client::files::Fetched;
use crate::common::types::{Content, ContentHash, UserName};

/// What is followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Followed {
    /// As typed.
    pub pattern: String,
    /// Whether what was fetched and is gone is removed.
    pub mirror: bool,
    /// The only user who is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Followed {
    /// The command that follows it.
    pub fn line(&self) -> String {
        let mirror = if self.mirror { " --mirror" } else { "" };
        let from = self.from.as_ref().map_or_else(String::new, |from| format!(" --from {from}"));
        format!("follow{mirror}{from} {}", self.pattern)
    }
}

/// What is in the shared folder under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFile {
    Missing,
    /// A file with this content.
    Content(ContentHash),
    /// A folder, or something that cannot be read.
    Other,
}

impl LocalFile {
    /// The content of a file.
    pub fn hash(&self) -> Option<&ContentHash> {
        if let Self::Content(hash) = self { Some(hash) } else { None }
    }
}

/// A content that is published under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowOffer {
    pub content: Content,
    /// The active users who publish it.
    pub owners: Vec<UserName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowAction {
    /// All is as it should be.
    Nothing,
    /// Nobody who is followed publishes it, as far as the offers tell.
    NotOffered,
    Fetch {
        content: Content,
        owner: UserName,
    },
    /// What is there is the user's own.
    LeaveAlone,
    /// The owner does not publish the name, as far as the offers tell: if that is certain, the copy has no original.
    Orphan(UserName),
}

/// What is done about a name; pure. `recorded`: what was fetched under it; `from`: the only user who is followed; `offers`: the best
/// first.
pub fn decide(
    recorded: Option<&Fetched>,
    from: Option<&UserName>,
    local: LocalFile,
    offers: &[FollowOffer],
) -> FollowAction {
    let owner_of = |recorded: &Fetched| recorded.owner.clone();
    let recorded_owner = recorded.and_then(owner_of);
    if from.is_some() && recorded_owner.is_some() && recorded_owner.as_ref() != from {
        return FollowAction::Nothing;
    }
    let first = || offers.iter().find_map(|offer| offer.owners.first());
    let Some(owner) = recorded_owner.as_ref().or(from).or_else(first) else { return FollowAction::NotOffered };
    let copy = recorded.filter(|recorded| recorded.owner.is_some()).map(|recorded| recorded.hash);
    let Some(offer) = offers.iter().find(|offer| offer.owners.contains(owner)) else {
        let is_copy = copy.is_some_and(|copy| local == LocalFile::Content(copy));
        return if is_copy { FollowAction::Orphan(owner.clone()) } else { FollowAction::NotOffered };
    };
    let fetch = || FollowAction::Fetch { content: offer.content, owner: owner.clone() };
    match local {
        LocalFile::Content(hash) if hash == offer.content.hash => FollowAction::Nothing,
        LocalFile::Content(hash) if Some(hash) == copy => fetch(),
        LocalFile::Missing => fetch(),
        LocalFile::Content(_) | LocalFile::Other => FollowAction::LeaveAlone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn hash(byte: u8) -> ContentHash {
        ContentHash([byte; 32])
    }

    fn offer(byte: u8, owners: &[&str]) -> FollowOffer {
        let owners = owners.iter().map(|owner| user(owner)).collect();
        FollowOffer { content: Content { hash: hash(byte), size: 1, mtime_ms: 0 }, owners }
    }

    fn fetched(byte: u8, owner: Option<&str>) -> Fetched {
        Fetched { hash: hash(byte), owner: owner.map(user) }
    }

    fn fetch(byte: u8, owner: &str) -> FollowAction {
        FollowAction::Fetch { content: offer(byte, &[]).content, owner: user(owner) }
    }

    #[test]
    fn a_new_name_belongs_to_the_first_who_offers_it_or_to_the_one_who_is_followed() {
        let offers = [offer(1, &["hans", "yoda"]), offer(2, &["vader"])];
        assert_eq!(decide(None, None, LocalFile::Missing, &offers), fetch(1, "hans"));
        assert_eq!(decide(None, Some(&user("vader")), LocalFile::Missing, &offers), fetch(2, "vader"));
        assert_eq!(decide(None, Some(&user("luke")), LocalFile::Missing, &offers), FollowAction::NotOffered);
        assert_eq!(decide(None, None, LocalFile::Missing, &[]), FollowAction::NotOffered);
    }

    #[test]
    fn only_its_owner_replaces_a_copy_and_only_while_it_is_one() {
        let offers = [offer(2, &["vader", "yoda"]), offer(3, &["hans"])];
        let recorded = fetched(1, Some("hans"));
        let copy = LocalFile::Content(hash(1));
        assert_eq!(decide(Some(&recorded), None, copy, &offers), fetch(3, "hans"));
        assert_eq!(decide(Some(&recorded), None, LocalFile::Missing, &offers), fetch(3, "hans"));
        assert_eq!(decide(Some(&recorded), None, LocalFile::Content(hash(3)), &offers), FollowAction::Nothing);
        assert_eq!(decide(Some(&recorded), Some(&user("vader")), copy, &offers), FollowAction::Nothing);
        assert_eq!(decide(Some(&recorded), None, copy, &offers[..1]), FollowAction::Orphan(user("hans")));
        for mine in [LocalFile::Content(hash(9)), LocalFile::Other] {
            assert_eq!(decide(Some(&recorded), None, mine, &offers), FollowAction::LeaveAlone);
            assert_eq!(decide(Some(&recorded), None, mine, &offers[..1]), FollowAction::NotOffered);
            assert_eq!(decide(None, None, mine, &offers), FollowAction::LeaveAlone);
        }
    }

    #[test]
    fn what_the_user_has_fetched_is_the_user_s() {
        let (offers, recorded) = ([offer(2, &["hans"])], fetched(1, None));
        assert_eq!(decide(Some(&recorded), None, LocalFile::Content(hash(1)), &offers), FollowAction::LeaveAlone);
        assert_eq!(decide(Some(&recorded), None, LocalFile::Missing, &offers), fetch(2, "hans"));
        assert_eq!(decide(Some(&recorded), None, LocalFile::Content(hash(1)), &[]), FollowAction::NotOffered);
    }
}
