use super::*;
use crate::common::limits::FILE_NAME_MAX_BYTES;
use crate::common::message::{AvailableContent, NameQuery, ResolvePurpose, encoded_len};
use crate::common::types::ContentHash;

const NOW_S: u64 = 1_000;

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn file(text: &str, content: u8) -> NamedContent {
    let content = Content { hash: ContentHash([content; 32]), size: u64::from(content), mtime_ms: 7 };
    NamedContent { name: name(text), content }
}

fn wanted(text: &str, content: u8) -> ContentRef {
    let NamedContent { name, content } = file(text, content);
    ContentRef { name, hash: content.hash, size: content.size }
}

fn only(users: &[&str]) -> Arc<Audience> {
    Arc::new(Audience::only(users.iter().map(|name| user(name)).collect()))
}

fn everyone() -> Arc<Audience> {
    Arc::new(Audience::Everyone)
}

/// An index with these users active.
fn index<const N: usize>(users: [&str; N]) -> (Index, [OwnerId; N]) {
    let mut index = Index::default();
    let owners = users.map(|name| index.intern_owner(&user(name)));
    for owner in owners {
        index.set_active(owner, true);
    }
    (index, owners)
}

fn publication_count(index: &Index) -> usize {
    index.owners.iter().map(|owner| owner.names.len()).sum()
}

fn substring(text: &str) -> NameQuery {
    NameQuery::Substring(text.into())
}

/// All names of all pages, sorted, and how many pages there were.
fn search(index: &Index, requester: OwnerId, query: &NameQuery, budget: Budget) -> (Vec<String>, usize) {
    let (mut names, mut pages, mut from) = (Vec::new(), 0, Some(Position::default()));
    while let Some(position) = from {
        let page = index.search(requester, query, position, budget);
        names.extend(page.entries.iter().map(ToString::to_string));
        (from, pages) = (page.next, pages + 1);
        assert!(pages < 100_000, "the list ends");
    }
    names.sort();
    (names, pages)
}

fn names(index: &Index, requester: OwnerId, query: NameQuery) -> Vec<String> {
    search(index, requester, &query, Budget::PAGE).0
}

fn resolve(index: &Index, requester: OwnerId, query: &NameQuery, budget: Budget) -> Vec<AvailableContent> {
    let (mut entries, mut from) = (Vec::new(), Some(Position::default()));
    while let Some(position) = from {
        let page = index.resolve(requester, query, position, budget, NOW_S, ResolvePurpose::Download);
        entries.extend(page.entries);
        from = page.next;
    }
    entries
}

#[test]
fn each_kind_of_query_matches_by_its_rule() {
    let (mut index, [hans, vader]) = index(["hans", "vader"]);
    let all = ["Report.pdf", "report.txt", "photos/a.jpg", "old photos/b.jpg", "x", "ΟΔΟΣ", "ΟΔΟΣΑ", "İstanbul"];
    for text in all {
        index.publish(hans, &file(text, 1), &everyone(), 0);
    }
    let found = |query| names(&index, vader, query);
    let ignoring_case = |text: &str| found(NameQuery::SubstringIgnoreCase(text.into()));
    let prefix = |text: &str| found(NameQuery::Prefix(text.into()));
    assert_eq!(found(substring("eport")), ["Report.pdf", "report.txt"]);
    assert_eq!(found(substring("report")), ["report.txt"]);
    assert_eq!(found(substring("")).len(), all.len());
    assert_eq!(found(substring("x")), ["report.txt", "x"]);
    assert_eq!(found(substring("Σ")), ["ΟΔΟΣ", "ΟΔΟΣΑ"]);
    assert_eq!(found(substring("\0\0R")), [""; 0]);
    assert_eq!(ignoring_case("REPORT"), ["Report.pdf", "report.txt"]);
    assert_eq!(ignoring_case("δοσα"), ["ΟΔΟΣΑ"]);
    assert_eq!(ignoring_case("ΟΔΟΣ"), ["ΟΔΟΣ", "ΟΔΟΣΑ"], "at least what a search with case finds");
    assert_eq!(ignoring_case("οδος"), ["ΟΔΟΣ", "ΟΔΟΣΑ"]);
    assert_eq!(ignoring_case("i̇stan"), ["İstanbul"]);
    assert_eq!(prefix("photos/"), ["photos/a.jpg"]);
    assert_eq!(prefix("r"), ["report.txt"]);
    assert_eq!(prefix("").len(), all.len());
    assert_eq!(found(NameQuery::Exact(name("x"))), ["x"]);
    assert_eq!(found(NameQuery::Exact(name("X"))), [""; 0]);
    assert_eq!(names(&index, hans, substring("")), [""; 0], "own names are never found");
}

