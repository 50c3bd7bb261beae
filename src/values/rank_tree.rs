//! A B+tree of (score, handle) pairs that counts: rank to pair and pair to rank in O(log n).
//!
//! ```text
//!   inner   [first pair, count, child]  [first pair, count, child]  ...   up to 32
//!   leaf    scores  f64 f64 f64 ...                                       up to 64
//!           handles u32 u32 u32 ...
//! ```
//! The tree knows no order by itself. A caller finds a place by a predicate that holds for all pairs up to
//! some point and for none behind it, and so brings the members that the handles stand for. A node with few
//! entries is merged with a neighbour where both fit in one, an empty one goes away; nothing is borrowed.

/// Pairs of a leaf.
const LEAF_MAX: usize = 64;
/// Children of an inner node.
const CHILDREN_MAX: usize = 32;
/// Nodes with fewer entries than one in this many of their bound are merged with a neighbour.
const SPARSE: usize = 4;

/// Pairs of a score and a handle, in the order in which they were placed.
#[derive(Debug, Default, Clone)]
pub(crate) struct RankTree {
    /// `None` while empty.
    root: Option<Node>,
    len: usize,
    nodes: Nodes,
}

/// How many nodes there are, for the memory they take.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Nodes {
    leaves: usize,
    inners: usize,
}

#[derive(Debug)]
enum Node {
    Leaf(Box<Leaf>),
    /// Never empty between two operations; its capacity is CHILDREN_MAX.
    Inner(Vec<Child>),
}

#[derive(Debug, Clone)]
struct Leaf {
    scores: [f64; LEAF_MAX],
    handles: [u32; LEAF_MAX],
    len: usize,
}

#[derive(Debug, Clone)]
struct Child {
    /// The first pair of the child.
    score: f64,
    handle: u32,
    /// Pairs below the child.
    count: u32,
    node: Node,
}

