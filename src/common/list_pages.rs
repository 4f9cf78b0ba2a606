//! Lists that are longer than a datagram: where a request continues, and how the pages of a reply become one.

use super::message::{Cursor, Request, Response};

impl Request {
    /// The cursor of a request for a list; `None` for other requests.
    pub fn cursor_mut(&mut self) -> Option<&mut Option<Cursor>> {
        match self {
            Self::OwnPublications { cursor, .. }
            | Self::AudienceOf { cursor, .. }
            | Self::Peers { cursor }
            | Self::Search { cursor, .. }
            | Self::Resolve { cursor, .. }
            | Self::Sources { cursor, .. }
            | Self::Shared { cursor, .. } => Some(cursor),
            Self::Publish { .. }
            | Self::Unpublish { .. }
            | Self::StageAudience { .. }
            | Self::Subscribe { .. }
            | Self::Unsubscribe { .. } => None,
        }
    }
}

impl Response {
    /// Where the list continues; `None` at its end and for what is no page of a list.
    pub fn next_cursor(&self) -> Option<&Cursor> {
        match self {
            Self::OwnPublications { next, .. }
            | Self::SearchResults { next, .. }
            | Self::Users { next, .. }
            | Self::Contents { next, .. }
            | Self::Sources { next, .. }
            | Self::Peers { next, .. } => next.as_ref(),
            _ => None,
        }
    }

    /// Appends the next page of the same list. `false`: it is none, and nothing has changed.
    pub fn append(&mut self, page: Self) -> bool {
        match (self, page) {
            (Self::OwnPublications { entries, next }, Self::OwnPublications { entries: more, next: last }) => {
                extend((entries, next), (more, last))
            }
            (Self::SearchResults { names, next }, Self::SearchResults { names: more, next: last }) => {
                extend((names, next), (more, last))
            }
            (Self::Users { users, next }, Self::Users { users: more, next: last }) => {
                extend((users, next), (more, last))
            }
            (Self::Contents { entries, next }, Self::Contents { entries: more, next: last }) => {
                extend((entries, next), (more, last))
            }
            (Self::Sources { sources, next }, Self::Sources { sources: more, next: last }) => {
                extend((sources, next), (more, last))
            }
            (Self::Peers { peers, next }, Self::Peers { peers: more, next: last }) => {
                extend((peers, next), (more, last))
            }
            _ => return false,
        }
        true
    }
}

fn extend<T>((entries, next): (&mut Vec<T>, &mut Option<Cursor>), (more, last): (Vec<T>, Option<Cursor>)) {
    entries.extend(more);
    *next = last;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::types::UserName;

    fn users(name: &str, cursor: Option<u8>) -> Response {
        let next = cursor.map(|byte| Cursor(vec![byte]));
        Response::Users { users: vec![UserName::parse(name).unwrap()], next }
    }

    #[test]
    fn a_page_is_appended_to_one_of_the_same_kind_and_brings_its_cursor() {
        let mut list = users("hans", Some(1));
        assert!(list.append(users("vader", Some(2))));
        assert_eq!(list.next_cursor(), Some(&Cursor(vec![2])));
        for other in
            [Response::StaleCursor, Response::NotPublished, Response::SearchResults { names: vec![], next: None }]
        {
            assert!(!list.append(other));
        }
        assert!(list.append(users("yoda", None)));
        let all = ["hans", "vader", "yoda"].map(|name| UserName::parse(name).unwrap());
        assert_eq!(list, Response::Users { users: all.into(), next: None });
        assert_eq!(list.next_cursor(), None);
    }

    #[test]
    fn pages_of_every_list_can_be_appended() {
        let end = Some(Cursor(vec![3]));
        let pages = |next: Option<Cursor>| {
            [
                Response::OwnPublications { entries: vec![], next: next.clone() },
                Response::SearchResults { names: vec![], next: next.clone() },
                Response::Users { users: vec![], next: next.clone() },
                Response::Contents { entries: vec![], next: next.clone() },
                Response::Sources { sources: vec![], next: next.clone() },
                Response::Peers { peers: vec![], next },
            ]
        };
        for (mut first, second) in pages(None).into_iter().zip(pages(end.clone())) {
            assert!(first.append(second));
            assert_eq!(first.next_cursor(), end.as_ref());
        }
    }
}
