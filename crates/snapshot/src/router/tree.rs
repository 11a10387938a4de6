//! The paths of one host pattern as a tree of segments, searched best first.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::pattern::{PathPattern, Segment};

/// Paths by segment. Numbers stand for candidates, which the caller tries in the order given.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Segments of the longest pattern.
    pub(super) depth: usize,
    /// In order of precedence.
    pub(super) regexes: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    literals: Literals,
    capture: Option<u32>,
    /// Candidates whose path ends here, in order of precedence.
    pub(super) ends: Vec<u32>,
    /// Candidates that cover this node and all below, in order of precedence.
    pub(super) tails: Vec<u32>,
}

/// Most nodes have few children: comparing four short strings is quicker than hashing one.
#[derive(Debug)]
enum Literals {
    Few(Vec<(Box<[u8]>, u32)>),
    Many(HashMap<Box<[u8]>, u32, BuildHasherDefault<SegmentHasher>>),
}

const FEW_MAX: usize = 4;

impl Default for Literals {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Literals {
    fn get(&self, segment: &[u8]) -> Option<u32> {
        match self {
            Self::Few(list) => {
                list.iter().find(|(text, _)| **text == *segment).map(|found| found.1)
            }
            Self::Many(map) => map.get(segment).copied(),
        }
    }

    fn insert(&mut self, segment: &[u8], node: u32) {
        match self {
            Self::Few(list) if list.len() < FEW_MAX => list.push((segment.into(), node)),
            Self::Few(list) => {
                let mut map: HashMap<_, _, _> = std::mem::take(list).into_iter().collect();
                map.insert(segment.into(), node);
                *self = Self::Many(map);
            }
            Self::Many(map) => {
                map.insert(segment.into(), node);
            }
        }
    }
}

/// A fast hash without a key. Keys come from the configuration only and strangers insert
/// nothing, so there is no flooding to defend against.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SegmentHasher(u64);

impl Hasher for SegmentHasher {
    fn write(&mut self, bytes: &[u8]) {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mix = |word: u64| self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(FACTOR);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut whole = [0; 8];
            whole.copy_from_slice(word);
            mix(u64::from_le_bytes(whole));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        mix(u64::from_le_bytes(last));
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        // The table takes its control bits from the top and its bucket from the bottom.
        self.0 ^ (self.0 >> 32)
    }
}

impl Tree {
    /// Adds a candidate; [`Self::sort`] must follow.
    pub(super) fn insert(&mut self, path: &PathPattern, candidate: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        self.depth = self.depth.max(path.len());
        match path {
            PathPattern::Exact(segments) => {
                let node = segments.iter().fold(0, |node, text| self.literal(node, text));
                self.nodes[node as usize].ends.push(candidate);
            }
            PathPattern::Template(segments) => {
                let node = self.walk(segments);
                self.nodes[node as usize].ends.push(candidate);
            }
            PathPattern::Prefix(segments) => {
                let node = self.walk(segments);
                self.nodes[node as usize].tails.push(candidate);
            }
            PathPattern::Regex(_) => self.regexes.push(candidate),
        }
    }

    /// Brings every list into the order of precedence.
    pub(super) fn sort<K: Ord>(&mut self, order: impl Fn(u32) -> K) {
        for node in &mut self.nodes {
            node.ends.sort_by_key(|candidate| order(*candidate));
            node.tails.sort_by_key(|candidate| order(*candidate));
        }
        self.regexes.sort_by_key(|candidate| order(*candidate));
    }

    /// Every list of candidates whose paths are equal.
    pub(super) fn leaves(&self) -> impl Iterator<Item = &[u32]> {
        self.nodes.iter().flat_map(|node| [node.ends.as_slice(), node.tails.as_slice()])
    }

    fn walk(&mut self, segments: &[Segment]) -> u32 {
        segments.iter().fold(0, |node, segment| match segment {
            Segment::Literal(text) => self.literal(node, text),
            Segment::Capture(_) => self.capture(node),
        })
    }

    fn literal(&mut self, node: u32, text: &str) -> u32 {
        if let Some(child) = self.nodes[node as usize].literals.get(text.as_bytes()) {
            return child;
        }
        let child = self.grow();
        self.nodes[node as usize].literals.insert(text.as_bytes(), child);
        child
    }

    fn capture(&mut self, node: u32) -> u32 {
        if let Some(child) = self.nodes[node as usize].capture {
            return child;
        }
        let child = self.grow();
        self.nodes[node as usize].capture = Some(child);
        child
    }

    fn grow(&mut self) -> u32 {
        self.nodes.push(Node::default());
        (self.nodes.len() - 1) as u32
    }

    /// The first candidate, best first, that `accept`s.
    pub(super) fn find(&self, path: &[u8], accept: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let rest = path.strip_prefix(b"/")?;
        if !self.nodes.is_empty() {
            let mut tails = Tails::default();
            let found = self
                .descend(0, Some(rest), 0, &mut tails, accept)
                .or_else(|| self.find_tail(&tails, accept));
            if found.is_some() {
                return found;
            }
        }
        self.regexes.iter().copied().find(|candidate| accept(*candidate))
    }

    /// Depth first with literals before captures, which is the order of precedence of the paths
    /// that end with the request's. No node is visited twice: a node has one way to it.
    fn descend(
        &self,
        at: u32,
        rest: Option<&[u8]>,
        depth: u32,
        tails: &mut Tails,
        accept: &mut impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let node = &self.nodes[at as usize];
        if !node.tails.is_empty() {
            tails.push((depth, at));
        }
        let Some(rest) = rest else {
            return node.ends.iter().copied().find(|candidate| accept(*candidate));
        };
        let split = memchr::memchr(b'/', rest);
        let (segment, rest) =
            split.map_or((rest, None), |slash| (&rest[..slash], Some(&rest[slash + 1..])));
        if let Some(child) = node.literals.get(segment)
            && let Some(found) = self.descend(child, rest, depth + 1, tails, accept)
        {
            return Some(found);
        }
        match node.capture {
            Some(child) if !segment.is_empty() => {
                self.descend(child, rest, depth + 1, tails, accept)
            }
            _ => None,
        }
    }

    /// Longest first; among equally long ones the order in which `descend` met them.
    fn find_tail(&self, tails: &Tails, accept: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut depth = tails.iter().map(|tail| tail.0).max();
        while let Some(current) = depth {
            for (_, at) in tails.iter().filter(|tail| tail.0 == current) {
                let node = &self.nodes[at as usize];
                if let Some(found) = node.tails.iter().copied().find(|c| accept(*c)) {
                    return Some(found);
                }
            }
            depth = tails.iter().map(|tail| tail.0).filter(|depth| *depth < current).max();
        }
        None
    }
}

/// `(depth, node)` of each node that covers the path, in the order met. Only patterns with many
/// captures beside literals meet more than fit inline.
#[derive(Debug, Default)]
struct Tails {
    inline: [(u32, u32); 16],
    len: usize,
    more: Vec<(u32, u32)>,
}

impl Tails {
    fn push(&mut self, tail: (u32, u32)) {
        match self.inline.get_mut(self.len) {
            Some(slot) => *slot = tail,
            None => self.more.push(tail),
        }
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let inline = self.len.min(self.inline.len());
        self.inline[..inline].iter().chain(&self.more).copied()
    }
}
