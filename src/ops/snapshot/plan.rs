//! What a run is about to do: told before anything is stopped, with an estimate of the downtime from
//! the site's last windows and from the reading ahead.

use std::time::Duration;

use super::events::Events;
use super::{Run, SnapshotError};
use crate::base::progress::OpenWindow;
use crate::base::time::human_duration;
use crate::format::manifest::WindowRecord;
use crate::intake::dirty::PreRead;
use crate::intake::plan::ReadPlan;
use crate::record::catalogue::Catalogue;
use crate::window::before::{obstacles, wait_idle};
use crate::window::observe::{Observer, Trees};
use crate::window::phases::{Mode, Plan};

/// Windows of the site that are looked back at.
const WINDOWS: usize = 5;

/// How the sources are read in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Where the kernel told of changes.
    DirtySet,
    /// Everything, and everything a second time.
    FullScan,
    /// The one on some file systems, the other on others.
    Mixed,
}

impl Reading {
    /// Its name for scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DirtySet => "dirty-set",
            Self::FullScan => "full-scan",
            Self::Mixed => "mixed",
        }
    }
}

/// What a run is about to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outlook {
    /// What would be stopped: node and service.
    pub stops: Vec<(String, String)>,
    /// How long they may be down at most.
    pub longest: Duration,
    /// How the window reads.
    pub reading: Reading,
    /// Why it does not read by what the kernel told alone; empty where it does.
    pub why: String,
    /// Directories that would be looked at as of now, and all of them, where that is known.
    pub directories: Option<(usize, usize)>,
    /// What starts the services if this run cannot.
    pub guards: Vec<&'static str>,
    /// How long they will be down.
    pub estimate: Option<Duration>,
    /// What the estimate is made of, or why there is none.
    pub estimated_by: String,
}

/// Where new chunks of a window go.
pub const CHUNKS_GO: &str = "into packs of the repository, as they are read";

impl Outlook {
    /// As far as it can be told without reading ahead. Marks are set on the file systems of the
    /// sources to see whether they can be, and are taken away again.
    #[must_use]
    pub fn without_reading(
        window: &Plan,
        plan: &ReadPlan,
        precopy: bool,
        known: Option<&Catalogue>,
    ) -> Self {
        let ahead = Ahead { pre: None, took: Duration::ZERO, precopy };
        Self::of(window, &Events::begin(plan), &ahead, &[], known)
    }

    /// What `events` and the reading ahead tell.
    pub(super) fn of(
        window: &Plan,
        events: &Events,
        ahead: &Ahead<'_>,
        always: &[Vec<u8>],
        known: Option<&Catalogue>,
    ) -> Self {
        let (tells_some, why) = (events.tell_some(), events.why_not());
        let reading = match (ahead.precopy && tells_some, why.is_empty()) {
            (false, _) => Reading::FullScan,
            (true, true) => Reading::DirtySet,
            (true, false) => Reading::Mixed,
        };
        let why = if ahead.precopy { why } else { "nothing is read ahead".to_owned() };
        let directories =
            ahead.pre.zip(events.changes(always)).map(|(pre, changes)| pre.would_look(&changes));
        let windows = known.map(|known| last(known, &window.site)).unwrap_or_default();
        let (estimate, estimated_by) = if window.mode.stops() {
            estimate(&windows, ahead, directories)
        } else {
            (None, "nothing is stopped".to_owned())
        };
        let planned = window.services.iter().filter(|_| window.mode == Mode::StopAndStart);
        let stops: Vec<(String, String)> =
            planned.map(|one| (one.service.node(), one.service.label())).collect();
        Self {
            guards: guards(&stops),
            stops,
            longest: window.max_downtime,
            reading,
            why,
            directories,
            estimate,
            estimated_by,
        }
    }

    /// It for a person, a sentence a line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.stops.is_empty() {
            let each = self.stops.iter().map(|(node, service)| format!("{service} on {node}"));
            let each: Vec<String> = each.collect();
            let longest = human_duration(self.longest);
            lines.push(format!("stops {}, for {longest} at most", each.join(", ")));
        }
        let looked =
            self.directories.map(|(now, all)| format!(" ({now} of {all} directories now)"));
        let looked = looked.unwrap_or_default();
        lines.push(match self.reading {
            Reading::DirtySet => format!("reads then what the kernel told of{looked}"),
            Reading::FullScan => format!("looks then at everything, twice ({})", self.why),
            Reading::Mixed => {
                format!("reads then what the kernel told of{looked}, and all of: {}", self.why)
            }
        });
        lines.push(format!("new chunks go {CHUNKS_GO}"));
        if !self.guards.is_empty() {
            lines.push(format!("guarded by {}", self.guards.join(", ")));
        }
        lines.push(match self.estimate {
            Some(time) => {
                format!("downtime: about {}, by {}", human_duration(time), self.estimated_by)
            }
            None => format!("downtime: {}", self.estimated_by),
        });
        lines
    }
}

impl Run<'_> {
    /// Waits until nobody renders, looks for what stands against a snapshot, and says what comes
    /// now; for how long the services will be down.
    pub(super) fn before_the_stop(
        &self,
        events: &mut Events,
        ahead: &Ahead<'_>,
        observer: &dyn Observer,
        trees: &Trees<'_>,
        mut against: Vec<String>,
    ) -> Result<Option<Duration>, SnapshotError> {
        let input = self.input;
        let stops = input.window.mode.stops();
        if input.wait_idle > Duration::ZERO && stops {
            input.progress.phase("waiting for renderings to end", None);
            let (clock, interrupt) = (&*input.clock, &input.interrupt);
            wait_idle(&input.window, observer, trees, input.wait_idle, clock, interrupt);
        }
        against.extend(obstacles(&input.window, observer, trees, events.tell_all()));
        if stops && !against.is_empty() && !input.window.allow_capture {
            return Err(SnapshotError::Refused(against));
        }
        events.gather();
        let always = &input.sqlite_dirs;
        let outlook = Outlook::of(&input.window, events, ahead, always, Some(self.known));
        for line in outlook.lines() {
            input.progress.message(&line);
        }
        Ok(outlook.estimate)
    }

    /// The service is about to be stopped.
    pub(super) fn open_countdown(&self, estimate: Option<Duration>) {
        let window = &self.input.window;
        if window.mode.stops() {
            let longest = window.max_downtime;
            self.input.progress.window(Some(OpenWindow { estimate, longest }));
        }
    }
}

