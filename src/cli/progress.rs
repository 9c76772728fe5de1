//! Progress as a bar on a terminal, as lines of text, or as JSON lines on stderr.

mod ticker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::args::ProgressMode;
use super::output::{Level, Suspend, Warnings};
use crate::base::size::human_size;
use crate::base::time::human_duration;
use crate::host::clock::Clock;
use crate::ops::progress::{OpenWindow, Progress, Total};
use ticker::{Countdown, JsonWindow, Ticker};

/// How often a bar is drawn again.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is printed.
const JSON_EVERY: Duration = Duration::from_secs(1);
/// How often a line of text is printed where there is no terminal.
const TEXT_EVERY: Duration = Duration::from_secs(10);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Not at all.
    Hidden,
    /// A bar on the terminal.
    Bar,
    /// A line of text now and then.
    Text,
    /// A JSON object a line.
    Json,
}

impl Style {
    /// What the options mean on this stderr.
    #[must_use]
    pub const fn choose(mode: ProgressMode, json: bool, quiet: bool, terminal: bool) -> Self {
        match (mode, json, terminal) {
            (ProgressMode::Never, _, _) | (ProgressMode::Auto, true, _) => Self::Hidden,
            (ProgressMode::Auto, false, true) if !quiet => Self::Bar,
            (ProgressMode::Auto, false, _) => Self::Hidden,
            (ProgressMode::Always, true, _) => Self::Json,
            (ProgressMode::Always, false, true) => Self::Bar,
            (ProgressMode::Always, false, false) => Self::Text,
        }
    }

    const fn every(self) -> Duration {
        match self {
            Self::Hidden => Duration::MAX,
            Self::Bar => DRAW_EVERY,
            Self::Text => TEXT_EVERY,
            Self::Json => JSON_EVERY,
        }
    }
}

/// Shows the progress of one run.
pub struct Reporter {
    inner: Arc<Inner>,
    /// Draws while a window is open.
    ticker: Mutex<Option<Ticker>>,
}

struct Inner {
    style: Style,
    clock: Arc<dyn Clock>,
    said: Arc<Warnings>,
    files: AtomicU64,
    bytes: AtomicU64,
    /// Milliseconds of the monotonic clock before which nothing is drawn.
    next: AtomicU64,
    phase: Mutex<Option<Phase>>,
    window: Mutex<Option<Countdown>>,
}

struct Phase {
    name: String,
    total: Total,
    began: Duration,
    bar: Option<ProgressBar>,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    progress: JsonBody<'a>,
}

#[derive(Serialize)]
struct JsonBody<'a> {
    phase: &'a str,
    files: u64,
    files_total: Option<u64>,
    bytes: u64,
    bytes_total: Option<u64>,
    elapsed_ms: u64,
    left_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<JsonWindow>,
}

