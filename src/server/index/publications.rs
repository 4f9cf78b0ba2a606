//! The publications of one name, grouped by content. Most names have one owner: that one stands in place, without a
//! further allocation.

use std::collections::HashMap;

use super::OwnerId;
use super::audiences::AudienceId;
use crate::common::types::{Content, ContentHash};

/// From this many publications on, owners and contents are looked up by hash rather than one after the other.
const LOOKUP_FROM: usize = 16;

/// What tells one content of a name from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ContentKey {
    pub(super) hash: ContentHash,
    pub(super) size: u64,
}

impl ContentKey {
    pub(super) fn content(&self, mtime_ms: i64) -> Content {
        Content { hash: self.hash, size: self.size, mtime_ms }
    }
}

/// One publication, but for its name and content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) owner: OwnerId,
    pub(super) audience: AudienceId,
    pub(super) mtime_ms: i64,
    pub(super) published_s: u64,
}

/// At least one while its name is there. A group keeps its number for as long as anyone publishes its content.
pub(super) enum Publications {
    /// One, in group 0.
    One(ContentKey, Member),
    Many(Box<Many>),
}

#[derive(Default)]
pub(super) struct Many {
    groups: Vec<Group>,
    /// Groups without members.
    vacant: Vec<u32>,
    len: usize,
    lookup: Option<Lookup>,
}

struct Group {
    key: ContentKey,
    members: Vec<Member>,
}

#[derive(Default)]
struct Lookup {
    by_owner: HashMap<OwnerId, At>,
    by_content: HashMap<ContentKey, u32>,
}

/// Where a publication stands: the group, and the place in it.
#[derive(Clone, Copy)]
struct At {
    group: u32,
    place: u32,
}

impl Publications {
    pub(super) fn one(key: ContentKey, member: Member) -> Self {
        Self::One(key, member)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.len == 0)
    }

    /// One more than the largest group number.
    pub(super) fn group_end(&self) -> u32 {
        match self {
            Self::One(..) => 1,
            Self::Many(many) => many.groups.len() as u32,
        }
    }

    /// The content and the publications of a group below [`group_end`](Self::group_end); may be without any.
    pub(super) fn group(&self, group: u32) -> (&ContentKey, &[Member]) {
        match self {
            Self::One(key, member) => (key, std::slice::from_ref(member)),
            Self::Many(many) => {
                let group = &many.groups[group as usize];
                (&group.key, &group.members)
            }
        }
    }

    /// The publications of this content.
    pub(super) fn members_of(&self, content: &ContentKey) -> &[Member] {
        match self {
            Self::One(key, member) if key == content => std::slice::from_ref(member),
            Self::One(..) => &[],
            Self::Many(many) => many.find_group(content).map_or(&[], |group| &many.groups[group as usize].members),
        }
    }

    /// The groups with this hash: more than one if publishers disagree about its size.
    pub(super) fn groups_of(&self, hash: ContentHash) -> impl Iterator<Item = (&ContentKey, &[Member])> {
        (0..self.group_end()).map(|group| self.group(group)).filter(move |(key, _)| key.hash == hash)
    }

    /// The publication of this owner.
    pub(super) fn of(&self, owner: OwnerId) -> Option<(&ContentKey, &Member)> {
        match self {
            Self::One(key, member) => (member.owner == owner).then_some((key, member)),
            Self::Many(many) => {
                let at = many.find(owner)?;
                let group = &many.groups[at.group as usize];
                Some((&group.key, &group.members[at.place as usize]))
            }
        }
    }

    /// Adds or replaces the publication of `member.owner`; the one replaced.
    pub(super) fn put(&mut self, key: ContentKey, member: Member) -> Option<(ContentKey, Member)> {
        match self {
            Self::One(old_key, old) if old.owner == member.owner => {
                Some((std::mem::replace(old_key, key), std::mem::replace(old, member)))
            }
            Self::One(old_key, old) => {
                let mut many = Many::default();
                many.attach(*old_key, *old);
                many.attach(key, member);
                *self = Self::Many(Box::new(many));
                None
            }
            Self::Many(many) => many.put(key, member),
        }
    }

    /// Removes the publication of this owner.
    pub(super) fn remove(&mut self, owner: OwnerId) -> Option<(ContentKey, Member)> {
        match self {
            Self::One(key, member) if member.owner == owner => {
                let removed = (*key, *member);
                *self = Self::Many(Box::default());
                Some(removed)
            }
            Self::One(..) => None,
            Self::Many(many) => {
                let removed = many.find(owner).map(|at| many.detach(at));
                if let (1, Some(Group { key, members })) = (many.len, many.groups.first())
                    && let &[member] = &members[..]
                {
                    *self = Self::One(*key, member);
                }
                removed
            }
        }
    }
}