#[test]
fn names_of_other_forms_crowd_out_none_of_the_exact_bytes() {
    let (mut index, [hans, vader, yoda]) = index(["hans", "vader", "yoda"]);
    let marks = ["\u{301}", "\u{323}", "\u{327}", "\u{31b}", "\u{345}"];
    let form = |seed: usize| {
        let mut left = marks.to_vec();
        let order = (1..=marks.len()).rev().scan(seed, |seed, count| {
            let at = *seed % count;
            *seed /= count;
            Some(left.remove(at))
        });
        name(&format!("x{}", order.collect::<String>()))
    };
    (0..119).for_each(|seed| index.publish(hans, &file(form(seed).as_str(), 1), &only(&["yoda"]), 0));
    index.publish(hans, &file(form(119).as_str(), 2), &everyone(), 0);
    let (exact, steps) = index.is_available(vader, &form(119));
    assert!(exact && steps < 10, "{steps}");
    let (_, steps) = index.is_available(vader, &form(7));
    assert!(steps < 200, "{steps}");
    assert_eq!(names(&index, vader, NameQuery::Equivalent(form(7))), [form(119).as_str()]);
    assert_eq!(names(&index, yoda, NameQuery::Equivalent(form(7))).len(), 120);
}

#[test]
fn only_files_of_active_owners_are_found() {
    let (mut index, [hans, vader]) = index(["hans", "vader"]);
    index.publish(hans, &file("a", 1), &everyone(), 0);
    index.set_active(hans, false);
    assert_eq!(names(&index, vader, substring("")), [""; 0]);
    assert!(index.sources(vader, &wanted("a", 1), 9, 0).is_empty());
    assert!(index.publication(hans, &name("a")).is_some(), "the own list does not depend on it");
    index.set_active(hans, true);
    assert_eq!(names(&index, vader, substring("")), ["a"]);
}

#[test]
fn own_names_are_not_listed_but_resolve_to_the_contents_of_others() {
    let (mut index, [hans, vader]) = index(["hans", "vader"]);
    for owner in [hans, vader] {
        index.set_active(owner, true);
        index.publish(owner, &file("a", 1), &everyone(), 1);
    }
    assert!(names(&index, vader, substring("a")).is_empty());
    let resolved = |purpose| {
        index.resolve(vader, &substring("a"), Position::default(), Budget::PAGE, NOW_S, purpose).entries.len()
    };
    assert_eq!((resolved(ResolvePurpose::List), resolved(ResolvePurpose::Download)), (0, 1));
    index.unpublish(vader, &name("a"));
    assert_eq!(names(&index, vader, substring("a")), ["a"]);
}

#[test]
fn unpublishing_everything_leaves_the_index_empty() {
    let (mut index, owners) = index(["hans", "vader", "yoda"]);
    let audiences = [everyone(), only(&["luke"]), only(&["luke", "leia"])];
    for round in 0..3_u8 {
        for i in 0..50_u8 {
            for (&owner, audience) in owners.iter().zip(&audiences) {
                index.publish(owner, &file(&format!("{}/{i}", i % 7), i.wrapping_mul(round)), audience, 0);
            }
        }
    }
    assert_eq!((publication_count(&index), index.owners[0].names.len()), (150, 50));
    assert_eq!(index.audiences.len(), 3);
    for i in (0..50).rev() {
        for owner in owners {
            assert!(index.unpublish(owner, &name(&format!("{}/{i}", i % 7))));
            assert!(!index.unpublish(owner, &name(&format!("{}/{i}", i % 7))));
        }
    }
    assert!(index.names.is_clear());
    assert_eq!((index.audiences.len(), publication_count(&index)), (1, 0));
    assert!(owners.iter().all(|&owner| index.digest(owner) == PublicationsDigest::default()));
}

#[test]
fn the_oldest_publication_decides_on_the_modification_time() {
    let (mut index, [hans, vader, yoda]) = index(["hans", "vader", "yoda"]);
    for (owner, mtime_ms, published_s) in [(vader, i64::MAX, 500), (hans, 50, 400), (vader, i64::MIN, 500)] {
        let mut file = file("a", 1);
        file.content.mtime_ms = mtime_ms;
        index.publish(owner, &file, &everyone(), published_s);
        let expected = if index.publication(hans, &name("a")).is_some() { 50 } else { mtime_ms };
        let found = resolve(&index, yoda, &NameQuery::Exact(name("a")), Budget::PAGE);
        assert_eq!(found[0].content.mtime_ms, expected, "a later publisher must not set it for everyone");
    }
}

