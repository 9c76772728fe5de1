//! An entry: a name, what every inode has, and what the inode is.

use super::attributes::Meta;
use super::layout::{Layout, decode_layout, encode_layout};
use crate::base::id::{ChunkId, ContentHash};
use crate::base::limits;
use crate::format::content::Content;
use crate::format::wire::{DecodeError, Reader, put_bytes, put_varint};

/// What an inode is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A regular file.
    File {
        /// Bytes, holes included.
        size: u64,
        /// Its data.
        content: Content,
        /// Keyed hash of all its data, however it is represented.
        hash: ContentHash,
        /// Which parts are data.
        layout: Layout,
    },
    /// A directory.
    Dir {
        /// Its top page; `None` where it is empty.
        tree: Option<ChunkId>,
        /// Only the way to a source: its other entries are not part of the snapshot.
        partial: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major and minor number.
        rdev: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        rdev: (u32, u32),
    },
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name; empty only for the root of a snapshot.
    pub name: Vec<u8>,
    /// What every inode has.
    pub meta: Meta,
    /// What it is.
    pub node: Node,
}

/// How a file's content is kept. Raw is all there is yet; an archive's recipe will be another.
const REPRESENTATION_RAW: u64 = 0;

impl Entry {
    /// Whether the hash is not written because it equals the only chunk's id, which is made under
    /// the same key, or because there is no data at all.
    fn hash_is_implied(content: &Content) -> bool {
        content.level == 0 && content.refs.len() <= 1
    }

    /// Appends the entry, without a length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match &self.node {
            Node::File { .. } => 1,
            Node::Dir { .. } => 2,
            Node::Symlink { .. } => 3,
            Node::Fifo => 4,
            Node::Socket => 5,
            Node::CharDevice { .. } => 6,
            Node::BlockDevice { .. } => 7,
        });
        put_bytes(out, &self.name);
        self.meta.encode(out);
        match &self.node {
            Node::File { size, content, hash, layout } => {
                put_varint(out, *size);
                put_varint(out, REPRESENTATION_RAW);
                content.encode(out);
                if !Self::hash_is_implied(content) {
                    out.extend_from_slice(hash.as_bytes());
                }
                encode_layout(layout, out);
            }
            Node::Dir { tree, partial } => {
                out.push(u8::from(tree.is_some()) | u8::from(*partial) << 1);
                if let Some(tree) = tree {
                    out.extend_from_slice(tree.as_bytes());
                }
            }
            Node::Symlink { target } => put_bytes(out, target),
            Node::CharDevice { rdev } | Node::BlockDevice { rdev } => {
                put_varint(out, u64::from(rdev.0));
                put_varint(out, u64::from(rdev.1));
            }
            Node::Fifo | Node::Socket => {}
        }
    }

    /// Reads an entry out of its own bytes.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8], empty: &ContentHash) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("entry")?;
        let name = reader.bytes(limits::NAME_MAX, "entry name")?.to_vec();
        let meta = Meta::decode(&mut reader)?;
        let node = decode_node(kind, &mut reader, empty)?;
        reader.end("entry")?;
        Ok(Self { name, meta, node })
    }
}

fn decode_node(
    kind: u8,
    reader: &mut Reader<'_>,
    empty: &ContentHash,
) -> Result<Node, DecodeError> {
    let rdev = |reader: &mut Reader<'_>| -> Result<(u32, u32), DecodeError> {
        let max = u64::from(u32::MAX);
        let major = reader.bounded(max, "device number")? as u32;
        Ok((major, reader.bounded(max, "device number")? as u32))
    };
    Ok(match kind {
        1 => decode_file(reader, empty)?,
        2 => {
            let bits = reader.u8("directory")?;
            let tree = match bits & 1 {
                0 => None,
                _ => Some(ChunkId::from_array(reader.array("tree id")?)),
            };
            if bits > 3 {
                return Err(DecodeError::Invalid { what: "directory" });
            }
            Node::Dir { tree, partial: bits & 2 != 0 }
        }
        3 => Node::Symlink { target: reader.bytes(4096, "link target")?.to_vec() },
        4 => Node::Fifo,
        5 => Node::Socket,
        6 => Node::CharDevice { rdev: rdev(reader)? },
        7 => Node::BlockDevice { rdev: rdev(reader)? },
        _ => return Err(DecodeError::Invalid { what: "entry type" }),
    })
}

fn decode_file(reader: &mut Reader<'_>, empty: &ContentHash) -> Result<Node, DecodeError> {
    let size = reader.bounded(i64::MAX as u64, "file size")?;
    if reader.varint("representation")? != REPRESENTATION_RAW {
        return Err(DecodeError::Invalid { what: "representation of a file" });
    }
    let content = Content::decode(reader)?;
    let hash = match (Entry::hash_is_implied(&content), content.refs.first()) {
        (true, Some(only)) => ContentHash::from_array(*only.id.as_bytes()),
        (true, None) => *empty,
        (false, _) => ContentHash::from_array(reader.array("content hash")?),
    };
    let layout = decode_layout(reader, size, content.len())?;
    Ok(Node::File { size, content, hash, layout })
}
