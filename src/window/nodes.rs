//! What is done on several nodes at once.

use std::sync::Arc;

use super::evidence::{self, Look, Rules, processes};
use super::observe::{ClockOffset, Observer, Trees};
use crate::format::manifest::Evidence;

/// Milliseconds that clocks may differ without a warning.
const MOST_MS: u64 = 2000;

/// Does something for each group, all at once; a single one on this thread. The results are in the
/// order of the groups.
pub(super) fn at_once<G: Send, T: Send>(groups: Vec<G>, act: impl Fn(G) -> T + Sync) -> Vec<T> {
    if groups.len() < 2 {
        return groups.into_iter().map(act).collect();
    }
    std::thread::scope(|scope| {
        let act = &act;
        let all: Vec<_> = groups.into_iter().map(|group| scope.spawn(move || act(group))).collect();
        let joined = all.into_iter().map(|thread| thread.join());
        joined.map(|done| done.unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    })
}

/// Things with a node, grouped by it. Groups are in the order of their first members.
pub(super) fn by_node<T>(things: impl IntoIterator<Item = (String, T)>) -> Vec<Vec<T>> {
    let mut groups: Vec<(String, Vec<T>)> = Vec::new();
    for (node, thing) in things {
        match groups.iter_mut().find(|(name, _)| *name == node) {
            Some((_, group)) => group.push(thing),
            None => groups.push((node, vec![thing])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The observers of all nodes of a window.
pub(super) struct Everywhere<'a> {
    pub(super) local: &'a dyn Observer,
    pub(super) others: &'a [Arc<dyn Observer>],
    pub(super) rules: &'a Rules,
}

/// What was seen on each node; `None` where nothing of the trees is there.
pub(super) struct Looks(Vec<Option<Look>>);

impl Everywhere<'_> {
    /// All observers, each with whether it is this machine's.
    fn all(&self) -> Vec<(bool, &dyn Observer)> {
        let others = self.others.iter().map(|other| (false, &**other));
        std::iter::once((true, self.local)).chain(others).collect()
    }

    /// Compares the clocks of the other nodes with this machine's.
    pub(super) fn clocks(&self) -> Vec<NodeClock> {
        let asked = at_once(self.others.iter().collect(), |other| {
            let offset = other.clock_offset().map_err(|error| super::chain(&error)).transpose()?;
            Some(NodeClock { node: other.node(), offset })
        });
        asked.into_iter().flatten().collect()
    }

    /// Has all other nodes write what they keep of the trees; what stands against those that did not.
    pub(super) fn write_back(&self, paths: &[Vec<u8>]) -> Vec<Evidence> {
        let written = at_once(self.others.iter().collect(), |other| {
            let error = other.write_back(paths).err()?;
            Some(evidence::unwritten(other.node(), paths, &error))
        });
        written.into_iter().flatten().collect()
    }

    /// Looks at all nodes. Processes of cabk's own are this machine's.
    pub(super) fn look(&self, trees: &Trees<'_>) -> Looks {
        Looks(at_once(self.all(), |(here, observer)| {
            let exclude = if here { trees.exclude } else { &[] };
            evidence::look(observer, &Trees { exclude, ..*trees }, self.rules)
        }))
    }

    /// `no-process-in-tree` of each node on which the trees are. Events of this machine's kernel say
    /// nothing of what other nodes do.
    pub(super) fn judge(
        &self,
        before: &Looks,
        after: &Looks,
        trees: &Trees<'_>,
        by_events: bool,
    ) -> Vec<Evidence> {
        let looks = before.0.iter().zip(&after.0).zip(self.all());
        looks
            .filter_map(|((before, after), (here, observer))| {
                let first = before.as_ref().or(after.as_ref())?;
                let second = after.as_ref().unwrap_or(first);
                let node = observer.node();
                let by_events = here && by_events;
                Some(processes(first, second, node, trees.paths, self.rules, by_events))
            })
            .collect()
    }
}

/// How a node's clock stands, or why that is not known.
pub(super) struct NodeClock {
    pub(super) node: String,
    offset: Result<ClockOffset, String>,
}

impl NodeClock {
    /// For a detail of evidence.
    pub(super) fn said(&self) -> String {
        match &self.offset {
            Ok(ClockOffset { ahead_ms, error_ms }) => {
                let side = if *ahead_ms < 0 { "behind" } else { "ahead of" };
                let by = ahead_ms.unsigned_abs();
                format!("its clock is {by} ms {side} this machine's, give or take {error_ms} ms")
            }
            Err(why) => format!("its clock could not be compared: {why}"),
        }
    }

    /// What a person should know of it, if anything.
    pub(super) fn warning(&self) -> Option<String> {
        let far = match &self.offset {
            Ok(offset) => offset.ahead_ms.unsigned_abs() > MOST_MS.saturating_add(offset.error_ms),
            Err(_) => true,
        };
        far.then(|| format!("{}: {}", self.node, self.said()))
    }
}

impl Looks {
    /// Who breaks the check, on whichever node.
    pub(super) fn breaking(&self) -> impl Iterator<Item = &String> {
        self.0.iter().flatten().flat_map(|look| &look.breaking)
    }

    /// Whether anybody is there who is worth waiting for. Of this machine those who only read are
    /// not, where they may stay.
    pub(super) fn hold_up(&self, readers_may_stay: bool) -> bool {
        self.0.iter().enumerate().any(|(at, look)| {
            let here = at == 0;
            look.as_ref().is_some_and(|look| match here && readers_may_stay {
                true => !look.writing.is_empty(),
                false => !look.breaking.is_empty(),
            })
        })
    }

    /// How far this machine was seen.
    pub(super) fn local_scope(&self) -> &str {
        self.0.first().and_then(Option::as_ref).map_or("none", |look| &look.scope)
    }
}