#[test]
fn contents_of_a_name_are_counted_separately() {
    let (mut index, [hans, vader, yoda, luke]) = index(["hans", "vader", "yoda", "luke"]);
    for (owner, content, mtime_ms, published_s) in [(hans, 1, 50, 900), (vader, 1, 70, 300), (yoda, 2, 60, 990)] {
        let mut file = file("a", content);
        file.content.mtime_ms = mtime_ms;
        index.publish(owner, &file, &everyone(), published_s);
    }
    let mut other_size = file("a", 1);
    other_size.content.size = 99;
    index.publish(luke, &other_size, &only(&["yoda"]), 0);

    let query = NameQuery::Exact(name("a"));
    let found = |requester| {
        let entries = resolve(&index, requester, &query, Budget::PAGE).into_iter();
        entries
            .map(|e| (e.content.hash.0[0], e.content.size, e.sources, e.content.mtime_ms, e.age_s))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(luke), [(1, 1, 2, 70, 700), (2, 2, 1, 60, 10)]);
    assert_eq!(found(hans), [(1, 1, 1, 70, 700), (2, 2, 1, 60, 10)]);
    assert_eq!(found(yoda), [(1, 1, 2, 70, 700), (1, 99, 1, 7, 1_000)]);
    let sources = |requester, most| index.sources(requester, &wanted("a", 1), most, 0);
    assert_eq!(sources(yoda, 9), [hans, vader]);
    assert_eq!(index.sources(yoda, &ContentRef { size: 99, ..wanted("a", 1) }, 9, 0), [luke]);
    assert_eq!(index.sources(hans, &ContentRef { size: 99, ..wanted("a", 1) }, 9, 0), []);
    assert_eq!(sources(luke, 9), [hans, vader]);
    assert_eq!(sources(luke, 1).len(), 1);
    let started_with: BTreeSet<_> = (0..4).map(|spread| index.sources(luke, &wanted("a", 1), 1, spread)[0]).collect();
    assert_eq!(started_with, BTreeSet::from([hans, vader]));
    index.publish(hans, &file("b", 1), &everyone(), 0);
    assert_eq!(index.sources(luke, &wanted("b", 2), 9, 0), [], "its only content is another one");
}

#[test]
fn many_contents_of_one_name_are_complete_in_small_pages() {
    let (mut index, [requester]) = index(["requester"]);
    for i in 0..200 {
        let owner = index.intern_owner(&user(&format!("user{i}")));
        index.set_active(owner, true);
        index.publish(owner, &file("a", i), &everyone(), 0);
    }
    for (bytes, steps) in [(700, 1), (100, 1_000), (700, 3)] {
        let entries = resolve(&index, requester, &NameQuery::Exact(name("a")), Budget { bytes, steps });
        let contents: BTreeSet<_> = entries.iter().map(|entry| entry.content.hash).collect();
        assert_eq!((entries.len(), contents.len()), (200, 200), "{bytes} bytes, {steps} steps");
    }
    // One for the name, two for each content.
    let (query, budget) = (NameQuery::Exact(name("a")), Budget { bytes: PAGE_MAX_BYTES, steps: 5 });
    let page = index.resolve(requester, &query, Position::default(), budget, NOW_S, ResolvePurpose::Download);
    assert_eq!((page.entries.len(), page.full), (2, false), "ends for lack of steps");
}

#[test]
fn a_call_is_limited_by_its_steps() {
    let (mut index, [hans, vader]) = index(["hans", "vader"]);
    for i in 0..1_000 {
        index.publish(hans, &file(&format!("abc{i:04}"), 1), &only(&["yoda"]), 0);
    }
    let budget = Budget { bytes: PAGE_MAX_BYTES, steps: 100 };
    for query in [substring(""), substring("q"), substring("abc"), NameQuery::SubstringIgnoreCase("ABC".into())] {
        let (names, pages) = search(&index, vader, &query, budget);
        assert!(names.is_empty() && pages >= 10, "{query:?}: {pages} pages");
    }
    // Names that the trigrams or the table of names exclude take no steps.
    for query in [substring("abd"), substring("abc0123"), NameQuery::Exact(name("abc0001"))] {
        assert_eq!(search(&index, vader, &query, budget), (vec![], 1), "{query:?}");
    }
    // Of the trigrams, the one that fewest names have decides.
    index.publish(hans, &file("abcq", 1), &everyone(), 0);
    assert_eq!(index.search(vader, &substring("abcq"), Position::default(), budget).steps, 3);
    let page = index.published(hans, Position::default(), budget, 0);
    assert!(
        page.full && page.entries.iter().map(encoded_len).sum::<usize>() <= PAGE_MAX_BYTES,
        "ends for lack of bytes"
    );
    let budget = Budget { bytes: PAGE_MAX_BYTES, steps: 5 };
    assert_eq!(index.published(hans, Position::default(), budget, 0).entries.len(), 5, "ends for lack of steps");
}

