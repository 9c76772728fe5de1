use proptest::prelude::*;

use super::*;
use crate::base::id::{ChunkId, ContentHash};
use crate::base::time::Timestamp;
use crate::format::content::{ChunkRef, Content};

const EMPTY: ContentHash = ContentHash::from_array([0xee; 32]);

fn meta() -> Meta {
    Meta {
        mode: 0o4755,
        uid: 4_294_967_290,
        gid: 7,
        mtime: Timestamp { secs: -5, nanos: 999_999_999 },
        btime: Some(Timestamp { secs: 1, nanos: 2 }),
        flags: Some(0x10),
        project: None,
        link: Some(u64::MAX),
        xattrs: Xattrs::Inline(vec![
            (b"user.a".to_vec(), vec![]),
            (b"user.b".to_vec(), vec![0, 255]),
        ]),
    }
}

fn content(n: u8) -> Content {
    let chunk = |i| ChunkRef { id: ChunkId::from_array([i; 32]), len: 1000 };
    Content { level: 0, refs: (0..n).map(chunk).collect() }
}

fn file(size: u64, refs: u8, layout: Layout) -> Node {
    let hash = match refs {
        0 => EMPTY,
        1 => ContentHash::from_array([0; 32]),
        _ => ContentHash::from_array([3; 32]),
    };
    Node::File { size, content: content(refs), hash, layout }
}

fn nodes() -> Vec<Node> {
    let stretches = vec![
        Stretch { offset: 4096, len: 2000, unwritten: false },
        Stretch { offset: 8192, len: 4096, unwritten: true },
    ];
    let sparse = |map| Layout::Sparse { map, exact: true };
    vec![
        file(0, 0, Layout::Dense),
        file(1000, 1, Layout::Dense),
        file(3000, 3, Layout::Dense),
        file(1 << 40, 2, sparse(StretchMap::Inline(stretches))),
        file(1 << 40, 2, sparse(StretchMap::Content(content(1)))),
        file(1 << 40, 0, Layout::Sparse { map: StretchMap::Inline(vec![]), exact: false }),
        Node::Dir { tree: None, partial: false },
        Node::Dir { tree: Some(ChunkId::from_array([1; 32])), partial: true },
        Node::Symlink { target: b"../\xff".to_vec() },
        Node::Fifo,
        Node::Socket,
        Node::CharDevice { rdev: (10, 200) },
        Node::BlockDevice { rdev: (253, 70_000) },
    ]
}

fn entries() -> Vec<Entry> {
    let named = |(i, node)| Entry { name: vec![b'a' + i as u8, 0xff], meta: meta(), node };
    nodes().into_iter().enumerate().map(named).collect()
}

#[test]
fn pages_round_trip() {
    let page = Page::Leaf(entries());
    assert_eq!(Page::decode(&page.encode(), None, &EMPTY), Ok(page.clone()));
    assert_eq!(Page::decode(&page.encode(), Some(0), &EMPTY), Ok(page.clone()));
    assert!(Page::decode(&page.encode(), Some(1), &EMPTY).is_err());
    let below = |first: &[u8]| PageRef {
        first: first.to_vec(),
        id: ChunkId::from_array([1; 32]),
        entries: 9,
    };
    let inner = Page::Inner { level: 2, pages: vec![below(b"a"), below(b"b")] };
    assert_eq!(Page::decode(&inner.encode(), Some(2), &EMPTY), Ok(inner));
}

#[test]
fn names_that_lead_elsewhere_or_stand_in_disorder_are_refused() {
    let mut list = entries();
    for wrong in [&b"../x"[..], b"..", b".", b"", b"a/b", b"nul\0"] {
        list[0].name = wrong.to_vec();
        let page = Page::Leaf(list.clone());
        assert!(Page::decode(&page.encode(), None, &EMPTY).is_err(), "{wrong:?}");
    }
    list = entries();
    list.swap(0, 1);
    assert!(Page::decode(&Page::Leaf(list.clone()).encode(), None, &EMPTY).is_err());
    list[1] = list[0].clone();
    assert!(Page::decode(&Page::Leaf(list).encode(), None, &EMPTY).is_err());
}

#[test]
fn layouts_that_do_not_fit_the_content_are_refused() {
    let wrong = [
        file(999, 1, Layout::Dense),
        file(
            1000,
            1,
            Layout::Sparse {
                map: StretchMap::Inline(vec![Stretch { offset: 1, len: 1000, unwritten: false }]),
                exact: true,
            },
        ),
    ];
    for node in wrong {
        let entry = Entry { name: b"x".to_vec(), meta: meta(), node };
        let mut out = Vec::new();
        entry.encode(&mut out);
        assert!(Entry::decode(&out, &EMPTY).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        let _ = Page::decode(&bytes, None, &EMPTY);
        let _ = Entry::decode(&bytes, &EMPTY);
        let _ = decode_xattrs(&bytes);
        let _ = decode_stretches(&bytes, 1 << 20);
    }

    #[test]
    fn a_changed_byte_gives_an_error_or_another_page(at in 0usize..600, bit in 0u8..8) {
        let page = Page::Leaf(entries());
        let mut bytes = page.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Page::decode(&bytes, None, &EMPTY) {
            prop_assert!(other != page);
        }
    }
}

#[test]
fn a_page_in_the_making_knows_its_length() {
    let link = |n: u8| Entry {
        name: vec![b'a' + n],
        meta: meta(),
        node: Node::Symlink { target: vec![b'x'; 4000] },
    };
    let mut leaf = LeafBuilder::default();
    assert!(leaf.is_empty());
    (0..3).for_each(|n| leaf.push(&link(n)));
    assert!(leaf.len() > 12_000 && leaf.entries() == 3);
    let (first, entries, bytes) = leaf.take();
    assert_eq!((first.as_slice(), entries), (&b"a"[..], 3));
    assert_eq!(bytes, Page::Leaf((0..3).map(link).collect()).encode());
    leaf.push(&link(7));
    assert_eq!(leaf.take().0, b"h");
}
