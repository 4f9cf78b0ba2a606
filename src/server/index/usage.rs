//! What each user's publications take, kept up to date with every change, so that a quota is checked without a scan.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::audiences::{AudienceId, Audiences};
use super::{Index, OwnerId};
use crate::common::types::{Audience, NamedContent};

/// What the publications of one user take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub files: u64,
    /// Bytes of their names.
    pub name_bytes: u64,
    /// Members of the distinct audiences, summed.
    pub audience_members: u64,
}

/// What a PUBLISH would do to the usage of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageChange {
    pub before: Usage,
    pub after: Usage,
    /// Members of the audience if no other publication of the user has it, and so it must be stored; otherwise 0.
    pub new_members: u64,
}

/// The audiences of one user's publications.
#[derive(Default)]
pub(super) struct OwnerAudiences {
    /// The number of publications that have each; without [`AudienceId::EVERYONE`].
    uses: HashMap<AudienceId, u32>,
    /// Of all of these audiences.
    members: u64,
}

impl OwnerAudiences {
    /// One more publication has this audience.
    pub(super) fn acquire(&mut self, id: AudienceId, audiences: &Audiences) {
        if id == AudienceId::EVERYONE {
            return;
        }
        let uses = self.uses.entry(id).or_default();
        *uses += 1;
        if *uses == 1 {
            self.members += members(audiences.audience(id));
        }
    }

    /// A publication no longer has this audience, which is still in `audiences`.
    pub(super) fn release(&mut self, id: AudienceId, audiences: &Audiences) {
        let Some(uses) = self.uses.get_mut(&id) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&id);
            self.members -= members(audiences.audience(id));
        }
    }
}

impl Index {
    /// What the owner's publications take.
    pub fn usage(&self, owner: OwnerId) -> Usage {
        let owner = &self.owners[owner.0 as usize];
        Usage {
            files: owner.names.len() as u64,
            name_bytes: owner.name_bytes,
            audience_members: owner.audiences.members,
        }
    }

    /// What the owner's publications would take if these files were published for this audience.
    pub fn usage_change(&self, owner: OwnerId, files: &[NamedContent], audience: &Arc<Audience>) -> UsageChange {
        let before = self.usage(owner);
        let mut after = before;
        let uses = &self.owners[owner.0 as usize].audiences.uses;
        let mut names = HashSet::with_capacity(files.len());
        let mut released: HashMap<AudienceId, u32> = HashMap::new();
        for NamedContent { name, .. } in files.iter().filter(|file| names.insert(&file.name)) {
            let publications = self.names.find(name).and_then(|id| self.names.publications(id));
            match publications.and_then(|publications| publications.of_owner(owner)) {
                Some(replaced) => *released.entry(replaced.entry.audience).or_default() += 1,
                None => {
                    after.files += 1;
                    after.name_bytes += name.as_str().len() as u64;
                }
            }
        }
        let id = self.audiences.find(audience);
        let is_stored = id.is_some_and(|id| id == AudienceId::EVERYONE || uses.contains_key(&id));
        let new_members = if is_stored { 0 } else { members(audience) };
        after.audience_members += new_members;
        for (released, count) in released {
            if Some(released) != id && uses.get(&released) == Some(&count) {
                after.audience_members -= members(self.audiences.audience(released));
            }
        }
        UsageChange { before, after, new_members }
    }
}

fn members(audience: &Audience) -> u64 {
    match audience {
        Audience::Everyone => 0,
        Audience::Only(users) => users.len() as u64,
    }
}