impl Many {
    fn find(&self, owner: OwnerId) -> Option<At> {
        if let Some(lookup) = &self.lookup {
            return lookup.by_owner.get(&owner).copied();
        }
        (0..).zip(&self.groups).find_map(|(group, Group { members, .. })| {
            let place = members.iter().position(|member| member.owner == owner)? as u32;
            Some(At { group, place })
        })
    }

    fn find_group(&self, key: &ContentKey) -> Option<u32> {
        if let Some(lookup) = &self.lookup {
            return lookup.by_content.get(key).copied();
        }
        let is_it = |group: &Group| group.key == *key && !group.members.is_empty();
        self.groups.iter().position(is_it).map(|group| group as u32)
    }

    fn put(&mut self, key: ContentKey, member: Member) -> Option<(ContentKey, Member)> {
        let found = self.find(member.owner);
        if let Some(at) = found
            && let group = &mut self.groups[at.group as usize]
            && group.key == key
        {
            let old = std::mem::replace(&mut group.members[at.place as usize], member);
            return Some((key, old));
        }
        let replaced = found.map(|at| self.detach(at));
        self.attach(key, member);
        replaced
    }

    fn attach(&mut self, key: ContentKey, member: Member) {
        let group = self.find_group(&key).unwrap_or_else(|| self.add_group(key));
        let members = &mut self.groups[group as usize].members;
        // Exact while small: a name with two owners is the commonest of this kind.
        if members.len() < 2 {
            members.reserve_exact(1);
        }
        members.push(member);
        let at = At { group, place: (members.len() - 1) as u32 };
        self.len += 1;
        match &mut self.lookup {
            Some(lookup) => {
                lookup.by_owner.insert(member.owner, at);
                lookup.by_content.insert(key, group);
            }
            None if self.len >= LOOKUP_FROM => self.lookup = Some(self.build_lookup()),
            None => {}
        }
    }

    fn detach(&mut self, at: At) -> (ContentKey, Member) {
        let Group { key, members } = &mut self.groups[at.group as usize];
        let (key, member) = (*key, members.swap_remove(at.place as usize));
        if let Some(lookup) = &mut self.lookup {
            lookup.by_owner.remove(&member.owner);
            if let Some(moved) = members.get(at.place as usize) {
                lookup.by_owner.insert(moved.owner, at);
            }
        }
        if members.is_empty() {
            *members = Vec::new();
            self.vacant.push(at.group);
            if let Some(lookup) = &mut self.lookup {
                lookup.by_content.remove(&key);
            }
        }
        self.len -= 1;
        if self.len < LOOKUP_FROM / 2 {
            self.lookup = None;
        }
        (key, member)
    }

    fn add_group(&mut self, key: ContentKey) -> u32 {
        let group = Group { key, members: Vec::new() };
        if let Some(vacant) = self.vacant.pop() {
            self.groups[vacant as usize] = group;
            return vacant;
        }
        if self.groups.len() < 2 {
            self.groups.reserve_exact(1);
        }
        self.groups.push(group);
        (self.groups.len() - 1) as u32
    }

    fn build_lookup(&self) -> Lookup {
        let mut lookup = Lookup::default();
        for (group, Group { key, members }) in (0..).zip(&self.groups) {
            if !members.is_empty() {
                lookup.by_content.insert(*key, group);
            }
            for (place, member) in (0..).zip(members) {
                lookup.by_owner.insert(member.owner, At { group, place });
            }
        }
        lookup
    }
}

#[cfg(test)]
mod tests {
    use super::Publications;

    #[test]
    fn the_common_case_stays_small() {
        // A million names hold one each.
        assert!(size_of::<Publications>() <= 72, "{}", size_of::<Publications>());
    }
}