/// Pairs from one rank on, upwards or downwards.
#[derive(Clone)]
pub(crate) struct Walk<'a> {
    tree: &'a RankTree,
    /// The leaf of `rank`, once it was looked up.
    leaf: Option<&'a Leaf>,
    place: usize,
    /// Rank of the next pair.
    rank: usize,
    remaining: usize,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl RankTree {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all nodes, not walked.
    pub(crate) fn allocation_bytes(&self) -> usize {
        self.nodes.leaves * size_of::<Leaf>() + self.nodes.inners * CHILDREN_MAX * size_of::<Child>()
    }

    /// Number of allocations.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.leaves + self.nodes.inners
    }

    /// Number of pairs up to the point where `before` ceases to hold, which is the rank of the next one.
    pub(crate) fn rank_of(&self, before: impl Fn(f64, u32) -> bool) -> usize {
        let Some(mut node) = self.root.as_ref() else { return 0 };
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.partition_point(&before),
                Node::Inner(children) => {
                    let at = child_for(children, &before);
                    rank += children[..at].iter().map(|it| it.count as usize).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// Places a pair where `before` ceases to hold.
    pub(crate) fn insert(&mut self, score: f64, handle: u32, before: impl Fn(f64, u32) -> bool) {
        self.len += 1;
        let root = self.root.get_or_insert_with(|| {
            self.nodes.leaves += 1;
            Node::Leaf(Leaf::new())
        });
        if let Some(right) = root.insert(score, handle, &before, &mut self.nodes)
            && let Some(left) = self.root.take()
        {
            self.nodes.inners += 1;
            self.root = Some(inner([Child::of(left), Child::of(right)]));
        }
    }

    /// Removes and returns the pair of a rank.
    pub(crate) fn remove(&mut self, rank: usize) -> Option<(f64, u32)> {
        if rank >= self.len {
            return None;
        }
        let root = self.root.as_mut()?;
        let removed = root.remove(rank, &mut self.nodes);
        self.len -= 1;
        if self.len == 0 {
            self.root = None;
            self.nodes = Nodes::default();
        }
        while let Some(Node::Inner(children)) = &mut self.root
            && children.len() == 1
            && let Some(child) = children.pop()
        {
            self.root = Some(child.node);
            self.nodes.inners -= 1;
        }
        Some(removed)
    }

    /// Gives the pair of a rank another handle, which must stand for the same member.
    pub(crate) fn rename(&mut self, mut rank: usize, handle: u32) {
        let Some(mut node) = self.root.as_mut().filter(|_| rank < self.len) else { return };
        loop {
            match node {
                Node::Leaf(leaf) => {
                    leaf.handles[rank] = handle;
                    return;
                }
                Node::Inner(children) => {
                    let (at, within) = child_of_rank(children, rank);
                    rank = within;
                    let child = &mut children[at];
                    if rank == 0 {
                        child.handle = handle;
                    }
                    node = &mut child.node;
                }
            }
        }
    }

    /// At most `count` pairs from a rank on.
    pub(crate) fn walk(&self, rank: usize, count: usize, direction: Direction) -> Walk<'_> {
        let available = match direction {
            Direction::Up => self.len.saturating_sub(rank),
            Direction::Down if rank < self.len => rank + 1,
            Direction::Down => 0,
        };
        Walk { tree: self, leaf: None, place: 0, rank, remaining: count.min(available), direction }
    }

    fn leaf_at(&self, mut rank: usize) -> Option<(&Leaf, usize)> {
        let mut node = self.root.as_ref().filter(|_| rank < self.len)?;
        loop {
            match node {
                Node::Leaf(leaf) => return Some((leaf, rank)),
                Node::Inner(children) => {
                    let (at, within) = child_of_rank(children, rank);
                    rank = within;
                    node = &children[at].node;
                }
            }
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = (f64, u32);

    #[inline]
    fn next(&mut self) -> Option<(f64, u32)> {
        if self.remaining == 0 {
            return None;
        }
        self.remaining -= 1;
        let leaf = match self.leaf {
            Some(leaf) => leaf,
            None => {
                let (leaf, place) = self.tree.leaf_at(self.rank)?;
                (self.leaf, self.place) = (Some(leaf), place);
                leaf
            }
        };
        let pair = (leaf.scores[self.place], leaf.handles[self.place]);
        match self.direction {
            Direction::Up => {
                (self.rank, self.place) = (self.rank + 1, self.place + 1);
                if self.place == leaf.len {
                    self.leaf = None;
                }
            }
            Direction::Down if self.place == 0 => {
                self.rank = self.rank.saturating_sub(1);
                self.leaf = None;
            }
            Direction::Down => (self.rank, self.place) = (self.rank - 1, self.place - 1),
        }
        Some(pair)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl Clone for Node {
    /// As derived, but an inner node keeps its capacity.
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(leaf) => Self::Leaf(leaf.clone()),
            Self::Inner(children) => inner(children.iter().cloned()),
        }
    }
}

impl Node {
    fn first(&self) -> (f64, u32) {
        match self {
            Self::Leaf(leaf) => (leaf.scores[0], leaf.handles[0]),
            Self::Inner(children) => (children[0].score, children[0].handle),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len,
            Self::Inner(children) => children.iter().map(|it| it.count as usize).sum(),
        }
    }

    /// How full the node is, and its bound.
    fn fill(&self) -> (usize, usize) {
        match self {
            Self::Leaf(leaf) => (leaf.len, LEAF_MAX),
            Self::Inner(children) => (children.len(), CHILDREN_MAX),
        }
    }

    /// Returns the right half if the node had to be split.
    fn insert(
        &mut self,
        score: f64,
        handle: u32,
        before: &impl Fn(f64, u32) -> bool,
        nodes: &mut Nodes,
    ) -> Option<Node> {
        let children = match self {
            Self::Leaf(leaf) => {
                let right = leaf.insert(leaf.partition_point(before), score, handle)?;
                nodes.leaves += 1;
                return Some(Self::Leaf(right));
            }
            Self::Inner(children) => children,
        };
        let at = child_for(children, before);
        let child = &mut children[at];
        let split = child.node.insert(score, handle, before, nodes);
        if at == 0 {
            (child.score, child.handle) = child.node.first();
        }
        let Some(right) = split else {
            child.count += 1;
            return None;
        };
        child.count = child.node.count() as u32;
        let right = Child::of(right);
        if children.len() < CHILDREN_MAX {
            children.insert(at + 1, right);
            return None;
        }
        nodes.inners += 1;
        // As for leaves: what is filled in order fills its nodes.
        if at + 1 == CHILDREN_MAX {
            return Some(inner([right]));
        }
        let mut upper = inner(children.drain(CHILDREN_MAX / 2..));
        match (&mut upper, (at + 1).checked_sub(CHILDREN_MAX / 2 + 1)) {
            (Self::Inner(upper), Some(within)) => upper.insert(within + 1, right),
            _ => children.insert(at + 1, right),
        }
        Some(upper)
    }

    fn remove(&mut self, rank: usize, nodes: &mut Nodes) -> (f64, u32) {
        let children = match self {
            Self::Leaf(leaf) => return leaf.remove(rank),
            Self::Inner(children) => children,
        };
        let (at, within) = child_of_rank(children, rank);
        let child = &mut children[at];
        let removed = child.node.remove(within, nodes);
        child.count -= 1;
        if child.count == 0 {
            nodes.forget(&child.node);
            children.remove(at);
            return removed;
        }
        if within == 0 {
            (child.score, child.handle) = child.node.first();
        }
        let (used, bound) = child.node.fill();
        if used < bound / SPARSE {
            merge(children, at, nodes);
        }
        removed
    }
}

impl Nodes {
    fn forget(&mut self, node: &Node) {
        match node {
            Node::Leaf(_) => self.leaves -= 1,
            Node::Inner(_) => self.inners -= 1,
        }
    }
}

impl Child {
    fn of(node: Node) -> Self {
        let (score, handle) = node.first();
        Self { score, handle, count: node.count() as u32, node }
    }
}

impl Leaf {
    fn new() -> Box<Self> {
        Box::new(Self { scores: [0.0; LEAF_MAX], handles: [0; LEAF_MAX], len: 0 })
    }

    #[inline]
    fn partition_point(&self, before: &impl Fn(f64, u32) -> bool) -> usize {
        let (mut from, mut to) = (0, self.len);
        while from < to {
            let middle = (from + to) / 2;
            if before(self.scores[middle], self.handles[middle]) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// Returns the right half if the leaf had to be split.
    fn insert(&mut self, at: usize, score: f64, handle: u32) -> Option<Box<Leaf>> {
        if self.len < LEAF_MAX {
            self.put(at, score, handle);
            return None;
        }
        let mut right = Self::new();
        // A tree that is filled in order (a log, a load) shall have full leaves.
        let half = if at == LEAF_MAX { LEAF_MAX } else { LEAF_MAX / 2 };
        right.append(&self.scores[half..], &self.handles[half..]);
        self.len = half;
        if at > half || half == LEAF_MAX {
            right.put(at - half, score, handle);
        } else {
            self.put(at, score, handle);
        }
        Some(right)
    }

    fn put(&mut self, at: usize, score: f64, handle: u32) {
        self.scores.copy_within(at..self.len, at + 1);
        self.handles.copy_within(at..self.len, at + 1);
        self.scores[at] = score;
        self.handles[at] = handle;
        self.len += 1;
    }

    fn remove(&mut self, at: usize) -> (f64, u32) {
        let removed = (self.scores[at], self.handles[at]);
        self.scores.copy_within(at + 1..self.len, at);
        self.handles.copy_within(at + 1..self.len, at);
        self.len -= 1;
        removed
    }

    fn append(&mut self, scores: &[f64], handles: &[u32]) {
        let end = self.len + scores.len();
        self.scores[self.len..end].copy_from_slice(scores);
        self.handles[self.len..end].copy_from_slice(handles);
        self.len = end;
    }
}

fn inner(children: impl IntoIterator<Item = Child>) -> Node {
    let mut all = Vec::with_capacity(CHILDREN_MAX);
    all.extend(children);
    Node::Inner(all)
}

/// The child in which the point lies where `before` ceases to hold (or at whose end it lies).
#[inline]
fn child_for(children: &[Child], before: &impl Fn(f64, u32) -> bool) -> usize {
    children.partition_point(|child| before(child.score, child.handle)).saturating_sub(1)
}

/// The child which holds an existing rank, and the rank within it.
#[inline]
fn child_of_rank(children: &[Child], mut rank: usize) -> (usize, usize) {
    for (at, child) in children.iter().enumerate() {
        if rank < child.count as usize {
            return (at, rank);
        }
        rank -= child.count as usize;
    }
    (children.len() - 1, 0)
}

/// Joins a sparse child with a neighbour if the two leave room in one node.
fn merge(children: &mut Vec<Child>, at: usize, nodes: &mut Nodes) {
    let fits = |left: &Child, right: &Child| {
        let ((left, bound), (right, _)) = (left.node.fill(), right.node.fill());
        left + right <= bound / 4 * 3
    };
    let pair = [at.checked_sub(1), Some(at)].into_iter().flatten();
    let left = pair.filter(|left| left + 1 < children.len()).find(|left| fits(&children[*left], &children[left + 1]));
    let Some(left) = left else { return };
    let right = children.remove(left + 1);
    nodes.forget(&right.node);
    let into = &mut children[left];
    into.count += right.count;
    match (&mut into.node, right.node) {
        (Node::Leaf(into), Node::Leaf(from)) => into.append(&from.scores[..from.len], &from.handles[..from.len]),
        (Node::Inner(into), Node::Inner(from)) => into.extend(from),
        _ => unreachable!("all nodes of one level are of one kind"),
    }
}

#[cfg(test)]
mod tests;