#[test]
fn a_page_does_not_end_before_a_hidden_entry() {
    let (mut index, [hans, vader, yoda, leia]) = index(["hans", "vader", "yoda", "leia"]);
    let visible: Vec<_> = (0..10).map(|i| file(&format!("abc{i}"), i)).collect();
    for file in &visible {
        index.publish(hans, file, &everyone(), 0);
    }
    for i in 0..10 {
        index.publish(hans, &file(&format!("abc{i} secret"), 99), &only(&["yoda"]), 0);
        index.publish(leia, &file(&format!("abc{i}"), i), &only(&["hans"]), 0);
    }
    let exactly = Budget { bytes: visible.iter().map(|file| encoded_len(&file.name)).sum(), steps: 1_000 };
    let page = index.search(vader, &substring("abc"), Position::default(), exactly);
    assert_eq!((page.entries.len(), page.next, page.full), (10, None, false));
    let page = index.search(yoda, &substring("abc"), Position::default(), exactly);
    assert!(page.entries.len() == 10 && page.next.is_some() && page.full, "a user who sees more gets another page");
    assert_eq!(names(&index, vader, substring("secret")), [""; 0]);
    assert!(resolve(&index, vader, &substring("abc"), Budget::PAGE).iter().all(|entry| entry.sources == 1));
    let (secret, owners) = (file("abc1 secret", 99), [user("hans")]);
    assert_eq!(index.inherited_audience(vader, &owners, &secret, &mut 0), None);
}

#[test]
fn the_largest_entry_fits_a_page() {
    let (mut index, [hans, vader]) = index(["hans", "vader"]);
    let text = format!("{}/{}/y", "x".repeat(255), "x".repeat(254));
    assert_eq!(text.len(), FILE_NAME_MAX_BYTES);
    let mut file = file(&text, 1);
    (file.content.size, file.content.mtime_ms) = (u64::MAX, i64::MIN);
    index.publish(hans, &file, &everyone(), 0);
    let page =
        index.resolve(vader, &substring("xxx"), Position::default(), Budget::PAGE, u64::MAX, ResolvePurpose::Download);
    assert_eq!((page.entries.len(), page.next), (1, None));
}

#[test]
fn a_copy_inherits_the_audience_of_its_owner_and_of_nobody_else() {
    let (mut index, [hans, vader, yoda]) = index(["hans", "vader", "yoda"]);
    let inherited = |index: &Index, requester, owners: &[&str]| {
        let owners: Vec<UserName> = owners.iter().map(|owner| user(owner)).collect();
        index.inherited_audience(requester, &owners, &file("a", 1), &mut 0)
    };
    index.publish(hans, &file("a", 1), &only(&["vader", "luke"]), 0);
    assert_eq!(inherited(&index, vader, &["hans"]).as_ref(), Some(&*only(&["hans", "luke"])));
    assert_eq!(inherited(&index, yoda, &["hans"]), None, "yoda may not see it");
    index.publish(yoda, &file("a", 2), &everyone(), 0);
    assert_eq!(inherited(&index, vader, &["yoda"]), None, "another content does not count");
    index.publish(yoda, &file("a", 1), &everyone(), 0);
    assert_eq!(inherited(&index, vader, &["hans"]).as_ref(), Some(&*only(&["hans", "luke"])), "yoda does not widen it");
    assert_eq!(inherited(&index, vader, &["yoda"]), Some(Audience::Everyone));
    index.set_active(hans, false);
    assert_eq!(inherited(&index, vader, &["hans"]), None);
    assert_eq!(inherited(&index, vader, &["nobody"]), None);
    assert_eq!(inherited(&index, vader, &["vader"]), None);
}

#[test]
fn a_copy_of_several_owners_is_for_those_who_may_see_it_at_all_of_them() {
    let (mut index, [hans, vader, yoda, leia]) = index(["hans", "vader", "yoda", "leia"]);
    index.publish(hans, &file("a", 1), &only(&["vader", "luke", "yoda"]), 0);
    index.publish(yoda, &file("a", 1), &only(&["vader", "luke", "boba"]), 0);
    index.publish(leia, &file("a", 1), &everyone(), 0);
    let inherited = |owners: &[&str]| {
        let owners: Vec<UserName> = owners.iter().map(|owner| user(owner)).collect();
        let mut steps = 0;
        (index.inherited_audience(vader, &owners, &file("a", 1), &mut steps), steps)
    };
    for owners in [["hans", "yoda", "leia"], ["leia", "yoda", "hans"]] {
        assert_eq!(inherited(&owners), (Some(Audience::only(vec![user("luke"), user("yoda")])), 6), "{owners:?}");
    }
    assert_eq!(inherited(&["hans", "nobody"]).0, None, "one owner is unknown");
}