/// What reading ahead gave.
pub(super) struct Ahead<'a> {
    pub(super) pre: Option<&'a PreRead>,
    pub(super) took: Duration,
    pub(super) precopy: bool,
}

/// What starts services that were stopped, if this run cannot.
fn guards(stops: &[(String, String)]) -> Vec<&'static str> {
    let mut guards = Vec::new();
    if !stops.is_empty() {
        guards.extend(["an intent file", "a process (and a unit, where systemd runs)"]);
    }
    if stops.iter().any(|(node, _)| node != "local") {
        guards.push("a timer on each other node");
    }
    guards
}

/// The last windows of a site in which something was stopped, the newest last.
fn last<'k>(known: &'k Catalogue, site: &str) -> Vec<&'k WindowRecord> {
    let windows = known.records.iter().filter(|record| record.body.site == site);
    let mut windows: Vec<&WindowRecord> = windows
        .filter_map(|record| record.body.window.as_ref())
        .filter(|window| window.downtime_ms.is_some())
        .collect();
    windows.drain(..windows.len().saturating_sub(WINDOWS));
    windows
}

/// The middle of some lengths of time.
fn median(mut all: Vec<u64>) -> Option<Duration> {
    all.sort_unstable();
    all.get(all.len() / 2).map(|ms| Duration::from_millis(*ms))
}

/// Stops and starts are as they were; what is read is as it was, or what changed already, whichever
/// takes longer.
fn estimate(
    windows: &[&WindowRecord],
    ahead: &Ahead<'_>,
    directories: Option<(usize, usize)>,
) -> (Option<Duration>, String) {
    let share = |(now, all): (usize, usize)| {
        let (now, all) = (u32::try_from(now).unwrap_or(u32::MAX), u32::try_from(all).ok()?);
        ahead.took.checked_mul(now)?.checked_div(all)
    };
    let changed = directories.and_then(share);
    let phases: Vec<_> = windows.iter().filter_map(|window| window.phases).collect();
    let around = phases.iter().map(|p| p.stop_ms + p.quiet_ms + p.proof_ms + p.start_ms);
    let read = median(phases.iter().map(|p| p.read_ms).collect());
    let whole = median(windows.iter().filter_map(|window| window.downtime_ms).collect());
    let by = match windows.len() {
        1 => "the last window".to_owned(),
        n => format!("the last {n} windows"),
    };
    match (median(around.collect()).zip(read), whole) {
        (Some((around, read)), _) => {
            let (read, by) = match changed.filter(|changed| *changed > read) {
                Some(changed) => {
                    (changed, format!("{by} and what has changed since this run began"))
                }
                None => (read, by),
            };
            (Some(around.saturating_add(read)), by)
        }
        (None, Some(whole)) => (Some(whole), by),
        (None, None) => {
            let first =
                "no window of this site is known, so that its stop and start cannot be told";
            let reading = changed.or((ahead.pre.is_some()).then_some(ahead.took));
            let reading =
                reading.map(|time| format!("; reading: at most {}", human_duration(time)));
            (None, format!("{first}{}", reading.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::WindowPhases;

    fn window(downtime_ms: u64, phases: Option<WindowPhases>) -> WindowRecord {
        let downtime_ms = Some(downtime_ms);
        WindowRecord {
            stopped_at: None,
            started_at: None,
            downtime_ms,
            nodes: vec![],
            frozen: vec![],
            phases,
        }
    }

    fn seconds(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const NOTHING: Ahead<'_> = Ahead { pre: None, took: Duration::from_secs(100), precopy: true };

    #[test]
    fn the_last_windows_and_what_changed_make_the_estimate() {
        let parts = |read_ms| {
            Some(WindowPhases { stop_ms: 2000, start_ms: 3000, read_ms, ..Default::default() })
        };
        let (a, b, c) =
            (window(6000, parts(1000)), window(7000, parts(2000)), window(99_000, parts(94_000)));
        let all = [&a, &b, &c];
        let (time, by) = estimate(&all, &NOTHING, Some((1, 1000)));
        assert_eq!((time, by.as_str()), (Some(seconds(7)), "the last 3 windows"));
        let (time, by) = estimate(&all, &NOTHING, Some((100, 1000)));
        assert_eq!(time, Some(seconds(15)), "a tenth of the pre-copy is what changed");
        assert!(by.contains("has changed"), "{by}");
        let old = window(4000, None);
        let (time, by) = estimate(&[&old], &NOTHING, None);
        assert_eq!((time, by.as_str()), (Some(seconds(4)), "the last window"));
    }

    #[test]
    fn without_a_window_nothing_is_made_up() {
        let (time, by) = estimate(&[], &NOTHING, Some((1, 10)));
        assert_eq!(time, None);
        assert!(by.contains("no window") && by.ends_with("at most 10 s"), "{by}");
        let (time, by) = estimate(&[], &NOTHING, None);
        assert!(time.is_none() && !by.contains("reading"), "{by}");
        assert!(estimate(&[], &NOTHING, Some((1, 0))).0.is_none(), "no directory at all");
    }
}