impl Reporter {
    /// Shows progress in this style; warnings and remarks go to `said`.
    #[must_use]
    pub fn new(style: Style, clock: Arc<dyn Clock>, said: Arc<Warnings>) -> Self {
        let inner = Inner {
            style,
            clock,
            said,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            next: AtomicU64::new(0),
            phase: Mutex::new(None),
            window: Mutex::new(None),
        };
        Self { inner: Arc::new(inner), ticker: Mutex::new(None) }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Phase>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bar(&self, name: &str) -> Option<ProgressBar> {
        if self.style != Style::Bar {
            return None;
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let template = "{prefix:<12} [{bar:24}] {msg}";
        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_prefix(name.to_owned());
        Some(bar)
    }

    /// Draws, unless it was done a moment ago. Of several threads one draws, the others go on.
    fn show_sometimes(&self) {
        if self.style == Style::Hidden {
            return;
        }
        let now = millis(self.clock.monotonic());
        let due = self.next.load(Ordering::Relaxed);
        let then = now.saturating_add(millis(self.style.every()));
        let mine = now >= due
            && self.next.compare_exchange(due, then, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine && let Some(phase) = self.lock().as_ref() {
            self.show(phase);
        }
    }

    fn show(&self, phase: &Phase) {
        let (files, bytes) =
            (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let elapsed = self.clock.monotonic().saturating_sub(phase.began);
        let left = time_left(phase.total, files, bytes, elapsed);
        let now = self.clock.monotonic();
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let text = || {
            let text = describe(phase.total, files, bytes, elapsed, left);
            match &*window {
                Some(window) if files == 0 => window.text(now),
                Some(window) => format!("{}; {text}", window.text(now)),
                None => text,
            }
        };
        match self.style {
            Style::Hidden => {}
            Style::Bar => {
                if let Some(bar) = &phase.bar {
                    let (done, all) = match (phase.total.bytes, phase.total.files) {
                        (Some(all), _) => (bytes, all),
                        (None, Some(all)) => (files, all),
                        (None, None) => (0, 0),
                    };
                    bar.set_length(all);
                    bar.set_message(text());
                    bar.set_position(done.min(all));
                }
            }
            Style::Text => {
                self.said.line(format!("{}: {}\n", phase.name, text()).as_bytes());
            }
            Style::Json => {
                let line = JsonLine {
                    progress: JsonBody {
                        phase: &phase.name,
                        files,
                        files_total: phase.total.files,
                        bytes,
                        bytes_total: phase.total.bytes,
                        elapsed_ms: millis(elapsed),
                        left_ms: left.map(millis),
                        window: window.as_ref().map(|window| window.json(now)),
                    },
                };
                // A struct of numbers and text has nothing that JSON cannot hold.
                if let Ok(mut text) = serde_json::to_vec(&line) {
                    text.push(b'\n');
                    self.said.line(&text);
                }
            }
        }
    }

    /// Ends a phase: its last figures are printed where lines are, a bar is taken away.
    fn close(&self, phase: Option<Phase>) {
        let Some(phase) = phase else { return };
        if self.style != Style::Bar {
            self.show(&phase);
        }
        self.said.suspend_with(None);
        if let Some(bar) = phase.bar {
            bar.finish_and_clear();
        }
    }
}

impl Inner {
    fn begin(&self, name: &str, total: Option<Total>) {
        if self.style == Style::Hidden {
            return;
        }
        let mut current = self.lock();
        self.close(current.take());
        self.files.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        let bar = self.bar(name);
        if let Some(bar) = bar.clone() {
            let suspend: Suspend = Arc::new(move |say: &mut dyn FnMut()| bar.suspend(say));
            self.said.suspend_with(Some(suspend));
        }
        let began = self.clock.monotonic();
        let phase = Phase { name: name.to_owned(), total: total.unwrap_or_default(), began, bar };
        // A short phase prints its last line only.
        let first =
            began + if self.style == Style::Bar { Duration::ZERO } else { self.style.every() };
        self.next.store(millis(first), Ordering::Relaxed);
        *current = Some(phase);
    }

    /// Draws what there is, whether or not anything was told since.
    fn tick(&self) {
        if let Some(phase) = self.lock().as_ref() {
            self.show(phase);
        }
    }
}

impl Progress for Reporter {
    fn phase(&self, name: &str, total: Option<Total>) {
        self.inner.begin(name, total);
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.inner.files.fetch_add(files, Ordering::Relaxed);
        self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.inner.show_sometimes();
    }

    fn window(&self, open: Option<OpenWindow>) {
        let inner = &self.inner;
        if inner.style == Style::Hidden {
            return;
        }
        // The thread is gone before anything else is drawn.
        drop(self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take());
        let began = inner.clock.monotonic();
        let countdown = open.map(|open| Countdown { open, began });
        let ticks = countdown.is_some();
        *inner.window.lock().unwrap_or_else(PoisonError::into_inner) = countdown;
        if ticks {
            let shared = Arc::clone(inner);
            let ticker = Ticker::new(inner.style.every(), move || shared.tick());
            *self.ticker.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticker);
        }
    }

    fn message(&self, text: &str) {
        self.inner.said.note(Level::Normal, text);
    }

    fn warn(&self, text: &str) {
        self.inner.said.warn(text);
    }

    fn finish(&self) {
        self.window(None);
        let phase = self.inner.lock().take();
        self.inner.close(phase);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.finish();
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// The time left at the rate so far, once there is a rate to speak of.
fn time_left(total: Total, files: u64, bytes: u64, elapsed: Duration) -> Option<Duration> {
    let (done, all) = match (total.bytes, total.files) {
        (Some(all), _) if all > 0 => (bytes, all),
        (_, Some(all)) => (files, all),
        _ => return None,
    };
    if done == 0 || elapsed < Duration::from_secs(1) {
        return None;
    }
    let left = u128::from(all.saturating_sub(done)) * elapsed.as_millis() / u128::from(done);
    Some(Duration::from_millis(u64::try_from(left).ok()?))
}

fn describe(
    total: Total,
    files: u64,
    bytes: u64,
    elapsed: Duration,
    left: Option<Duration>,
) -> String {
    let mut text = match total.files {
        Some(all) => format!("{files} of {all} files"),
        None => format!("{files} files"),
    };
    match total.bytes {
        Some(all) => text.push_str(&format!(", {} of {}", human_size(bytes), human_size(all))),
        None if bytes > 0 => text.push_str(&format!(", {}", human_size(bytes))),
        None => {}
    }
    let passed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    if bytes > 0 && passed >= 500 {
        let rate = u128::from(bytes) * 1000 / u128::from(passed);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        text.push_str(&format!(", {}/s", human_size(rate)));
    }
    if let Some(left) = left {
        text.push_str(&format!(", {} left", human_duration(left)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::output::Shared;
    use super::*;
    use crate::base::time::Timestamp;

    /// A clock that moves only when it is told to.
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
        fn sleep(&self, length: Duration) {
            self.0.fetch_add(millis(length), Ordering::Relaxed);
        }
    }

    fn reporter(style: Style) -> (Reporter, Shared, Arc<Hand>) {
        let shared = Shared::default();
        let json = style == Style::Json;
        let said = Arc::new(Warnings::to(json, Level::Normal, Box::new(shared.clone())));
        let clock = Arc::new(Hand(AtomicU64::new(5_000)));
        (Reporter::new(style, clock.clone(), said), shared, clock)
    }

    #[test]
    fn options_choose_the_style() {
        use ProgressMode::{Always, Auto, Never};
        assert_eq!(Style::choose(Auto, false, false, true), Style::Bar);
        assert_eq!(Style::choose(Auto, false, true, true), Style::Hidden);
        assert_eq!(Style::choose(Auto, false, false, false), Style::Hidden);
        assert_eq!(Style::choose(Auto, true, false, true), Style::Hidden);
        assert_eq!(Style::choose(Always, true, false, true), Style::Json);
        assert_eq!(Style::choose(Always, false, false, false), Style::Text);
        assert_eq!(Style::choose(Never, true, false, true), Style::Hidden);
    }

    #[test]
    fn json_lines_are_rate_limited_and_the_last_figures_are_told() {
        let (reporter, shared, clock) = reporter(Style::Json);
        reporter.phase("reading", Some(Total { files: Some(1000), bytes: Some(1_000_000) }));
        for _ in 0..500 {
            reporter.advance(1, 1000);
        }
        clock.sleep(Duration::from_secs(2));
        reporter.advance(0, 0);
        reporter.warn("b.txt vanished");
        reporter.advance(500, 500_000);
        reporter.finish();
        let lines: Vec<serde_json::Value> =
            shared.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0]["progress"]["files"], 500);
        assert_eq!(lines[0]["progress"]["left_ms"], 2000);
        assert_eq!(lines[1]["warning"]["message"], "b.txt vanished");
        assert_eq!(lines[2]["progress"]["bytes"], 1_000_000);
        assert_eq!(lines[2]["progress"]["phase"], "reading");
    }

    #[allow(clippy::disallowed_methods, reason = "a real thread draws")]
    #[test]
    fn a_window_counts_down_while_nothing_else_is_told() {
        let (reporter, shared, clock) = reporter(Style::Json);
        let longest = Duration::from_secs(60);
        reporter.phase("stopping the service", None);
        reporter.window(Some(OpenWindow { estimate: Some(Duration::from_secs(9)), longest }));
        clock.sleep(Duration::from_secs(4));
        let began = std::time::Instant::now();
        while shared.text().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "nothing is drawn");
            std::thread::sleep(Duration::from_millis(20));
        }
        reporter.window(None);
        reporter.finish();
        let lines: Vec<serde_json::Value> =
            shared.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let window = &lines[0]["progress"]["window"];
        assert_eq!(
            *window,
            serde_json::json!({
                "down_ms": 4000, "estimate_ms": 9000, "left_ms": 56_000,
            })
        );
        assert!(lines.last().unwrap()["progress"].get("window").is_none());
        let countdown = Countdown { open: OpenWindow { estimate: None, longest }, began: longest };
        assert_eq!(countdown.text(2 * longest), "down 1m 0s, 0.00 s left at most");
    }

    #[test]
    fn text_tells_rate_and_time_left() {
        let total = Total { files: Some(10), bytes: Some(10 << 20) };
        let elapsed = Duration::from_secs(10);
        let left = time_left(total, 5, 5 << 20, elapsed);
        assert_eq!(
            describe(total, 5, 5 << 20, elapsed, left),
            "5 of 10 files, 5.0 MiB of 10 MiB, 512 KiB/s, 10 s left"
        );
        assert_eq!(describe(Total::default(), 3, 0, Duration::ZERO, None), "3 files");
    }

    #[test]
    fn threads_may_tell_at_once() {
        let (reporter, shared, _clock) = reporter(Style::Text);
        reporter.phase("reading", None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| reporter.advance(1, 10)));
            }
        });
        reporter.finish();
        reporter.finish();
        assert_eq!(shared.text(), "reading: 4000 files, 39 KiB\n");
    }
}