#[test]
fn a_copy_that_nobody_may_see_at_all_owners_is_refused() {
    let (mut index, [hans, vader, yoda]) = index(["hans", "vader", "yoda"]);
    for owner in [hans, yoda] {
        index.publish(owner, &file("a", 1), &only(&["vader"]), 0);
    }
    assert_eq!(index.inherited_audience(vader, &[user("hans"), user("yoda")], &file("a", 1), &mut 0), None);
}

#[test]
fn an_audience_that_was_released_can_be_used_again() {
    let (mut index, [hans, vader, yoda]) = index(["hans", "vader", "yoda"]);
    // As a client's staged audience, whose publication it withdraws and repeats.
    let audience = only(&["yoda"]);
    for _ in 0..2 {
        index.publish(hans, &file("a", 1), &audience, 0);
        assert_eq!(index.publication(hans, &name("a")).unwrap().1, &*audience);
        assert_eq!(
            (names(&index, yoda, substring("a")), names(&index, vader, substring("a"))),
            (vec!["a".into()], vec![])
        );
        assert!(index.unpublish(hans, &name("a")));
        index.publish(hans, &file("b", 1), &only(&["vader"]), 0);
        assert!(index.unpublish(hans, &name("b")));
        index.publish(hans, &file("a", 1), &audience, 0);
        assert!(index.unpublish(hans, &name("a")));
    }
}

#[test]
fn the_digest_depends_on_all_fields_but_not_on_order() {
    let digest = |files: &[(NamedContent, Arc<Audience>)]| {
        let (mut index, [hans, vader]) = index(["hans", "vader"]);
        for (file, audience) in files {
            index.publish(vader, file, &everyone(), 3);
            index.publish(hans, file, audience, 5);
        }
        index.digest(hans)
    };
    let (a, b) = ((file("a", 1), everyone()), (file("b", 2), only(&["yoda"])));
    let whole = digest(&[a.clone(), b.clone()]);
    assert_eq!(digest(&[b.clone(), a.clone()]), whole);
    assert_eq!(digest(&[(file("a", 9), only(&["luke"])), b.clone(), a.clone(), b.clone()]), whole);
    let (mut size, mut mtime) = (a.clone(), a.clone());
    size.0.content.size += 1;
    mtime.0.content.mtime_ms += 1;
    for other in [(file("c", 1), everyone()), (file("a", 2), everyone()), (file("a", 1), only(&[])), size, mtime] {
        assert_ne!(digest(&[other.clone(), b.clone()]), whole, "{other:?}");
    }
}

#[test]
fn the_usage_of_a_batch_counts_each_name_once_and_what_it_replaces_not_at_all() {
    let (mut index, [hans, vader]) = index(["hans", "vader"]);
    let (one, two) = (only(&["yoda"]), only(&["luke", "yoda"]));
    for (text, audience) in [("a", &one), ("b", &one), ("c", &everyone())] {
        index.publish(hans, &file(text, 1), audience, 5);
    }
    index.publish(vader, &file("d", 1), &two, 5);
    let usage = |files, name_bytes, audience_members| Usage { files, name_bytes, audience_members };
    let before = usage(3, 3, 1);
    let change = |texts: &[&str], audience: &Arc<Audience>| {
        let files: Vec<_> = texts.iter().map(|text| file(text, 2)).collect();
        let UsageChange { before: found, after, new_members } = index.usage_change(hans, &files, audience);
        assert_eq!(found, before);
        (after, new_members)
    };
    assert_eq!(change(&["d", "ee", "d", "a"], &everyone()), (usage(5, 6, 1), 0), "b still has the audience");
    assert_eq!(change(&["a", "b", "a"], &everyone()), (usage(3, 3, 0), 0), "its last uses go");
    assert_eq!(change(&["a", "b"], &one), (before, 0));
    assert_eq!(change(&["c"], &only(&["yoda"])), (before, 0), "an equal audience is the same");
    assert_eq!(change(&["a"], &two), (usage(3, 3, 3), 2), "that of another user is new to this one");
    assert_eq!(change(&["a", "b"], &two), (usage(3, 3, 2), 2));
}
